"""Fills of validation pictures by a cell's model, scored picture by picture, and what a table says of them.

Legend: P pictures, S the model's size, C channels, N fills.
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from manyfill.data import open_source
from manyfill.evaluate.cases import Case, Cases
from manyfill.evaluate.figures import of_fills
from manyfill.evaluate.scores import Estimate, estimate
from manyfill.pipeline import Filler

KEPT = ("crps", "psnr_mean", "seam", "seam_of_truth")
FILLS, BOUND_SAMPLES = 8, 4
Row = dict[str, Any]


def cases_of(pictures: str, count: int, size: int = 32) -> Cases:
    """The first pictures of a folder with centre holes."""
    return Cases(open_source(pictures), "centre", size, 3, range(count), 0)


def scored(model: Path, pictures: str, count: int, size: int = 32) -> dict[str, list[float]]:
    """Figures of `count` pictures (P,), `rim_error` among them: the mean fill's error next to known pixels, in grey
    levels."""
    filler, cases = Filler.from_pretrained(model), cases_of(pictures, count, size)
    found: dict[str, list[float]] = {name: [] for name in (*KEPT, "bits_per_dim", "rim_error")}
    for place in range(count):
        case = cases[place]
        fills = filler(case.pixels, case.mask, FILLS, case.seed, 1.0, case.pixels, bound_samples=BOUND_SAMPLES)
        assert fills.bound is not None
        own = {"bits_per_dim": fills.bound.bits_per_dim, "rim_error": rim_error(case, fills.mean)}
        row = of_fills(case, fills) | own
        for name, values in found.items():
            values.append(round(float(row[name]), 4))
    return found


def rim_error(case: Case, mean: np.ndarray) -> float:
    """Mean absolute error of the hole's pixels that have a known neighbour above, below or beside them."""
    known = np.pad(~case.mask, 1)
    beside = known[:-2, 1:-1] | known[2:, 1:-1] | known[1:-1, :-2] | known[1:-1, 2:]
    return float(np.abs(mean.astype(np.float64) - case.pixels)[case.mask & beside].mean())


def over_pictures(records: Sequence[Row], *names: str, of: Callable[..., np.ndarray] = lambda mean: mean) -> Estimate:
    """`of` the means of some figures, with a bootstrap interval over pictures; seeds are averaged first."""
    return estimate(*(np.mean([record[name] for record in records], 0) for name in names), of=of)


def over_others(records: Sequence[Row], others: Sequence[Row], name: str) -> Estimate:
    """How far a figure lies above that of other runs, paired by picture."""
    own, base = (np.mean([record[name] for record in each], 0) for each in (records, others))
    return estimate(own - base, of=lambda mean: mean)


def seam_ratio(records: Sequence[Row]) -> Estimate:
    """How strong the steps across the hole's border are, compared with those of the truth."""
    return over_pictures(records, "seam", "seam_of_truth", of=np.divide)


def shown(value: Estimate, digits: int = 2) -> str:
    return f"{value.mean:.{digits}f} [{value.low:.{digits}f}, {value.high:.{digits}f}]"
