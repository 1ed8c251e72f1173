"""The square of a picture that the model is shown: where it lies, how it shrinks to the model's size, how fills return.

Legend: H W the picture's size, C its channels, S the model's size. Pixels are uint8 (H, W, C), holes bool (H, W).
"""

from typing import NamedTuple

import numpy as np
from PIL import Image


class Box(NamedTuple):
    """A square of a picture, in pixels; where the picture is smaller than the square it reaches beyond the edges."""

    top: int
    left: int
    side: int

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The (side, side, ...) square of an (H, W, ...) array, its edge repeated where the square reaches beyond."""
        rows, columns = (
            np.clip(np.arange(start, start + self.side), 0, length - 1)
            for start, length in zip((self.top, self.left), array.shape, strict=False)
        )
        return array.take(rows, 0).take(columns, 1)

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """The part of the square that lies on an (H, W) picture, in the picture's coordinates."""
        return (
            slice(max(self.top, 0), min(self.top + self.side, height)),
            slice(max(self.left, 0), min(self.left + self.side, width)),
        )


def surround(hole: np.ndarray, smallest: int) -> Box:
    """The square to show the model: around the hole, as much again for context, inside the picture where it fits."""
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    spans = [(int(at[0]), int(at[-1]) + 1) for at in (rows, columns)]
    longer = max(end - start for start, end in spans)
    # Repeated edges tell the model little: go beyond the picture only for a hole that the inside hardly surrounds.
    room = min(hole.shape) if 2 * min(hole.shape) >= 3 * longer else max(hole.shape)
    side = max(smallest, min(2 * longer, room))
    top, left = (_start(span, side, length) for span, length in zip(spans, hole.shape, strict=True))
    return Box(top, left, side)


def _start(span: tuple[int, int], side: int, length: int) -> int:
    if side > length:
        return (length - side) // 2
    return min(max(sum(span) // 2 - side // 2, 0), length - side)


def shrink(pixels: np.ndarray, hole: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A square picture and hole at size S: cells with any missing pixel are missing, others average known ones only."""
    if len(hole) == size:
        return pixels, hole
    small_hole = _resample(hole[..., None], size, Image.Resampling.BOX)[..., 0] > 0
    known = ~hole[..., None]
    # A kernel without negative lobes: the weight of the known pixels cannot come near 0 in a known cell.
    values = _resample(pixels * known, size, Image.Resampling.HAMMING)
    weight = _resample(known, size, Image.Resampling.HAMMING)
    return _rounded(values / np.where(small_hole[..., None], np.inf, weight)), small_hole


def paste(pixels: np.ndarray, hole: np.ndarray, box: Box, fill: np.ndarray) -> np.ndarray:
    """The picture with its hole taken from `fill` (S, S, C'), which shows the box; every known pixel as it was."""
    if fill.shape[2] > pixels.shape[2]:
        fill = _rounded(fill.mean(-1, keepdims=True))
    if len(fill) != box.side:
        image = Image.fromarray(fill[..., 0] if fill.shape[2] == 1 else fill)
        fill = np.asarray(image.resize((box.side, box.side), Image.Resampling.BICUBIC)).reshape(box.side, box.side, -1)
    inside = box.inside(*hole.shape)
    rows, columns = (
        slice(part.start - start, part.stop - start) for part, start in zip(inside, (box.top, box.left), strict=True)
    )
    out = pixels.copy()
    # A mask of every channel: spreading one over them takes ten times as long as copying.
    np.copyto(out[inside], fill[rows, columns], where=hole[inside][..., None].repeat(out.shape[2], -1))
    return out


def _resample(planes: np.ndarray, size: int, kernel: Image.Resampling) -> np.ndarray:
    """(h, w, C) of any type to float32 (size, size, C)."""
    images = (Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(planes, -1, 0))
    return np.stack([np.asarray(image.resize((size, size), kernel)) for image in images], -1)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
