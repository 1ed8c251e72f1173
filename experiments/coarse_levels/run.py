"""How much content each level changes, in the 2017 design and in others.

python experiments/coarse_levels/run.py --pictures TRAIN --validation VAL
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parents[1]))

from fills import Row, cases_of, over_pictures, shown
from grid import NORMED, SEVEN, WIDTHS, Cell, Finished, Table, chosen, conduct, hierarchy, steady

from manyfill.diagnostics import spread
from manyfill.evaluate.scores import Estimate
from manyfill.pipeline import Filler
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, PICTURES, DRAWS = 2000, 2, 64, 8
CELL = 4  # pixels a side, of which low frequencies are averages
WIDE = [
    {"size": size, "width": factor * WIDTHS[size][0], "latent": factor * WIDTHS[size][1]}
    for size in SEVEN
    for factor in [2 if size < 16 else 1]
]
# By name: the model, the training.
DESIGNS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "2017": (NORMED, {}),
    "2017, twice as long": (NORMED, {"train.steps": 2 * STEPS}),
    "2017, border dropout": (NORMED | {"border_dropout": 0.3}, {}),
    "2017, wider coarse levels": (NORMED | {"levels": WIDE}, {}),
    "canvas, no nested losses": ({"guide": False}, {"train.nested_weight": 0.0}),
    "default": ({"guide": False}, {}),
    "default, twice as long": ({"guide": False}, {"train.steps": 2 * STEPS}),
    "default, border dropout": ({"guide": False, "border_dropout": 0.3}, {}),
    "default, wider coarse levels": ({"guide": False, "levels": WIDE}, {}),
}
GROUPS = tuple(dict.fromkeys(SEVEN))


def cells(quick: bool) -> list[Cell]:
    designs = ["2017", "default"] if quick else list(DESIGNS)
    return [
        Cell(
            {"design": design, "seed": seed},
            hierarchy(SEVEN, **DESIGNS[design][0])
            | steady(STEPS)
            | DESIGNS[design][1]
            | ({"train.steps": 4} if quick else {}),
        )
        for seed, design in product(range(1 if quick else SEEDS), designs)
    ]


@torch.inference_mode()
def measure(run: Finished) -> dict[str, Any]:
    """How far the levels of each size move the expected pixels of each picture, in all and at low frequencies."""
    filler, cases = Filler.from_pretrained(run.model), cases_of(run.validation, 4 if run.quick else PICTURES)
    known = [filler.condition(cases[place].pixels, cases[place].mask) for place in range(len(cases))]
    found: dict[str, Any] = {"validation": run.log[-1]["bits_per_dim"]}
    for key, cell in (("all", 1), ("low", CELL)):
        moved = np.stack([spread(filler.model, one, DRAWS, 0, cell)[:, 0].cpu().numpy() for one in known])
        for size in GROUPS:
            own = [level for level, each in enumerate(SEVEN) if each == size]
            found[f"{key}_{size}"] = np.sqrt(np.square(moved[:, own]).sum(1)).round(4).tolist()
    return found


def coarse(records: list[Row], key: str) -> Estimate:
    """The two coarsest sizes together."""
    squares = (f"{key}_{size}" for size in GROUPS[:2])
    return over_pictures(records, *squares, of=lambda a, b: np.sqrt(a**2 + b**2))


def table(records: list[dict[str, Any]]) -> Table:
    head = ["design", "runs", "bits/dim", *(f"{size}x{size}" for size in GROUPS)]
    head += [f"{size}x{size}, low" for size in GROUPS[:3]] + ["two coarsest, low", "over 2017's"]
    rows, base = [], coarse(chosen(records, design="2017"), "low").mean
    for design in dict.fromkeys(record["design"] for record in records):
        own = chosen(records, design=design)
        keys = [*(f"all_{size}" for size in GROUPS), *(f"low_{size}" for size in GROUPS[:3])]
        each = [over_pictures(own, key) for key in keys]
        bits = np.mean([record["validation"] for record in own])
        both = coarse(own, "low")
        moved = [f"{value.mean:.2f}" for value in each]
        rows.append([design, str(len(own)), f"{bits:.3f}", *moved, shown(both), f"{both.mean / max(base, 1e-9):.1f}"])
    return head, rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    figure, places = panels(2, height=3.0)
    figure.set_size_inches(8.4, 3.2)
    for key, label, panel in zip(("all", "low"), ("all frequencies", "low frequencies"), places, strict=False):
        for design in dict.fromkeys(record["design"] for record in records):
            own = chosen(records, design=design)
            moved = [over_pictures(own, f"{key}_{size}").mean for size in GROUPS]
            panel.plot(range(len(GROUPS)), moved, marker="o", markersize=3, label=design)
        panel.set_xticks(range(len(GROUPS)), [f"{size}x{size}" for size in GROUPS], fontsize=7)
        panel.set_ylabel(f"spread, grey levels, {label}", fontsize=7)
        panel.tick_params(labelsize=7)
    panel.legend(fontsize=5)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
