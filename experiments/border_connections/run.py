"""Whether features of the known picture must join the decoder at every size: seams and errors at the hole's border.

python experiments/border_connections/run.py --pictures TRAIN --validation VAL
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fills import over_others, over_pictures, scored, seam_ratio, shown
from grid import NORMED, SEVEN, Cell, Finished, Table, chosen, conduct, hierarchy, steady

from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, PICTURES = 1000, 3, 128
DESIGNS: dict[str, dict[str, Any]] = {
    "2017, with": NORMED,
    "2017, without": NORMED | {"border": "none"},
    "default, with": {"guide": False},
    "default, without": {"guide": False, "border": "none"},
}


def cells(quick: bool) -> list[Cell]:
    return [
        Cell({"design": design, "seed": seed}, hierarchy(SEVEN, **DESIGNS[design]) | steady(4 if quick else STEPS))
        for seed, design in product(range(1 if quick else SEEDS), DESIGNS)
    ]


def measure(run: Finished) -> dict[str, Any]:
    return scored(run.model, run.validation, 4 if run.quick else PICTURES)


def table(records: list[dict[str, Any]]) -> Table:
    rows = []
    for design in dict.fromkeys(record["design"] for record in records):
        own = chosen(records, design=design)
        rim, crps, bits = (over_pictures(own, name) for name in ("rim_error", "crps", "bits_per_dim"))
        base = chosen(records, design=design.replace("without", "with"))
        above = "" if own == base else shown(over_others(own, base, "bits_per_dim"), 3)
        ratio = shown(seam_ratio(own), 3)
        rows.append([design, str(len(own)), ratio, shown(rim), shown(crps), shown(bits, 3), above])
    return ["design", "runs", "seam ratio", "error beside known pixels", "CRPS", "bits/dim", "above with, paired"], rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    figure, places = panels(2, height=2.6)
    designs = list(dict.fromkeys(record["design"] for record in records))
    for label, panel in zip(("seam ratio", "error beside known pixels"), places, strict=True):
        for place, design in enumerate(designs):
            own = chosen(records, design=design)
            value = seam_ratio(own) if label == "seam ratio" else over_pictures(own, "rim_error")
            errors = [[value.mean - value.low], [value.high - value.mean]]
            panel.errorbar(value.mean, place, xerr=errors, fmt="o", markersize=4, color=f"C{place}")
        panel.set_yticks(range(len(designs)), designs, fontsize=7)
        panel.invert_yaxis()
        panel.set_xlabel(label, fontsize=7)
        panel.tick_params(axis="x", labelsize=7)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
