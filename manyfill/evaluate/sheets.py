"""Pictures for the report: fills of the best, the median and the worst cases, chosen by rule.

The rows keep no pictures; since a fill is a function of picture, hole and seed, the chosen few are drawn again.
"""

from collections.abc import Iterator, Sequence

import numpy as np

from manyfill.completions import Completions, hatched
from manyfill.evaluate.cases import Case
from manyfill.evaluate.figures import Row
from manyfill.evaluate.memorisation import Memorisation
from manyfill.images import contact_sheet
from manyfill.pipeline import Filler

EACH, FILLS, TILE = 3, 6, 96


def chosen(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Picture numbers by CRPS: the lowest, those about the median, the highest; without doubles."""
    order = [row["index"] for row in sorted(rows, key=lambda row: row["crps"])]
    middle = max(0, (len(order) - EACH) // 2)
    parts = {"best": order[:EACH], "median": order[middle : middle + EACH], "worst": order[-EACH:]}
    return parts if len(order) >= 3 * EACH else {"all": order}


def sheet(filler: Filler, cases: Sequence[Case], seed: int) -> np.ndarray:
    """A row a case: the truth, the hole, fills, their mean, the uncertainty map; uint8 (H', W', 3)."""
    rows, labels = [], []
    for case in cases:
        completions = filler(case.pixels, case.mask, FILLS, seed)
        rows.append(list(_tiles(case, completions)))
        labels.append(["truth", "hole", *(f"fill {i}" for i in range(FILLS)), "mean", f"std to {_top(completions)}"])
    return contact_sheet(rows, labels, tile=TILE)


def neighbours(check: Memorisation, training: Sequence[np.ndarray]) -> np.ndarray:
    """The fills that lie nearest to a training picture, next to it: `training` holds that of each of the closest."""
    rows, labels = [], []
    for one, picture in zip(check.closest, training, strict=False):
        rows.append([one.case.pixels, hatched(one.case.pixels, one.case.mask), one.fill, picture])
        labels.append(["truth", "hole", "fill", f"nearest, {one.fill_ratio:.2f}"])
    return contact_sheet(rows, labels, tile=TILE)


def _tiles(case: Case, completions: Completions) -> Iterator[np.ndarray]:
    yield case.pixels
    yield hatched(case.pixels, case.mask)
    yield from completions.images
    yield completions.mean
    yield completions.uncertainty()


def _top(completions: Completions) -> str:
    return f"{completions.std.max():.0f}"
