"""What is in a data set: a look at every picture of it."""

import itertools
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from manyfill.data.batch import Skipped
from manyfill.data.duplicates import content_hash, difference_hash, equal_groups, near_groups, without
from manyfill.data.loader import tile, with_channels
from manyfill.data.pictures import PictureFiles
from manyfill.errors import PictureError
from manyfill.images import DEFAULT_MAX_PIXELS, contact_sheet

EDGES = (1, 32, 64, 128, 256, 512, 1024, 2048, 4096)
SHOWN, COLUMNS, THUMBNAIL = 48, 8, 96
COMMONEST = 5
AT_ONCE = 1000


class Look(NamedTuple):
    """What is kept of one picture; `thumbnail` uint8 (T, T, 3) of some only."""

    name: str
    size: tuple[int, int]
    channels: int
    captions: int
    notes: tuple[str, ...]
    content: bytes
    hash: np.ndarray | None
    thumbnail: np.ndarray | None


@dataclass(frozen=True)
class Survey:
    """The looks at the pictures that can be used, in order, and the others with what is wrong with them."""

    looks: list[Look]
    broken: list[Skipped]

    def record(self) -> dict[str, Any]:
        """Counts, sizes (width, height), duplicates and broken files, to read by machine."""
        looks, exact = self.looks, equal_groups(look.content for look in self.looks)
        return {
            "pictures": len(looks) + len(self.broken),
            "usable": len(looks),
            "grey": sum(look.channels == 1 for look in looks),
            "with_captions": sum(look.captions > 0 for look in looks),
            "captions": sum(look.captions for look in looks),
            "notes": dict(Counter(note for look in looks for note in look.notes).most_common()),
            "sizes": self._sizes(),
            "shorter_side": self._histogram(),
            "exact_duplicates": self._names(exact),
            "near_duplicates": self._names(without(self._alike(), exact)),
            "broken": [skip._asdict() for skip in self.broken],
        }

    def sheet(self) -> np.ndarray | None:
        """Pictures from all over the set, uint8 (H, W, 3); None if none can be used."""
        shown = [look.thumbnail for look in self.looks if look.thumbnail is not None]
        rows = [shown[first : first + COLUMNS] for first in range(0, len(shown), COLUMNS)]
        return contact_sheet(rows) if rows else None

    def _sizes(self) -> dict[str, Any]:
        by_area = sorted((look.size for look in self.looks), key=lambda size: (size[0] * size[1], size))
        common = Counter(by_area).most_common(COMMONEST)
        places = {"smallest": 0, "median": len(by_area) // 2, "largest": -1} if by_area else {}
        return {
            **{name: by_area[place] for name, place in places.items()},
            "different": len(set(by_area)),
            "commonest": [{"size": size, "pictures": count} for size, count in common],
        }

    def _histogram(self) -> list[dict[str, Any]]:
        sides = [min(look.size) for look in self.looks]
        bins = [(low, high) for low, high in itertools.pairwise((*EDGES, None))]
        counts = np.histogram(sides, [*EDGES, np.inf])[0].tolist()
        return [{"from": low, "below": high, "pictures": n} for (low, high), n in zip(bins, counts, strict=True)]

    def _alike(self) -> list[list[int]]:
        hashed = {place: look.hash for place, look in enumerate(self.looks) if look.hash is not None}
        places = list(hashed)
        return [[places[row] for row in group] for group in near_groups(list(hashed.values()))]

    def _names(self, groups: list[list[int]]) -> list[list[str]]:
        return [[self.looks[place].name for place in group] for group in groups]


def survey(
    source: PictureFiles,
    workers: int,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tick: Callable[[int], object] = lambda pictures: None,
) -> Survey:
    """Look at every picture, telling `tick` how many are done with."""
    shown = set(np.linspace(0, len(source) - 1, SHOWN).astype(int).tolist())

    def look(index: int) -> Look | Skipped:
        try:
            return _look(source, index, max_pixels, index in shown)
        except PictureError as error:
            return Skipped(source.name(index), str(error))

    found: list[Look | Skipped] = []
    with ThreadPoolExecutor(workers) as pool:
        try:
            for first in range(0, len(source), AT_ONCE):
                for seen in pool.map(look, range(first, min(first + AT_ONCE, len(source)))):
                    found.append(seen)
                    tick(1)
        finally:
            pool.shutdown(cancel_futures=True)
    return Survey([f for f in found if isinstance(f, Look)], [f for f in found if isinstance(f, Skipped)])


def _look(source: PictureFiles, index: int, max_pixels: int, show: bool) -> Look:
    picture = source.picture(index, max_pixels)
    height, width, channels = picture.pixels.shape
    return Look(
        picture.name,
        (width, height),
        channels,
        len(source.captions(index)),
        picture.notes,
        content_hash(picture.pixels),
        difference_hash(picture.pixels),
        with_channels(tile(picture.pixels, THUMBNAIL, None), 3) if show else None,
    )
