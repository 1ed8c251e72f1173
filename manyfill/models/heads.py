"""Heads, the distributions of the hole's pixels given all latents: their protocol, and the choice among them.

Shapes: B batch, C picture channels, H W size.
"""

from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from manyfill.models.config import ModelConfig
from manyfill.models.mixture import MixtureHead, Scene
from manyfill.models.multiscale import MultiscaleHead
from manyfill.models.pixelcnn import PixelCNNHead


class Head(Protocol):
    """A proper distribution over the pixels of a scene's hole, given those around it."""

    def log_prob(self, scene: Scene) -> Tensor:
        """Log-probability (B,) of the hole's pixels of `scene.x`, in nats."""

    def sample(self, scene: Scene, noise: Sequence[torch.Generator] | Tensor) -> tuple[Tensor, Tensor]:
        """Pictures and their expectation (B, C, H, W): drawn, or averaged, in the hole and `scene.x` elsewhere.

        Each picture is a function of its own generator, or of its own uniform numbers among those (R, K + C) of all
        hole pixels in the order of reading. Of a head that draws pixel after pixel the expectation is each
        pixel's given those drawn before it.
        """


HEADS = {"mixture": MixtureHead, "pixelcnn": PixelCNNHead, "multiscale": MultiscaleHead}


def make_head(config: ModelConfig) -> MixtureHead:
    """The head that a configuration names, after its last level."""
    return HEADS[config.head](config, config.levels[-1].width)
