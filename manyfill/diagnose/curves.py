"""A run's log as curves: bound, pixel term, KL by level, gradient norms, active latents, the prior's misfit.

As the 2017 report drew them: training and validation in one axis, an axis for each level. Figures are those of
`Tally.figures` and `LatentUse.figures`; a null in the log is a gap in its curve.
"""

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from manyfill.models.config import LevelSpec
from manyfill.plots import panels
from manyfill.train.log import Record

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# By the records' kind: label and style.
KINDS = {
    "train": ("training batches", {"color": "C0", "linewidth": 0.7, "alpha": 0.6}),
    "fit": ("training pictures", {"color": "C0", "linewidth": 1.4, "marker": "o", "markersize": 2}),
    "validation": ("validation pictures", {"color": "C1", "linewidth": 1.4, "marker": "o", "markersize": 2}),
}
WIDE = 100.0  # where values range over more than this factor the axis is logarithmic
Curve = tuple[list[int], list[float]]


def curve(records: Sequence[Record], kind: str, name: str) -> Curve:
    """Steps and values of one figure of one kind of record; NaN for a null, nothing where it is not logged."""
    own = [record for record in records if record["kind"] == kind and name in record]
    return [record["step"] for record in own], [math.nan if r[name] is None else r[name] for r in own]


def draw_all(records: Sequence[Record], levels: Sequence[LevelSpec]) -> dict[str, "Figure"]:
    """Every plot by name."""
    return {"bound": _bound(records), "levels": _levels(records, levels), "latents": _latents(records, levels)}


def level_names(levels: Sequence[LevelSpec]) -> list[str]:
    return [f"level {number}, {level.size}x{level.size}" for number, level in enumerate(levels, 1)]


def _bound(records: Sequence[Record]) -> "Figure":
    figure, places = panels(3, height=2.8)
    for name, label in (("bits_per_dim", "bound, bits/dim"), ("pixel_bits", "pixel term, bits/dim")):
        panel = next(places)
        for kind in KINDS:
            _plot(panel, kind, curve(records, kind, name))
        _finish(panel, label)
    _legend(panel)
    panel = next(places)
    _plot(panel, "train", curve(records, "train", "gradient_norm"))
    _finish(panel, "norm of the gradient")
    return figure


def _levels(records: Sequence[Record], levels: Sequence[LevelSpec]) -> "Figure":
    figure, places = panels(len(levels))
    for number, (name, panel) in enumerate(zip(level_names(levels), places, strict=False), 1):
        for kind in KINDS:
            _plot(panel, kind, curve(records, kind, f"kl_{number:02d}"))
        _finish(panel, "KL, bits/dim")
        panel.set_title(name, fontsize=9)
        if number == 1:
            _legend(panel)
    return figure


def _latents(records: Sequence[Record], levels: Sequence[LevelSpec]) -> "Figure":
    import matplotlib

    figure, places = panels(2, height=2.8)
    figure.set_size_inches(8.4, 3.0)
    colours = matplotlib.colormaps["viridis"]
    for key, label in (("active", "share of active latent channels"), ("misfit", "posterior's width over the prior's")):
        panel = next(places)
        for index, (name, level) in enumerate(zip(level_names(levels), levels, strict=True)):
            steps, values = curve(records, "validation", f"{key}_{index + 1:02d}")
            shown = [value / level.latent for value in values] if key == "active" else values
            colour = colours(index / max(1, len(levels) - 1) * 0.9)
            panel.plot(steps, shown, color=colour, marker="o", markersize=2, linewidth=1.2, label=name)
        _finish(panel, label)
    panel.axhline(1, color="0.7", linewidth=0.8)
    _legend(panel)
    return figure


def _plot(panel: "Axes", kind: str, drawn: Curve) -> None:
    label, style = KINDS[kind]
    if drawn[0]:
        panel.plot(*drawn, label=label, **style)  # type: ignore[arg-type]


def _finish(panel: "Axes", label: str) -> None:
    values = np.concatenate([np.zeros(0), *(np.asarray(line.get_ydata(), float) for line in panel.lines)])
    values = values[np.isfinite(values) & (values > 0)]
    if len(values) and values.max() > WIDE * values.min():
        panel.set_yscale("log")
    panel.set_xlabel("step", fontsize=7)
    panel.set_ylabel(label, fontsize=7)
    panel.tick_params(labelsize=7)


def _legend(panel: "Axes") -> None:
    if panel.lines:
        panel.legend(fontsize=6)
