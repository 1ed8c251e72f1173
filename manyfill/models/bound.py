"""Bounds on the likelihood of the hole, from what a traversal recorded.

Shapes: B pictures, L levels, K samples. All values in nats per picture.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from manyfill.distributions import Gaussian, kl
from manyfill.models.topdown import Step

Number = TypeVar("Number", float, Tensor)


@dataclass(frozen=True)
class Bound:
    """One sample of the evidence lower bound: `pixels` (B,) minus `kl` (B, L); `dims` (B,) counts hole values.

    `nested` (B, sizes - 1) holds the losses of the truncated hierarchies, see `nested_losses`.
    """

    pixels: Tensor
    kl: Tensor
    dims: Tensor
    nested: Tensor

    @property
    def total(self) -> Tensor:
        """The bound (B,) on log p(x_H | x_K)."""
        return self.pixels - self.kl.sum(1)


def level_kl(steps: Sequence[Step]) -> Tensor:
    """KL(q || p) of every level over the hole (B, L), analytic."""
    return torch.stack([_over_hole(kl(_posterior(step), step.prior), step.mask) for step in steps], 1)


def nested_losses(pictures: dict[int, Tensor], steps: Sequence[Step], deviation: float = 0.06) -> Tensor:
    """Negative bounds of the truncated hierarchies, in nats per value of their own size (B, sizes but the finest).

    The levels down to size s are an HVAE of the picture pooled to s (`pictures`, by size), with a normal distribution
    of fixed `deviation` around the canvas. In the full bound a coarse level's mistakes weigh next to nothing, since
    finer levels can mend them for a few nats, so its prior learns slowly; here they count by the size they are made at.
    """
    kl_so_far = torch.zeros(len(steps[0].z), device=steps[0].z.device)
    kl_by_level = level_kl(steps)
    losses = []
    for level, step in enumerate(steps):
        size = step.z.shape[-1]
        kl_so_far = kl_so_far + kl_by_level[:, level]
        if level + 1 < len(steps) and steps[level + 1].z.shape[-1] != size:
            error = _over_hole(((pictures[size] - step.canvas) / deviation) ** 2, step.mask) / 2
            losses.append((error + kl_so_far) / (step.mask.flatten(1).sum(1) * step.canvas.shape[1]).clamp(min=1))
    return torch.stack(losses, 1) if losses else kl_by_level[:, :0]


def log_weight(pixels: Tensor, steps: Sequence[Step]) -> Tensor:
    """log p(x_H, z) - log q(z) (B,) of the very latents drawn: the weight of one importance sample."""
    terms = [_over_hole(step.prior.log_prob(step.z) - _posterior(step).log_prob(step.z), step.mask) for step in steps]
    return pixels + torch.stack(terms).sum(0)


def importance_bound(weights: Tensor) -> Tensor:
    """The K-sample bound (B,) of Burda et al. (2016), equation 8, from the logarithms (K, B) of K samples' weights."""
    return torch.logsumexp(weights, 0) - math.log(len(weights))


def bits_per_dim(nats: Number, dims: Number) -> Number:
    """A code length, -log p or KL, in nats as bits per hole value: the one place where this is worked out."""
    return nats / (math.log(2) * dims)


def _posterior(step: Step) -> Gaussian:
    assert step.posterior is not None, "a bound needs a traversal that saw the whole picture"
    return step.posterior


def _over_hole(values: Tensor, mask: Tensor) -> Tensor:
    return (values * mask).sum((1, 2, 3))
