"""Pictures that occur twice: alike value by value, or to the eye.

To the eye two pictures are alike when their difference hashes agree in all but 7 of 128 bits: 64 say whether a cell of
an 8x8 grid is brighter than its left neighbour, 64 the same of the upper one. Resizing and recompression flip few.
"""

import hashlib
from collections import defaultdict
from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from PIL import Image

MOST_BITS = 7
BANDS = MOST_BITS + 1  # bits that differ spare one band at least
PLAIN = 4  # grey levels
MOST_COMPARED = 1000  # of those that share a word with a picture, which bounds the work where all pictures do


def content_hash(pixels: np.ndarray) -> bytes:
    """16 bytes that only pictures of the same values share; uint8 (H, W, C)."""
    return hashlib.blake2b(f"{pixels.shape}".encode() + pixels.tobytes(), digest_size=16).digest()


def difference_hash(pixels: np.ndarray) -> np.ndarray | None:
    """Eight words uint16 (8,) of a picture uint8 (H, W, C); None for one so plain that noise would decide."""
    image = Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).convert("L").convert("F")
    cells = np.asarray(image.resize((9, 9), Image.Resampling.BOX))
    if np.ptp(cells) < PLAIN:
        return None
    bits = [np.diff(cells[:8], axis=1) > 0, np.diff(cells[:, :8], axis=0) > 0]
    # Dealt out, so that every word is of the whole picture: many pictures share a plain sky.
    dealt = np.packbits(np.stack(bits).reshape(-1, BANDS).T, axis=1)
    return np.ascontiguousarray(dealt).view(np.uint16).reshape(-1)


def equal_groups(keys: Iterable[Hashable]) -> list[list[int]]:
    """The places of keys that occur more than once, by key."""
    places = defaultdict[Hashable, list[int]](list)
    for place, key in enumerate(keys):
        places[key].append(place)
    return [group for group in places.values() if len(group) > 1]


def near_groups(hashes: Sequence[np.ndarray]) -> list[list[int]]:
    """Groups of places of hashes in which each has another at most 7 bits away; places in order."""
    unique, places = np.unique(np.reshape(hashes, (-1, BANDS)), axis=0, return_inverse=True)
    parents = list(range(len(unique)))

    def root(row: int) -> int:
        while parents[row] != row:
            parents[row] = parents[parents[row]]
            row = parents[row]
        return row

    for band in range(BANDS):
        for rows in _agreeing(unique[:, band]):
            for at, row in enumerate(rows[:-1]):
                others = rows[at + 1 : at + 1 + MOST_COMPARED]
                differing = np.unpackbits((unique[others] ^ unique[row]).view(np.uint8), axis=1).sum(1)
                for other in others[differing <= MOST_BITS].tolist():
                    parents[root(other)] = root(int(row))
    return equal_groups(map(root, places.reshape(-1).tolist()))


def _agreeing(words: np.ndarray) -> Iterator[np.ndarray]:
    """The rows that share a word, for each word of more than one row."""
    order = np.argsort(words, kind="stable")
    starts = np.flatnonzero(np.diff(words[order])) + 1
    yield from (rows for rows in np.split(order, starts) if len(rows) > 1)


def without(groups: Sequence[Sequence[int]], known: Sequence[Sequence[int]]) -> list[list[int]]:
    """The groups that say more than the `known` ones do: of pictures known to be one, the first stands for all."""
    first = {place: group[0] for group in known for place in group}
    reduced = (sorted({first.get(place, place) for place in group}) for group in groups)
    return [group for group in reduced if len(group) > 1]
