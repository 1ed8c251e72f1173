"""What is evaluated: pictures of one size, each with the hole that its number fixes.

Legend: S the size of the pictures, C their channels; D hole values of one picture.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from manyfill.data import Source
from manyfill.data.loader import tile, with_channels
from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.masks import KINDS, MaskFolder, draw
from manyfill.rng import numpy_generator

FOLDER = "folder"


@dataclass(frozen=True)
class Case:
    """One picture uint8 (S, S, C) with its hole bool (S, S), its number in the source, and its name."""

    index: int
    name: str
    pixels: np.ndarray
    mask: np.ndarray

    def hole(self, picture: np.ndarray) -> np.ndarray:
        """The hole's values (D,) of a picture (S, S, C)."""
        return picture[self.mask].ravel()


class Cases:
    """`count` pictures of a source from number `first`, cropped centrally to `size`, under holes of one kind.

    `kind` is one of `manyfill.masks.KINDS`, or "folder" for masks of `mask_folder`. Reading raises PictureError.
    """

    def __init__(
        self,
        source: Source,
        kind: str,
        size: int,
        channels: int,
        count: int,
        seed: int,
        mask_folder: MaskFolder | None,
        first: int = 0,
    ) -> None:
        self.source, self.kind, self.mask_folder = source, kind, mask_folder
        self.size, self.channels, self.seed = size, channels, seed
        self.numbers = range(first, first + count)

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Case:
        index = self.numbers[place]
        try:
            pixels = self.source[index].pixels
        except PictureError as error:
            raise PictureError(f"{error}; a report must not leave pictures out: mend or remove it") from None
        square = with_channels(tile(pixels, self.size, None), self.channels)
        return Case(index, self.source.name(index), np.ascontiguousarray(square), self._mask(index))

    def _mask(self, index: int) -> np.ndarray:
        rng = numpy_generator(self.seed, "evaluate", index)
        if self.kind != FOLDER:
            return draw(self.kind, self.size, self.size, rng)
        assert self.mask_folder is not None
        return self.mask_folder.draw(self.size, self.size, rng)


def kinds(asked: str | None, mask_dir: Path | None) -> list[str]:
    """The kinds of holes that `--masks` and `--mask-dir` ask for, all drawn ones by default; ConfigError."""
    if asked is None:
        return [FOLDER] if mask_dir else list(KINDS)
    found = list(dict.fromkeys(filter(None, asked.split(","))))
    for kind in found:
        if kind not in KINDS:
            raise ConfigError(f"--masks {kind}: no such kind; choose from {', '.join(KINDS)}")
    if not found:
        raise ConfigError(f"--masks: names no kind; choose from {', '.join(KINDS)}")
    return found + [FOLDER] * bool(mask_dir)


def number(source: Source, limit: int | None) -> int:
    """How many pictures to take; DataError where there are fewer than asked for."""
    if limit is None:
        return len(source)
    if limit < 1:
        raise ConfigError(f"--limit {limit}: must be 1 or more")
    if limit > len(source):
        raise DataError(f"--limit {limit}: the data holds {len(source)} pictures only; lower it or give more")
    return limit
