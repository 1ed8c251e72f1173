"""Guidance: draws that follow their caption more, or less, than the model itself would.

Classifier-free guidance (Ho & Salimans 2022, arXiv:2207.12598) for a hierarchy: it is walked twice at once, with the
caption and without. At every level, of the two priors, of the two posteriors where the truth is known, and of what the
two say that the latent means, the guided walk takes

    mean = mean_without + weight * (mean_with - mean_without)
    std  = std_without * (std_with / std_without) ** weight

Both go on with one latent and one canvas, and the pixels are those of the walk with the caption. At weight 1 this is
the model given the caption, at 0 its latents are those of the model without, beyond 1 it exaggerates. As every level is
a normal distribution again, this is a model of its own, with a bound of its own, which any posterior gives: less of a
fit to pictures than the one that was trained, for whose bound 1 is the best weight as far as training got.

Shapes: B pictures; what is walked twice has 2 B rows, those with a caption first.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from manyfill.distributions import Gaussian


@dataclass(frozen=True)
class Guidance:
    """The two walks as one, at a `weight`; of weight 1 there is a single walk, and nothing here does anything."""

    weight: float = 1.0

    @property
    def off(self) -> bool:
        return self.weight == 1

    def both(self, shared: Tensor) -> Tensor:
        """For both walks (2 B) what they share (B)."""
        return shared if self.off else torch.cat([shared, shared])

    def told(self, h: Tensor, join: Callable[[Tensor], Tensor]) -> Tensor:
        """The state (2 B) of which the walk with the caption has been told it."""
        if self.off:
            return join(h)
        with_it, without = h.chunk(2)
        return torch.cat([join(with_it), without])

    def mean(self, h: Tensor) -> Tensor:
        """What is expected (B), of what each walk expects (2 B)."""
        if self.off:
            return h
        with_it, without = h.chunk(2)
        return without + self.weight * (with_it - without)

    def gaussian(self, of: Gaussian) -> Gaussian:
        """Likewise a level's distribution."""
        return of if self.off else Gaussian(self.mean(of.mean), self.mean(of.std.log()).exp())

    def with_caption(self, h: Tensor) -> Tensor:
        """The state (B) of the walk with the caption."""
        return h if self.off else h.chunk(2)[0]


UNGUIDED = Guidance()
