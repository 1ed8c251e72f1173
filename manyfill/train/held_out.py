"""Validation pictures for a data set that comes without: one in twenty, held back from training; and of one picture an
eighth of what is known of it."""

from collections.abc import Sequence

import numpy as np

from manyfill.data import Example, Source
from manyfill.data.squares import Squares
from manyfill.errors import DataError, PictureError
from manyfill.rng import numpy_generator

SHARE = 20
MOST = 512
SQUARES_SHARE, MOST_SQUARES, CANDIDATES = 8, 16, 64


class Part:
    """Some pictures of a source, by index: int64 (N,)."""

    def __init__(self, source: Source, indices: np.ndarray) -> None:
        self.source, self.indices = source, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Example:
        return self.source[int(self.indices[index])]

    def name(self, index: int) -> str:
        return self.source.name(int(self.indices[index]))

    def captions(self, index: int) -> list[str]:
        return self.source.captions(int(self.indices[index]))


def split(source: Source, seed: int) -> tuple[Part, Part]:
    """(training, validation) parts, fixed by `seed`; DataError for a source of fewer than two pictures."""
    count = len(source)
    if count < 2:
        raise DataError("DATA: holds one picture only; give more, or name validation pictures with --val")
    order = numpy_generator(seed, "held out").permutation(count)
    held = min(MOST, max(1, count // SHARE))
    return Part(source, np.sort(order[held:])), Part(source, np.sort(order[:held]))


def apart(pixels: np.ndarray, hole: np.ndarray, sides: Sequence[int], seed: int, name: str) -> tuple[Squares, Part]:
    """(training, validation) squares of a picture uint8 (H, W, C), which share no pixel and show none of the hole.

    PictureError where the known part (H, W) has no room for two that are apart.
    """
    smallest, every = min(sides), Squares(pixels, hole, sides, seed, name)
    room = max(int((~hole).sum()) // SQUARES_SHARE, smallest**2)
    taken, missing, chosen = hole, int(hole.sum()), list[int]()
    for index in range(CANDIDATES if len(every) else 0):
        more = taken.copy()
        more[every.box(index).inside(*hole.shape)] = True
        if more.sum() - missing <= room and len(Squares(pixels, more, [smallest], seed, name)):
            taken, chosen = more, [*chosen, index]
        if len(chosen) == MOST_SQUARES:
            break
    if not chosen:
        raise PictureError(
            f"{name}: the mask leaves no two squares of {smallest}x{smallest} known pixels apart from each other, to "
            "learn from and to judge by; drop --adapt"
        )
    return Squares(pixels, taken, sides, seed, name), Part(every, np.array(chosen))
