"""Fills as they are drawn, before they are put into the picture.

Legend: N fills, C channels, T tiles of the first size, Z latent channels.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyfill.octaves import Canvas
from manyfill.recipe import Recipe


@dataclass(frozen=True)
class Drawn:
    """The fills of each part of a picture (N, side, side, C) and the sum of their expectations (side, side, C); of each
    fill its recipe, and by level the latents (N, T, Z, size, size) of all parts; and the seconds it took."""

    fills: list[np.ndarray]
    totals: list[np.ndarray]
    latents: list[Tensor]
    recipes: list[Recipe]
    seconds: float

    @classmethod
    def of(cls, board: Sequence[Canvas], seconds: float) -> "Drawn":
        """What stands on the canvases of a picture's parts."""
        latents = [torch.cat(level, 1) for level in zip(*(canvas.latents for canvas in board), strict=True)]
        totals = [canvas.mean for canvas in board]
        return cls([canvas.images for canvas in board], totals, latents, list(board[0].recipes), seconds)

    @property
    def means(self) -> list[np.ndarray]:
        """The expectation of each part, averaged over the fills, uint8."""
        return [np.rint(total / len(self.recipes)).astype(np.uint8) for total in self.totals]


def joined(portions: Sequence[Drawn]) -> Drawn:
    """One picture's fills, drawn in portions."""
    if len(portions) == 1:
        return portions[0]
    return Drawn(
        [np.concatenate(part) for part in zip(*(p.fills for p in portions), strict=True)],
        [np.sum(part, 0) for part in zip(*(p.totals for p in portions), strict=True)],
        [torch.cat(level) for level in zip(*(p.latents for p in portions), strict=True)],
        [recipe for portion in portions for recipe in portion.recipes],
        sum(portion.seconds for portion in portions),
    )
