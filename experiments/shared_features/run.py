"""One feature extractor for prior and posterior, or two: at equal compute and at equal parameters.

    python experiments/shared_features/run.py --pictures TRAIN --validation VAL

The shared one reads both pictures, so two extractors as wide cost the same time and have more parameters; two narrower
ones have as many parameters and cost less time.
"""

import sys
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

from fills import over_others, over_pictures, scored, shown
from grid import NORMED, SEVEN, WIDTHS, Cell, Finished, Table, chosen, conduct, hierarchy, steady

from manyfill.checkpoint import load_model
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STEPS, SEEDS, PICTURES = 2000, 2, 128
NARROW = 0.7  # of the width, hence half of the parameters
STAGES = [{"size": size, "width": round(NARROW * width / 4) * 4} for size, (width, _) in WIDTHS.items()]
EXTRACTORS: dict[str, dict[str, Any]] = {
    "shared": {},
    "separate, equal compute": {"extractor": "separate"},
    "separate, equal parameters": {"extractor": "separate", "stages": STAGES},
}
DESIGNS = {"2017": NORMED, "default": {"guide": False}}


def cells(quick: bool) -> list[Cell]:
    designs = list(DESIGNS)[: 1 if quick else None]
    return [
        Cell(
            {"design": design, "extractor": extractor, "seed": seed},
            hierarchy(SEVEN, **DESIGNS[design], **EXTRACTORS[extractor]) | steady(4 if quick else STEPS),
        )
        for seed, design, extractor in product(range(1 if quick else SEEDS), designs, EXTRACTORS)
    ]


def measure(run: Finished) -> dict[str, Any]:
    parameters = sum(p.numel() for p in load_model(str(run.model)).model.parameters())
    return {"parameters": parameters} | scored(run.model, run.validation, 4 if run.quick else PICTURES)


def groups(records: list[dict[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    pairs = dict.fromkeys((record["design"], record["extractor"]) for record in records)
    return {f"{design}, {which}": chosen(records, design=design, extractor=which) for design, which in pairs}


def table(records: list[dict[str, Any]]) -> Table:
    rows = []
    for name, own in groups(records).items():
        bits, crps, psnr = (over_pictures(own, figure) for figure in ("bits_per_dim", "crps", "psnr_mean"))
        parameters = f"{own[0]['parameters']:,}"
        base = chosen(records, design=own[0]["design"], extractor="shared")
        above = "" if own == base else shown(over_others(own, base, "bits_per_dim"), 3)
        rows.append([name, str(len(own)), parameters, shown(bits, 3), above, shown(crps), shown(psnr)])
    head = ["extractor", "runs", "parameters", "bits/dim", "above shared, paired", "CRPS", "PSNR of the mean, dB"]
    return head, rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    figure, places = panels(1, height=2.6)
    figure.set_size_inches(5, 2.6)
    panel, named = next(places), groups(records)
    for place, own in enumerate(named.values()):
        value = over_pictures(own, "bits_per_dim")
        errors = [[value.mean - value.low], [value.high - value.mean]]
        panel.errorbar(value.mean, place, xerr=errors, fmt="o", markersize=4, color=f"C{place % 3}")
    panel.set_yticks(range(len(named)), list(named), fontsize=7)
    panel.invert_yaxis()
    panel.set_xlabel("bits/dim", fontsize=7)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot)
