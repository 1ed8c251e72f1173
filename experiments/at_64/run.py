"""The main conclusions of the other experiments once more at 64x64, with the presets themselves.

python experiments/at_64/run.py --pictures TRAIN --validation VAL
"""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

sys.path.insert(0, str(Path(__file__).parents[1]))

import numpy as np
import torch
from explosions import explosions
from fills import Row, cases_of, over_others, over_pictures, scored, seam_ratio, shown
from grid import Cell, Finished, Table, chosen, conduct, steady

from manyfill.diagnostics import spread
from manyfill.models.config import PRESETS
from manyfill.pipeline import Filler
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

MINUTES, SIZE, TRAINING, PICTURES = 4.0, 64, 11000, 64
DRAWS, CELL, COARSE = 8, 8, 8  # low frequencies are averages over cells; levels of 8x8 and less are coarse
KINDS = "fit", "validation"
# By name: the preset, what differs from it in the model, and in the training.
DESIGNS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "2017": ("tan2017", {}, {}),
    "2017, no norm": ("tan2017", {"norm": "none", "scale": "exp", "bounded": False}, {"train.skip_factor": 1e9}),
    "2017, no border connections": ("tan2017", {"border": "none"}, {}),
    "2017, two extractors": ("tan2017", {"extractor": "separate"}, {}),
    "default": ("base64", {}, {}),
    "default, batch norm": ("base64", {"norm": "batch"}, {}),
    "default, no border connections": ("base64", {"border": "none"}, {}),
    "default, two extractors": ("base64", {"extractor": "separate"}, {}),
}


def cells(quick: bool) -> list[Cell]:
    length = steady(2) if quick else steady() | {"train.minutes": MINUTES}
    length |= {"train.fit_pictures": 8 if quick else 256, "train.batch_size": 4 if quick else 16}
    designs = ["2017"] if quick else list(DESIGNS)
    return [Cell({"design": name}, model_of(name) | length | DESIGNS[name][2], TRAINING) for name in designs]


def model_of(design: str) -> dict[str, Any]:
    preset, changes, _ = DESIGNS[design]
    whole = PRESETS[preset].model_dump(mode="json", exclude_none=True) | {"guide": False} | changes
    return {f"model.{key}": value for key, value in whole.items()}


@torch.inference_mode()
def measure(run: Finished) -> dict[str, Any]:
    """How the training went, fills of validation pictures, and how far the coarse levels move their low frequencies."""
    count = 2 if run.quick else PICTURES
    filler, cases = Filler.from_pretrained(run.model), cases_of(run.validation, count, SIZE)
    coarse = [number for number, level in enumerate(filler.model.config.levels) if level.size <= COARSE]
    moved = [
        spread(filler.model, filler.condition(cases[place].pixels, cases[place].mask), DRAWS, 0, CELL)[coarse, 0]
        for place in range(count)
    ]
    low = torch.stack(moved).square().sum(1).sqrt()
    last = {kind: [record for record in run.log if record["kind"] == kind][-1] for kind in KINDS}
    names = sorted(name for name in last["fit"] if name.startswith("kl_"))
    return {
        "steps": last["validation"]["step"],
        "exploded": bool(explosions([record for record in run.log if record["kind"] == "train"])),
        "validation": last["validation"]["bits_per_dim"],
        "gaps": [round(last["validation"][name] - last["fit"][name], 5) for name in names],
        "low": [round(float(value), 4) for value in low],
    } | scored(run.model, run.validation, count, SIZE)


def table(records: list[Row]) -> Table:
    head = ["design", "steps", "KL exploded", "bits/dim", "paired with its base", "CRPS", "error beside known pixels"]
    head += ["seam ratio", "coarse levels' low spread", "KL gap of coarse levels", "of fine levels"]
    rows = []
    for record in records:
        own, base = [record], chosen(records, design=record["design"].partition(",")[0])
        above = "" if own == base else shown(over_others(own, base, "bits_per_dim"), 3)
        bits, crps, rim, low = (over_pictures(own, name) for name in ("bits_per_dim", "crps", "rim_error", "low"))
        few = sum(level.size <= COARSE for level in PRESETS[DESIGNS[record["design"]][0]].levels)
        gaps = [sum(record["gaps"][:few]), sum(record["gaps"][few:])]
        figures = [shown(bits, 3), above, shown(crps), shown(rim), shown(seam_ratio(own)), shown(low)]
        answer = "yes" if record["exploded"] else "no"
        rows.append([record["design"], str(record["steps"]), answer, *figures, *(f"{gap:.4f}" for gap in gaps)])
    return head, rows


def plot(records: list[Row]) -> "Figure":
    figure, places = panels(3, height=2.4)
    figure.set_size_inches(8.4, 2.4)
    shapes = {"bits_per_dim": "bits/dim", "rim_error": "error beside known pixels", "low": "coarse levels' low spread"}
    names = [record["design"] for record in records]
    for (key, label), panel in zip(shapes.items(), places, strict=False):
        for place, record in enumerate(records):
            value = over_pictures([record], key)
            errors = np.array([[value.mean - value.low], [value.high - value.mean]])
            panel.errorbar(value.mean, place, xerr=errors, fmt="o", markersize=4, color=f"C{place}")
        panel.set_yticks(range(len(names)), names if key == "bits_per_dim" else [""] * len(names), fontsize=6)
        panel.invert_yaxis()
        panel.set_xlabel(label, fontsize=7)
        panel.tick_params(axis="x", labelsize=7)
    return figure


if __name__ == "__main__":
    conduct(__file__, __doc__ or "", cells, measure, table, plot, SIZE)
