"""Fills bent to their surroundings: what a fill is off by along its border is taken back inside, fading with distance.

A membrane over the hole, held at its border by the steps found there: the harmonic interpolant of seamless cloning
(Pérez, Gangnet and Blake 2003, "Poisson image editing"), relaxed from coarse to fine. Its blocks hold the steps that a
stretch of border has in common; that pixels differ from their neighbours one by one is what pictures are made of.

Legend: s a square's size, g blocks a side, C channels.
"""

from collections.abc import Iterator

import numpy as np
from PIL import Image

BLOCK = 4  # pixels
SHARE = 0.45
"""Of the steps, how much is taken back: pictures have such steps too, where a thing begins at the border."""
SWEEPS = 4
Places = tuple[np.ndarray, np.ndarray]


def bend(image: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What to add to a picture uint8 (s, s, C) in a hole bool (s, s), float32 (s, s, C).

    `known` bool (s, s) are the pixels that the fill shall join; nothing is added where there are none.
    """
    side, blocks = len(image), -(-len(image) // BLOCK)
    steps = np.zeros((blocks, blocks, image.shape[2]), np.float32)
    counts = np.zeros((blocks, blocks, 1), np.float32)
    for inner, outer in _borders(hole, known):
        at = inner[0] // BLOCK, inner[1] // BLOCK
        np.add.at(steps, at, image[outer] - image[inner].astype(np.float32))
        np.add.at(counts, at, np.float32(1))
    return SHARE * _enlarge(_membrane(steps, counts), blocks * BLOCK)[:side, :side]


def _borders(hole: np.ndarray, known: np.ndarray) -> Iterator[tuple[Places, Places]]:
    """The hole's pixels that have a known one below, above, right or left of them, and that."""
    for axis in (0, 1):
        first, second = np.moveaxis(hole, axis, 0), np.moveaxis(known, axis, 0)
        for ahead, behind in ((first[:-1] & second[1:], 0), (second[:-1] & first[1:], 1)):
            row, column = ahead.nonzero()
            inner, outer = (row + behind, column), (row + 1 - behind, column)
            yield (inner, outer) if axis == 0 else (inner[::-1], outer[::-1])


def _membrane(steps: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """Means (g, g, C) of blocks, from their sums (g, g, C) and counts (g, g, 1), and between them a membrane."""
    held = counts > 0
    means = steps / np.maximum(counts, 1)
    if len(counts) == 1 or held.all():
        return means
    coarser = _membrane(_in_fours(steps), _in_fours(counts))
    found = np.where(held, means, _enlarge(coarser, 2 * len(coarser))[: len(counts), : len(counts)])
    for _ in range(SWEEPS):
        near = np.pad(found, ((1, 1), (1, 1), (0, 0)), "edge")
        found = np.where(held, means, (near[2:, 1:-1] + near[:-2, 1:-1] + near[1:-1, 2:] + near[1:-1, :-2]) / 4)
    return found


def _in_fours(blocks: np.ndarray) -> np.ndarray:
    """Sums of two by two blocks."""
    odd = len(blocks) % 2
    even = np.pad(blocks, ((0, odd), (0, odd), (0, 0)))
    return even[::2, ::2] + even[1::2, ::2] + even[::2, 1::2] + even[1::2, 1::2]


def _enlarge(blocks: np.ndarray, size: int) -> np.ndarray:
    planes = (Image.fromarray(np.ascontiguousarray(plane)) for plane in np.moveaxis(blocks, -1, 0))
    return np.stack([np.asarray(plane.resize((size, size), Image.Resampling.BILINEAR)) for plane in planes], -1)
