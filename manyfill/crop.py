"""The squares of a picture that the model is shown: where they lie, how they shrink, how fills return.

Legend: H W the picture's size, C its channels, S the model's size. Pixels are uint8 (H, W, C), holes bool (H, W).
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from PIL import Image


class Box(NamedTuple):
    """A square of a picture, in pixels; where the picture is smaller than the square it reaches beyond the edges."""

    top: int
    left: int
    side: int

    def cut(self, array: np.ndarray) -> np.ndarray:
        """The (side, side, ...) square of an (H, W, ...) array, its edge repeated where the square reaches beyond."""
        rows, columns = self.places(*array.shape[:2])
        return array.take(rows, 0).take(columns, 1)

    def places(self, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows and columns of an (H, W) picture that the square shows, the nearest for those beyond its edges."""
        rows, columns = (
            np.clip(np.arange(start, start + self.side), 0, length - 1)
            for start, length in ((self.top, height), (self.left, width))
        )
        return rows, columns

    def inside(self, height: int, width: int) -> tuple[slice, slice]:
        """The part of the square that lies on an (H, W) picture, in the picture's coordinates."""
        return (
            slice(max(self.top, 0), min(self.top + self.side, height)),
            slice(max(self.left, 0), min(self.left + self.side, width)),
        )


@dataclass(frozen=True)
class Part:
    """One of a picture's holes, far from the others, in the square around it.

    pixels uint8 (side, side, C); missing bool (side, side), all that is missing there; own, the part of it to fill;
    `excerpt`, whether the square leaves some of the picture out.
    """

    box: Box
    pixels: np.ndarray
    missing: np.ndarray
    own: np.ndarray
    excerpt: bool


@dataclass(frozen=True)
class _Group:
    """Neighbouring blocks with holes: their labels, and the rows and columns (start, stop) that the holes span."""

    labels: frozenset[int]
    rows: tuple[int, int]
    columns: tuple[int, int]

    def box(self, shape: tuple[int, int], smallest: int) -> Box:
        return _square((self.rows, self.columns), shape, smallest)

    def join(self, other: "_Group") -> "_Group":
        (top, bottom), (left, right) = (
            (min(mine[0], theirs[0]), max(mine[1], theirs[1]))
            for mine, theirs in ((self.rows, other.rows), (self.columns, other.columns))
        )
        return _Group(self.labels | other.labels, (top, bottom), (left, right))

    def reaches(self, box: Box) -> bool:
        return all(
            span[0] < start + box.side and start < span[1]
            for span, start in ((self.rows, box.top), (self.columns, box.left))
        )


def parts(pixels: np.ndarray, hole: np.ndarray, size: int) -> list[Part]:
    """The holes of a picture, those together that lie in one another's surroundings."""
    labels = _labels(hole, size)
    apart: list[_Group] = []
    for group in _groups(hole, labels, size):
        while True:
            box = group.box(hole.shape, size)
            near = [other for other in apart if other.reaches(box) or group.reaches(other.box(hole.shape, size))]
            if not near:
                break
            for other in near:
                apart.remove(other)
                group = group.join(other)
        apart.append(group)
    return [
        _part(group, pixels, hole, labels, size) for group in sorted(apart, key=lambda one: (one.rows, one.columns))
    ]


def _part(group: "_Group", pixels: np.ndarray, hole: np.ndarray, labels: np.ndarray, size: int) -> Part:
    box = group.box(hole.shape, size)
    missing, chosen = box.cut(hole), np.isin(labels, list(group.labels))
    rows, columns = box.places(*hole.shape)
    own = missing & chosen[np.ix_(rows // size, columns // size)]
    return Part(box, box.cut(pixels), missing, own, box.side < max(hole.shape))


def _groups(hole: np.ndarray, labels: np.ndarray, size: int) -> Iterator[_Group]:
    for label in range(1, labels.max() + 1):
        mine = labels == label
        blocks = [_span(np.asarray(mine.any(axis))) for axis in (1, 0)]
        (top, bottom), (left, right) = ((start * size, stop * size) for start, stop in blocks)
        near = mine[tuple(slice(*span) for span in blocks)].repeat(size, 0).repeat(size, 1)
        own = hole[top:bottom, left:right]
        own = own & near[: own.shape[0], : own.shape[1]]
        (first, last), (one, other) = (_span(own.any(axis)) for axis in (1, 0))
        yield _Group(frozenset({label}), (top + first, top + last), (left + one, left + other))


def _labels(hole: np.ndarray, size: int) -> np.ndarray:
    """Of each block of size x size pixels the number of its group of neighbours with holes, -1 without a hole."""
    strips = np.logical_or.reduceat(hole, np.arange(0, hole.shape[0], size), 0)
    filled = np.logical_or.reduceat(strips, np.arange(0, hole.shape[1], size), 1)
    labels = np.where(filled, 0, -1)
    count = 0
    for start in zip(*filled.nonzero(), strict=True):
        if labels[start]:
            continue
        count += 1
        ahead = [start]
        labels[start] = count
        while ahead:
            row, column = ahead.pop()
            around = (slice(max(row - 1, 0), row + 2), slice(max(column - 1, 0), column + 2))
            rows, columns = (labels[around] == 0).nonzero()
            labels[around][rows, columns] = count
            ahead += zip(rows + around[0].start, columns + around[1].start, strict=True)
    return labels


def surround(hole: np.ndarray, smallest: int) -> Box:
    """The square to show the model: around the hole, as much again for context, inside the picture where it fits."""
    rows, columns = (_span(hole.any(axis)) for axis in (1, 0))
    return _square((rows, columns), hole.shape, smallest)


def _span(line: ArrayLike) -> tuple[int, int]:
    at = np.flatnonzero(line)
    return int(at[0]), int(at[-1]) + 1


def _square(spans: tuple[tuple[int, int], ...], shape: tuple[int, ...], smallest: int) -> Box:
    longer = max(end - start for start, end in spans)
    # Repeated edges tell the model little: go beyond the picture only for a hole that the inside hardly surrounds.
    room = min(shape) if 2 * min(shape) >= 3 * longer else max(shape)
    side = max(smallest, min(2 * longer, room))
    top, left = (_start(span, side, length) for span, length in zip(spans, shape, strict=True))
    return Box(top, left, side)


def _start(span: tuple[int, int], side: int, length: int) -> int:
    if side > length:
        return (length - side) // 2
    return min(max(sum(span) // 2 - side // 2, 0), length - side)


def shrink(pixels: np.ndarray, hole: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """A square picture and hole at size S: cells with any missing pixel are missing, others average known ones only."""
    if len(hole) == size:
        return pixels, hole
    small_hole = shrink_hole(hole, size)
    known = ~hole[..., None]
    # A kernel without negative lobes: the weight of the known pixels cannot come near 0 in a known cell.
    values = _resample(pixels * known, size, Image.Resampling.HAMMING)
    weight = _resample(known, size, Image.Resampling.HAMMING)
    return _rounded(values / np.where(small_hole[..., None], np.inf, weight)), small_hole


def shrink_hole(hole: np.ndarray, size: int) -> np.ndarray:
    """A square hole at another size: cells with any missing pixel are missing."""
    return hole if len(hole) == size else _resample(hole[..., None], size, Image.Resampling.BOX)[..., 0] > 0


def paste(pixels: np.ndarray, own: np.ndarray, box: Box, fill: np.ndarray) -> None:
    """Put a fill (side, side, C') of the box into a picture, where `own` (side, side) says."""
    if fill.shape[2] > pixels.shape[2]:
        fill = _rounded(fill.mean(-1, keepdims=True))
    inside = box.inside(*pixels.shape[:2])
    part = tuple(slice(s.start - start, s.stop - start) for s, start in zip(inside, (box.top, box.left), strict=True))
    # A mask of every channel: spreading one over them takes ten times as long as copying.
    np.copyto(pixels[inside], fill[part], where=own[part][..., None].repeat(pixels.shape[2], -1))


def enlarge(pixels: np.ndarray, size: int) -> np.ndarray:
    """A square (s, s, C) at a larger size, smoothly."""
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    return np.asarray(image.resize((size, size), Image.Resampling.BICUBIC)).reshape(size, size, -1)


def _resample(planes: np.ndarray, size: int, kernel: Image.Resampling) -> np.ndarray:
    """(h, w, C) of any type to float32 (size, size, C)."""
    images = (Image.fromarray(plane.astype(np.float32)) for plane in np.moveaxis(planes, -1, 0))
    return np.stack([np.asarray(image.resize((size, size), kernel)) for image in images], -1)


def _rounded(values: np.ndarray) -> np.ndarray:
    return np.rint(values).clip(0, 255).astype(np.uint8)
