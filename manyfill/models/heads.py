"""Heads, the distributions of the hole's pixels given all latents: their protocol, and the choice among them.

Shapes: B batch, C picture channels, H W size, D width of the last level.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from manyfill.models.config import ModelConfig
from manyfill.models.mixture import MixtureHead
from manyfill.models.multiscale import MultiscaleHead
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.models.window import Window


class Head(Protocol):
    """A proper distribution over the pixels where m (B, 1, H, W) is 1, given those where it is 0.

    `h` (B, D, H, W) is the state of the top-down path, `canvas` (B, C, H, W) the picture as that has drawn it, from
    which the pixel means start. All of these are of a `window` of the pictures, of everything without.
    """

    def log_prob(self, h: Tensor, canvas: Tensor, x: Tensor, m: Tensor, window: Window | None = None) -> Tensor:
        """Log-probability (B,) of the hole's pixels of `x` (B, C, H, W), in nats."""

    def sample(
        self,
        h: Tensor,
        canvas: Tensor,
        known: Tensor,
        m: Tensor,
        noise: Sequence[torch.Generator] | Tensor,
        window: Window | None = None,
    ) -> tuple[Tensor, Tensor]:
        """Pictures and their expectation (B, C, H, W): drawn, or averaged, in the hole and `known` elsewhere.

        Each picture is a function of its own generator, or of its own uniform numbers among those (R, K + C) of all
        hole pixels in the order of reading. Of a head that draws pixel after pixel the expectation is each
        pixel's given those drawn before it.
        """


HEADS = {"mixture": MixtureHead, "pixelcnn": PixelCNNHead, "multiscale": MultiscaleHead}


def make_head(config: ModelConfig) -> MixtureHead:
    """The head that a configuration names, after its last level."""
    return HEADS[config.head](config, config.levels[-1].width)
