"""The report's plots, drawn from its figures; each is the SVG of one matplotlib figure.

Legend: `tables` maps a model's or baseline's name to its rows of figures by kind of hole, as in report.json.
"""

from typing import TYPE_CHECKING, Any

from manyfill.evaluate.calibration import levels, nominal, percent
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Tables = dict[str, dict[str, dict[str, Any]]]


def draw_all(models: Tables, baselines: Tables, samples: int) -> dict[str, "Figure"]:
    """Every plot by name."""
    figures = {"crps": _scores(models | baselines)}
    for name, kinds in models.items():
        if levels(samples):
            figures[f"coverage-{name}"] = _coverage(kinds, samples)
        figures[f"ranks-{name}"] = _ranks(kinds)
        figures[f"reliability-{name}"] = _reliability(kinds)
        figures[f"levels-{name}"] = _hierarchy(kinds)
    return figures


def _scores(tables: Tables) -> "Figure":
    kinds = list(dict.fromkeys(kind for rows in tables.values() for kind in rows))
    figure, places = panels(len(kinds))
    for kind, panel in zip(kinds, places, strict=False):
        shown = [(name, rows[kind]["crps"]) for name, rows in tables.items() if kind in rows]
        for place, (_, score) in enumerate(shown):
            low, high = score["mean"] - score["low"], score["high"] - score["mean"]
            panel.errorbar(score["mean"], place, xerr=[[low], [high]], fmt="o", markersize=4, color=f"C{place}")
        panel.set_yticks(range(len(shown)), [name for name, _ in shown], fontsize=7)
        panel.invert_yaxis()
        panel.set_title(kind, fontsize=9)
        panel.set_xlabel("CRPS, grey levels", fontsize=7)
        panel.tick_params(axis="x", labelsize=7)
    return figure


def _coverage(kinds: dict[str, dict[str, Any]], samples: int) -> "Figure":
    figure, places = panels(1, height=3.4)
    panel = next(places)
    figure.set_size_inches(4.6, 3.6)
    shown = levels(samples)
    wanted = [nominal(level, samples) for level in shown]
    panel.plot([0.4, 1], [0.4, 1], color="0.7", linewidth=1)
    for kind, row in kinds.items():
        found = [row["coverage"][percent(level)] for level in shown]
        errors = [[f["mean"] - f["low"] for f in found], [f["high"] - f["mean"] for f in found]]
        panel.errorbar(wanted, [f["mean"] for f in found], yerr=errors, marker="o", markersize=3, label=kind)
    panel.set_xlabel("share that the interval should cover")
    panel.set_ylabel("share of hole values it does")
    panel.legend(fontsize=7)
    return figure


def _ranks(kinds: dict[str, dict[str, Any]]) -> "Figure":
    figure, places = panels(len(kinds), height=1.8)
    for (kind, row), panel in zip(kinds.items(), places, strict=False):
        counts = row["ranks"]
        even = sum(counts) / len(counts)
        panel.bar(range(len(counts)), [count / even for count in counts], width=1.0)
        panel.axhline(1, color="0.3", linewidth=0.8)
        panel.set_title(kind, fontsize=9)
        panel.tick_params(labelsize=7)
        panel.set_xlabel("fills below the truth", fontsize=7)
    return figure


def _reliability(kinds: dict[str, dict[str, Any]]) -> "Figure":
    figure, places = panels(1, height=3.4)
    panel = next(places)
    figure.set_size_inches(4.6, 3.6)
    largest = 1.0
    for kind, row in kinds.items():
        claimed, error = ([each[key] for each in row["reliability"]] for key in ("claimed", "error"))
        largest = max(largest, *claimed, *error)
        panel.plot(claimed, error, marker="o", markersize=3, label=kind)
    panel.plot([0, largest], [0, largest], color="0.7", linewidth=1)
    panel.set_xlabel("claimed standard deviation, grey levels")
    panel.set_ylabel("root mean squared error")
    panel.legend(fontsize=7)
    return figure


def _hierarchy(kinds: dict[str, dict[str, Any]]) -> "Figure":
    figure, places = panels(2, height=2.8)
    figure.set_size_inches(8.4, 3.0)
    for key, label in (("kl_bits_per_dim", "KL, bits per hole value"), ("spread", "spread of the level, grey levels")):
        panel = next(places)
        for kind, row in kinds.items():
            levels = [level["mean"] for level in row.get(key, ())]
            panel.plot(range(1, len(levels) + 1), levels, marker="o", markersize=3, label=kind)
        panel.set_xlabel("latent level, coarse to fine")
        panel.set_ylabel(label)
    panel.legend(fontsize=7)
    return figure
