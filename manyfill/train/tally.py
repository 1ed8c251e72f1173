"""Bounds summed over pictures and divided once."""

import math

import torch

from manyfill.models.bound import Bound, bits_per_dim


class Tally:
    """The sum of many pictures' bounds over `levels` latent levels; figures are means over their hole values."""

    def __init__(self, levels: int, device: torch.device) -> None:
        # Pictures, nested losses, hole values, pixel term, KL by level; in float64, since a whole set adds up.
        self.sums = torch.zeros(4 + levels, dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, bound: Bound) -> None:
        columns = [torch.ones_like(bound.dims), bound.nested.sum(1), bound.dims, -bound.pixels, *bound.kl.T]
        self.sums += torch.stack(columns, 1).double().sum(0)

    def merge(self, other: "Tally") -> None:
        """Count what another one has counted too."""
        self.sums += other.sums

    def clear(self) -> None:
        self.sums.zero_()

    def figures(self) -> dict[str, float]:
        """Bits per hole value: the bound, its pixel term, the KL of each level from coarse to fine.

        `nested` is the mean over pictures of the nested losses' sum, in nats per value. NaN if nothing was added.
        """
        pictures, nested, dims, *nats = self.sums.tolist()
        pixels, *kl = (bits_per_dim(term, dims or math.nan) for term in nats)
        levels = {f"kl_{level + 1:02d}": value for level, value in enumerate(kl)}
        return {
            "bits_per_dim": pixels + sum(kl),
            "pixel_bits": pixels,
            **levels,
            "nested": nested / (pictures or math.nan),
        }
