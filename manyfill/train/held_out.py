"""Validation pictures for a data set that comes without: one in twenty, held back from training."""

import numpy as np

from manyfill.data import Example, Source
from manyfill.errors import DataError
from manyfill.rng import numpy_generator

SHARE = 20
MOST = 512


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


def split(source: Source, seed: int) -> tuple[Part, Part]:
    """(training, validation) parts, fixed by `seed`; DataError for a source of fewer than two pictures."""
    count = len(source)
    if count < 2:
        raise DataError("DATA: holds one picture only; give more, or name validation pictures with --val")
    order = numpy_generator(seed, "held out").permutation(count)
    held = min(MOST, max(1, count // SHARE))
    return Part(source, np.sort(order[held:])), Part(source, np.sort(order[:held]))
