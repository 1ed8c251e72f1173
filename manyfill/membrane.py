"""Fills bent to their surroundings: what a fill is off by along its border is taken back inside, fading with distance.

A membrane over the hole, held at its border by the steps found there: the harmonic interpolant of seamless cloning
(Pérez, Gangnet and Blake 2003, "Poisson image editing"), relaxed from coarse to fine. Its blocks hold the steps that a
stretch of border has in common; that pixels differ from their neighbours one by one is what pictures are made of.
Pictures have steps along borders too, where a thing begins there: only so much is taken back that the hole's border
has steps as large as those between the known pixels beside it.

Legend: s a square's size, g blocks a side, E pairs of neighbours across the hole's border, C channels.
"""

import numpy as np
from PIL import Image

BLOCK = 2  # pixels
SHARES = np.linspace(0, 1, 21, dtype=np.float32)
SWEEPS = 4
Places = tuple[np.ndarray, np.ndarray]


def bend(image: np.ndarray, hole: np.ndarray, known: np.ndarray) -> np.ndarray:
    """What to add to a picture uint8 (s, s, C) in a hole bool (s, s), float32 (s, s, C).

    `known` bool (s, s) are the pixels that the fill shall join; nothing is added where there are none, or no two
    behind one another to tell how large the picture's own steps are.
    """
    values = image.astype(np.float32)
    at, steps, usual = _steps(values, hole, known)
    if not len(usual):
        return np.zeros_like(values)
    membrane = _stretched(steps, at, len(values))
    taken = membrane[at]
    left = np.array([np.abs(steps - share * taken).mean() for share in SHARES])
    # The least share with which they are no larger than usual, or else the one that comes nearest.
    return SHARES[np.maximum(left - np.abs(usual).mean(), 0).argmin()] * membrane


def _steps(values: np.ndarray, hole: np.ndarray, known: np.ndarray) -> tuple[Places, np.ndarray, np.ndarray]:
    """The hole's pixels beside known ones, on all four sides, with the steps (E, C) from each to its neighbour.

    And the steps (E', C) from that to the known pixel behind it, where there is one.
    """
    values, known = np.pad(values, ((2, 2), (2, 2), (0, 0))), np.pad(known, 2)
    row, column = (at + 2 for at in hole.nonzero())
    inner, steps, usual = [], [], []
    for down, right in ((1, 0), (-1, 0), (0, 1), (0, -1)):
        edge = known[row + down, column + right]
        i, j = row[edge], column[edge]
        outer = values[i + down, j + right]
        behind = i + 2 * down, j + 2 * right
        inner.append((i - 2, j - 2))
        steps.append(outer - values[i, j])
        usual.append((values[behind] - outer)[known[behind]])
    rows, columns = np.concatenate(inner, 1)
    return (rows, columns), np.concatenate(steps), np.concatenate(usual)


def _stretched(steps: np.ndarray, at: Places, side: int) -> np.ndarray:
    """The membrane (s, s, C) held by steps (E, C) at these places."""
    blocks = -(-side // BLOCK)
    sums = np.zeros((blocks, blocks, steps.shape[1]), np.float32)
    counts = np.zeros((blocks, blocks, 1), np.float32)
    block = at[0] // BLOCK, at[1] // BLOCK
    np.add.at(sums, block, steps)
    np.add.at(counts, block, np.float32(1))
    return _enlarge(_membrane(sums, counts), blocks * BLOCK)[:side, :side]


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
