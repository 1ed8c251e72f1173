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

EACH, FILLS, SUSPECTS, TILE = 3, 6, 6, 96


def chosen(rows: Sequence[Row]) -> dict[str, list[int]]:
    """Places among the rows by CRPS: the lowest, those about the median, the highest; without doubles."""
    order = sorted(range(len(rows)), key=lambda place: rows[place]["crps"])
    middle = max(0, (len(order) - EACH) // 2)
    parts = {"best": order[:EACH], "median": order[middle : middle + EACH], "worst": order[-EACH:]}
    return parts if len(order) >= 3 * EACH else {"all": order}


def sheet(filler: Filler, cases: Sequence[Case]) -> np.ndarray:
    """A row a case: the truth, the hole, fills, their mean, the uncertainty map; uint8 (H', W', 3)."""
    rows, labels = [], []
    for case in cases:
        completions = filler(case.pixels, case.mask, FILLS, case.seed)
        top = f"std to {completions.std.max():.0f}"
        rows.append(list(_tiles(case, completions)))
        labels.append(["truth", "hole", *(f"fill {i}" for i in range(FILLS)), "mean", top])
    return contact_sheet(rows, labels, tile=TILE)


def suspects(check: Memorisation) -> np.ndarray:
    """The fills that look most like copies, next to the nearest training pictures of fill and truth."""
    rows, labels = [], []
    for one in check.suspects[:SUSPECTS]:
        hole = hatched(one.case.pixels, one.case.mask)
        rows.append([hole, one.fill.picture, one.fill.nearest, one.truth.picture, one.truth.nearest])
        labels.append(
            ["hole", "fill", f"nearest, {one.fill.ratio:.2f}", "truth", f"its nearest, {one.truth.ratio:.2f}"]
        )
    return contact_sheet(rows, labels, tile=TILE)


def _tiles(case: Case, completions: Completions) -> Iterator[np.ndarray]:
    yield case.pixels
    yield hatched(case.pixels, case.mask)
    yield from completions.images
    yield completions.mean
    yield completions.uncertainty()
