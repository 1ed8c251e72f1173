"""The factorised head: the hole's pixels are independent given the top-down path's state.

Shapes: B batch, C picture channels, H W size, D width of the last level, R hole pixels of the whole batch, K mixture
components.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from manyfill.distributions import LogisticMixture, gumbel, logistic
from manyfill.models.blocks import activation, pasted, rows_at
from manyfill.models.config import ModelConfig
from manyfill.models.window import Window


@dataclass(frozen=True)
class Scene:
    """What a head is shown: the state h (B, D, H, W) of the top-down path, the `canvas` (B, C, H, W) as that has drawn
    it, from which the pixels' means start, and the picture x (B, C, H, W) with its hole m (B, 1, H, W), which is 1
    where pixels are missing; all of them of a `window` of the picture."""

    h: Tensor
    canvas: Tensor
    x: Tensor
    m: Tensor
    window: Window

    @property
    def hole(self) -> Tensor:
        """The hole's pixels (R,) among all B * H * W, in the order of reading."""
        return self.m.flatten().nonzero()[:, 0]


class MixtureHead(nn.Module):
    """Pixels independent given h: a mixture of discretised logistics each, worked out at hole pixels only."""

    bins = 256

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__()
        self.channels, self.mixtures, self.noise = config.channels, config.mixtures, config.pixel_noise
        self.pairs = config.channels * (config.channels - 1) // 2 if config.couple_channels else 0
        self.split = [1, config.channels, config.channels, self.pairs]
        self.active = activation(config)
        self.project = nn.Linear(width, sum(self.split) * config.mixtures)
        nn.init.normal_(self.project.weight, std=0.1 * width**-0.5)
        nn.init.zeros_(self.project.bias)
        with torch.no_grad():
            _, means, log_scales, _ = self.project.bias.view(-1, config.mixtures).split(self.split)
            means[0] = torch.linspace(-0.6, 0.6, config.mixtures) if config.mixtures > 1 else 0.0
            log_scales.fill_(-2.0)

    def log_prob(self, scene: Scene) -> Tensor:
        """As `Head`."""
        where = scene.hole
        return per_picture(self.distribution(scene, where).log_prob(rows_at(scene.x, where)), where, scene.m)

    def sample(self, scene: Scene, noise: Sequence[torch.Generator] | Tensor) -> tuple[Tensor, Tensor]:
        """As `Head`."""
        return self.draw(scene, scene.hole, self.uniform(scene.m, noise))

    def draw(self, scene: Scene, where: Tensor, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The same for the hole's pixels `where` (R,) among all B * H * W, from uniform numbers (R, K + C)."""
        mixture = self.distribution(scene, where)
        drawn = mixture.sample(*self.noise_of(uniform))
        return pasted(drawn, where, scene.x), pasted(mixture.mean(), where, scene.x)

    def distribution(self, scene: Scene, where: Tensor) -> LogisticMixture:
        """Of the pixels `where` (R,), as far as they do not depend on one another."""
        return self.mixture(self.project(self.active(rows_at(scene.h, where))), rows_at(scene.canvas, where))

    def noise_of(self, uniform: Tensor) -> tuple[Tensor, Tensor]:
        """The noise that chooses the component (R, K) and the values (R, C), from uniform numbers (R, K + C)."""
        component, value = uniform.split([self.mixtures, self.channels], 1)
        return gumbel(component), logistic(value)

    def mixture(self, raw: Tensor, base: Tensor) -> LogisticMixture:
        """The distribution of R pixels from raw parameters (R, ...), with means counted from `base` (R, C)."""
        raw = raw.float().view(raw.shape[0], sum(self.split), self.mixtures)
        logits, means, log_scales, couplings = raw.split(self.split, 1)
        coupled = torch.tanh(couplings) if self.pairs else None
        return LogisticMixture(logits[:, 0], means + base[..., None], log_scales.clamp(min=-7.0), coupled, self.bins)

    def uniform(self, m: Tensor, noise: Sequence[torch.Generator] | Tensor) -> Tensor:
        """Uniform noise (R, K + C) on (0, 1) for the hole's pixels in the order of reading, unless it is given."""
        if not isinstance(noise, Tensor):
            counts = [int(count) for count in m.flatten(1).sum(1)]
            # One generator per picture, so that a fill does not depend on which others are drawn with it.
            noise = torch.cat([torch.rand(n, self.noise, generator=g) for n, g in zip(counts, noise, strict=True)])
        return noise.clamp(1e-7, 1 - 1e-7).to(m.device)


def per_picture(values: Tensor, where: Tensor, m: Tensor) -> Tensor:
    """The sums (B,) over each picture's rows (R,)."""
    flat = torch.zeros(m.numel(), device=m.device).index_put((where,), values)
    return flat.view(len(m), -1).sum(1)
