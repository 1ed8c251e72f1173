"""Whether fills of an overfitted model are copies of its training pictures.

python experiments/memorisation/run.py --pictures TRAIN --validation VAL
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fills import cases_of
from grid import NORMED, SEVEN, Cell, Finished, Table, chosen, conduct, hierarchy, steady, wilson

from manyfill.data import open_source
from manyfill.evaluate.memorisation import COPY, check
from manyfill.pipeline import Filler
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, SMALL, PICTURES = 2500, 2, 500, 64
LONG = {"train.batch_size": 16, "train.learning_rate": 1e-3, "train.weight_decay": 0.0, "data.flip": False}
DESIGNS: dict[str, dict[str, Any]] = {"2017": NORMED, "default": {"guide": False}}


def cells(quick: bool) -> list[Cell]:
    return [
        Cell(
            {"design": design, "seed": seed},
            hierarchy(SEVEN, **DESIGNS[design])
            | steady(4 if quick else STEPS)
            | LONG
            | {"train.fit_pictures": 16 if quick else 256},
            SMALL,
        )
        for seed, design in product(range(1 if quick else SEEDS), DESIGNS)
    ]


def measure(run: Finished) -> dict[str, Any]:
    """How far the model overfits, and in pixels and in features what share of its fills lies as near as a copy."""
    fit, validation = ([r for r in run.log if r["kind"] == kind][-1]["bits_per_dim"] for kind in ("fit", "validation"))
    cases = cases_of(run.validation, 6 if run.quick else PICTURES)
    checks = check(Filler.from_pretrained(run.model), open_source(run.training), cases)
    found: dict[str, Any] = {"fit": fit, "validation": validation}
    for one in checks:
        found[f"{one.space}_copied"], found[f"{one.space}_judged"] = one.copied, one.judged
        found[f"{one.space}_ratios"] = [round(suspect.fill.ratio, 4) for suspect in one.suspects]
        found[f"{one.space}_ratios_of_truth"] = [round(suspect.truth.ratio, 4) for suspect in one.suspects]
    return found


def table(records: list[dict[str, Any]]) -> Table:
    """Copies by picture, of which the most suspicious fill counts."""
    rows = []
    for design, space in product(dict.fromkeys(record["design"] for record in records), ("pixels", "features")):
        own = chosen(records, design=design)
        ratios = [
            ratio
            for record in own
            for ratio, truth in zip(record[f"{space}_ratios"], record[f"{space}_ratios_of_truth"], strict=True)
            if truth > COPY
        ]
        hits = sum(ratio <= COPY for ratio in ratios)
        low, high = wilson(hits, len(ratios)) if ratios else (0.0, 1.0)
        gap = sum(record["validation"] - record["fit"] for record in own) / len(own)
        nearest = f"{min(ratios):.2f}" if ratios else ""
        rows.append([design, space, f"{gap:.3f}", f"{hits}/{len(ratios)}", f"{low:.1%} to {high:.1%}", nearest])
    return ["design", "compared in", "gap of the bound, bits/dim", "pictures with a copy", "95 %", "least ratio"], rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    """Distance to the nearest training picture over that to the tenth nearest, of fills and of true pictures."""
    import numpy as np

    figure, places = panels(2, height=2.8)
    for space, panel in zip(("pixels", "features"), places, strict=True):
        for label, key in (("fills", "ratios"), ("true pictures", "ratios_of_truth")):
            values = np.sort(np.concatenate([record[f"{space}_{key}"] for record in records]))
            panel.plot(values, np.arange(1, len(values) + 1) / len(values), label=label)
        panel.axvline(COPY, color="0.7", linewidth=0.8)
        panel.set_xlim(0, 1)
        panel.set_xlabel(f"nearest over tenth nearest, in {space}", fontsize=7)
        panel.set_ylabel("share of pictures", fontsize=7)
    panel.legend(fontsize=6)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
