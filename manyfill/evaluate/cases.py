"""What is evaluated: pictures of one size, each with the hole and the seed that its number fixes.

Legend: S the size of the pictures, C their channels; D hole values of one picture.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F

from manyfill.data import Source
from manyfill.data.loader import tile, with_channels
from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.masks import KINDS, LARGE_KINDS, MaskFolder, draw, read_mask
from manyfill.rng import key, numpy_generator

FOLDER = "folder"


@dataclass(frozen=True)
class Case:
    """One picture uint8 (S, S, C) with its hole bool (S, S), its number in the source, its name, and its seed.

    A seed of its own for each picture: noise that all shared would not average out over them.
    """

    index: int
    name: str
    pixels: np.ndarray
    mask: np.ndarray
    seed: int

    def hole(self, picture: np.ndarray) -> np.ndarray:
        """The hole's values (D,) of a picture (S, S, C)."""
        return picture[self.mask].ravel()


@dataclass(frozen=True)
class Cases:
    """The pictures `numbers` of a source, cropped centrally to `size`, under holes of one kind.

    `kind` is one of `KINDS` or `LARGE_KINDS` of `manyfill.masks`, or "folder": then picture i has the mask i of
    `masks`, from the first again after the last, cropped as the picture is. Reading raises PictureError.
    """

    source: Source
    kind: str
    size: int
    channels: int
    numbers: Sequence[int]
    seed: int
    masks: MaskFolder | None = None

    def __len__(self) -> int:
        return len(self.numbers)

    def __getitem__(self, place: int) -> Case:
        index = self.numbers[place]
        try:
            pixels = self.source[index].pixels
        except PictureError as error:
            raise PictureError(f"{error}; a report must not leave pictures out: mend or remove it") from None
        square = np.ascontiguousarray(with_channels(tile(pixels, self.size, None), self.channels))
        return Case(index, self.source.name(index), square, self._mask(index), key(self.seed, "case", index))

    def _mask(self, index: int) -> np.ndarray:
        if self.kind != FOLDER:
            return draw(self.kind, self.size, self.size, numpy_generator(self.seed, "evaluate", index))
        assert self.masks is not None
        path = self.masks.paths[index % len(self.masks)]
        mask = _central(read_mask(path), self.size)
        if not mask.any():
            raise PictureError(f"{path}: has no hole in its central square; move the hole or remove the file")
        return mask


def _central(mask: np.ndarray, size: int) -> np.ndarray:
    """The largest central square at (size, size); a cell with any missing pixel is missing."""
    side = min(mask.shape)
    top, left = ((length - side) // 2 for length in mask.shape)
    square = torch.from_numpy(np.ascontiguousarray(mask[top : top + side, left : left + side]))
    return F.adaptive_max_pool2d(square[None, None].float(), size)[0, 0].numpy() > 0


def kinds(asked: str | None, mask_dir: Path | None) -> list[str]:
    """The kinds of holes that `--masks` and `--mask-dir` ask for, all drawn ones by default; ConfigError."""
    if asked is None:
        return [FOLDER] if mask_dir else list(KINDS)
    found = list(dict.fromkeys(filter(None, asked.split(","))))
    for kind in found:
        if kind not in (*KINDS, *LARGE_KINDS):
            raise ConfigError(f"--masks {kind}: no such kind; choose from {', '.join((*KINDS, *LARGE_KINDS))}")
    if not found:
        raise ConfigError(f"--masks: names no kind; choose from {', '.join((*KINDS, *LARGE_KINDS))}")
    return found + [FOLDER] * bool(mask_dir)


def first(numbers: Sequence[int], limit: int | None) -> Sequence[int]:
    """The first `limit` of them, all for None; DataError where there are fewer."""
    if limit is None:
        return numbers
    if limit < 1:
        raise ConfigError(f"--limit {limit}: must be 1 or more")
    if limit > len(numbers):
        raise DataError(f"--limit {limit}: the data holds {len(numbers)} pictures only; lower it or give more")
    return numbers[:limit]
