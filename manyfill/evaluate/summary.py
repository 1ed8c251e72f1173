"""From the rows of many pictures to figures with intervals, differences between models, and the regression gate.

Legend: P pictures, N fills. A report's row of figures maps a name to an `Estimate`; "coverage" maps levels to them.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from manyfill.errors import ConfigError
from manyfill.evaluate.calibration import SPREADS, cut, levels, percent
from manyfill.evaluate.figures import Row
from manyfill.evaluate.scores import Estimate, estimate

BOUNDS = ("bits_per_dim", "bits_per_dim_k", "nats", "nats_k")
HIGHER = ("psnr_mean", "psnr_one", "psnr_best", "ssim_mean", "ssim_one", "ssim_best")
LOWER = (*BOUNDS, "crps", "energy", "lpips_mean", "lpips_one")
MEANS = (*HIGHER, "crps", "energy", "diversity", "lpips_mean", "lpips_one")
SAME = ("data", "count", "samples", "bound_samples", "seed")
"""The settings that two reports must share to be compared."""
HOLE_SIZES = (0.0, 0.1, 0.2, 0.3, 0.5, 0.7, 1.01)
"""Edges of the bins of hole size, as shares of the picture."""


@dataclass(frozen=True)
class Figure:
    """Some function `of` the means over pictures of columns (P,)."""

    columns: tuple[np.ndarray, ...]
    of: Callable[..., np.ndarray]

    def estimate(self) -> Estimate:
        return estimate(*self.columns, of=self.of)

    def minus(self, other: "Figure") -> Estimate:
        """The difference over the same pictures, resampled together."""
        mine = len(self.columns)
        return estimate(
            *self.columns, *other.columns, of=lambda *means: self.of(*means[:mine]) - other.of(*means[mine:])
        )


def _same(mean: np.ndarray) -> np.ndarray:
    return mean


def _bits(nats: np.ndarray, dims: np.ndarray) -> np.ndarray:
    return -nats / (math.log(2) * dims)


def figures(rows: Sequence[Row]) -> dict[str, Figure]:
    """Every figure that the rows (P) allow, by name; those of coverage as "coverage.90"."""
    found = {name: Figure((_column(rows, name),), _same) for name in MEANS if name in rows[0]}
    # Where the true border is flat, or there is none, no fill can be held against it.
    bordered = [row for row in rows if row["seam_of_truth"] > 0]
    if bordered:
        found["seam_ratio"] = Figure((_column(bordered, "seam"), _column(bordered, "seam_of_truth")), np.divide)
    if "nats" in rows[0]:
        dims = _column(rows, "dims")
        for end in ("", "_k"):
            nats = _column(rows, f"nats{end}")
            found[f"nats{end}"] = Figure((-nats,), _same)
            found[f"bits_per_dim{end}"] = Figure((nats, dims), _bits)
    if "ranks" in rows[0]:
        counts = _column(rows, "ranks")
        n = counts.shape[1] - 1
        for level in levels(n):
            k = cut(level, n)
            columns = (counts[:, k : n + 1 - k].sum(1), counts.sum(1))
            found[f"coverage.{percent(level)}"] = Figure(columns, np.divide)
    return found


def summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The report's row of figures for one method and one kind of hole."""
    row = _nested({name: asdict(figure.estimate()) for name, figure in figures(rows).items()})
    row["count"] = len(rows)
    if "kl" in rows[0]:
        kl, dims = _column(rows, "kl"), _column(rows, "dims")
        row["kl_bits_per_dim"] = [asdict(estimate(-level, dims, of=_bits)) for level in kl.T]
    moved = [each["spread"] for each in rows if "spread" in each]
    if moved:
        row["spread"] = [asdict(estimate(level)) for level in np.array(moved).T]
    if "ranks" in rows[0]:
        row["ranks"] = _column(rows, "ranks").sum(0).tolist()
        row["reliability"] = _reliability(_column(rows, "reliability").sum(0))
        row["by_hole_size"] = list(_by_hole_size(rows))
    return row


def differences(rows: Sequence[Row], base: Sequence[Row]) -> dict[str, Any]:
    """One model's figures minus another's on the same pictures, with paired intervals."""
    mine, theirs = figures(rows), figures(base)
    shared = mine.keys() & theirs.keys()
    if [row.get("dims") for row in rows] != [row.get("dims") for row in base]:
        shared -= set(BOUNDS)  # at different sizes they are of different pixels
    return _nested({name: asdict(mine[name].minus(theirs[name])) for name in mine if name in shared})


def regressions(new: dict[str, Any], old: dict[str, Any]) -> list[str]:
    """What got worse from the `old` report to the `new` one by more than the old one's interval, a line each.

    Models go by their names; one alone is compared with one alone, whatever they are called. ConfigError where the two
    reports are not of the same pictures and draws.
    """
    changed = [key for key in SAME if new["settings"].get(key) != old["settings"].get(key)]
    if changed:
        raise ConfigError(f"--against: that report is of other settings ({', '.join(changed)}); evaluate alike")
    models = dict(new["models"])
    if len(models) == len(old["models"]) == 1:
        models = dict(zip(old["models"], models.values(), strict=True))
    found = []
    for model, kinds in old["models"].items():
        for kind, before in kinds["masks"].items():
            now = models.get(model, {}).get("masks", {}).get(kind)
            if now is None:
                found.append(f"{model}, {kind} holes: missing in the new report")
                continue
            found += [f"{model}, {kind} holes: {line}" for line in _worse(_flat(now), _flat(before))]
    return found


def _worse(now: dict[str, dict[str, float]], before: dict[str, dict[str, float]]) -> Iterator[str]:
    for name in sorted(before):
        if name not in now:
            yield f"{name} is missing in the new report"
            continue
        new, old = now[name]["mean"], before[name]
        if name in HIGHER:
            bad = new < old["low"]
        elif name in LOWER:
            bad = new > old["high"]
        elif name == "seam_ratio" or name.startswith("coverage."):
            ideal = 1.0 if name == "seam_ratio" else float(name.partition(".")[2]) / 100
            allowed = max(abs(old[end] - ideal) for end in ("low", "high"))
            bad = abs(new - ideal) > allowed
        else:
            continue
        if bad:
            yield f"{name} {new:.4g}, was {old['mean']:.4g} [{old['low']:.4g}, {old['high']:.4g}]"


def _reliability(sums: np.ndarray) -> list[dict[str, float]]:
    """Bins of claimed deviation that hold any value: its root mean square and that of the error."""
    return [
        {
            "from": float(SPREADS[index]),
            "values": float(count),
            "claimed": math.sqrt(variance / count),
            "error": math.sqrt(square / count),
        }
        for index, (count, variance, square) in enumerate(sums.T)
        if count
    ]


def _by_hole_size(rows: Sequence[Row]) -> Iterator[dict[str, Any]]:
    """Coverage in bins of the hole's share of the picture."""
    place = np.searchsorted(HOLE_SIZES, _column(rows, "hole"), side="right") - 1
    for index in sorted(set(place.tolist())):
        part = [row for row, where in zip(rows, place, strict=True) if where == index]
        covered = {
            name: asdict(figure.estimate()) for name, figure in figures(part).items() if name.startswith("coverage.")
        }
        yield {"from": HOLE_SIZES[index], "to": min(1.0, HOLE_SIZES[index + 1]), "count": len(part), **_nested(covered)}


def _column(rows: Sequence[Row], name: str) -> np.ndarray:
    return np.array([row[name] for row in rows], np.float64)


def _nested(flat: dict[str, Any]) -> dict[str, Any]:
    """Dotted names as groups."""
    row: dict[str, Any] = {}
    for name, value in flat.items():
        group, _, last = name.rpartition(".")
        (row.setdefault(group, {}) if group else row)[last] = value
    return row


def _flat(row: dict[str, Any]) -> dict[str, dict[str, float]]:
    """The figures of a report's row, coverage with dotted names."""
    coverage = {f"coverage.{level}": value for level, value in row.get("coverage", {}).items()}
    return {name: value for name, value in row.items() if isinstance(value, dict) and "mean" in value} | coverage
