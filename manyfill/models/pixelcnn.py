"""The PixelCNN head: p(x_i | x_<i, h, x_K), pixel after pixel over the hole.

van den Oord et al. (2016), arXiv:1601.06759 and 1606.05328, with the mixture of discretised logistics and the channel
autoregression of PixelCNN++ (Salimans et al. 2017). Known pixels are given, so they are seen from all sides.

Shapes: B batch, C picture channels, S the model's size, R hole pixels of the whole batch, K mixture components.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from manyfill.models.blocks import conv
from manyfill.models.causal import CausalNetwork, Order, Rows, skewed
from manyfill.models.config import ModelConfig
from manyfill.models.mixture import MixtureHead, Scene, per_picture

WIDTH, DEPTH = 64, 2
ERROR_GAIN = 4.0  # what the canvas lacks is a fraction of a picture's range


class PixelCNNHead(MixtureHead):
    """The factorised head's parameters, moved by what the pixels drawn before tell."""

    what = "pixels"

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        # h, the canvas, the known pixels and where they are: unmasked, for nothing of them depends on the hole's.
        self.surround = conv(width + 2 * config.channels + 1, WIDTH)
        outputs = self.project.out_features
        self.network = CausalNetwork(self.order(config.size), 2 * config.channels, WIDTH, outputs, WIDTH, DEPTH)

    @staticmethod
    def order(size: int) -> Order:
        """The order in which the pixels are drawn."""
        return skewed(size)

    def log_prob(self, scene: Scene) -> Tensor:
        """As `Head`."""
        rows = self.network.ordered(scene.hole, len(scene.m), scene.window, drawn=False)
        raw, base, context = self.begin(rows, scene)
        pixels = rows.take(scene.x)
        raw = raw + self.network(rows, self.what_is_told(pixels, base), context)
        return per_picture(self.mixture(raw, base).log_prob(pixels), rows.where, scene.m)

    def sample(self, scene: Scene, noise: Sequence[torch.Generator] | Tensor) -> tuple[Tensor, Tensor]:
        """As `Head`."""
        rows = self.network.ordered(scene.hole, len(scene.m), scene.window)
        raw, base, context = self.begin(rows, scene)
        component, value = self.noise_of(self.uniform(scene.m, noise)[rows.rank])
        pixels = torch.zeros_like(base)

        def choose(now: slice, told: Tensor) -> Tensor:
            mixture = self.mixture(raw[now].add_(told), base[now])
            pixels[now] = drawn = mixture.sample(component[now], value[now])
            return self.what_is_told(drawn, base[now])

        self.network.draw(rows, context, choose, self.what)
        mean = self.mixture(raw, base).mean()
        return rows.put(pixels, scene.x), rows.put(mean, scene.x)

    def begin(self, rows: Rows, scene: Scene) -> tuple[Tensor, Tensor, Tensor]:
        """What is known of each pixel before any is drawn: its raw parameters so far, what its means start from (R, C),
        and what the network is told."""
        own = self.project(self.active(rows.take(scene.h))).float()
        return own, rows.take(scene.canvas), self.context(rows, scene)

    def context(self, rows: Rows, scene: Scene) -> Tensor:
        """What each pixel is told (R, W) that does not depend on the hole's pixels."""
        around = torch.cat([self.active(scene.h), scene.canvas, scene.x * (1 - scene.m), scene.m], 1)
        return F.silu(rows.take(self.surround(around)))

    @staticmethod
    def what_is_told(pixels: Tensor, base: Tensor) -> Tensor:
        """Of pixels (R, C) to those after them (R, 2 C): themselves, and what the canvas lacked there."""
        return torch.cat([pixels, ERROR_GAIN * (pixels - base)], 1)
