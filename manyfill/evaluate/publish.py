"""Writes an evaluation's folder: report.json, the plots as PNG and SVG, and report.html, which holds all of it."""

import json
from dataclasses import dataclass, field
from typing import Any

from manyfill import html
from manyfill.evaluate import plots
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.memorisation import Memorisation
from manyfill.evaluate.page import page
from manyfill.evaluate.report import build
from manyfill.evaluate.run import Evaluation
from manyfill.evaluate.sheets import chosen, neighbours, sheet
from manyfill.files import make_folder, save_text
from manyfill.images import save_png

CLOSEST = 6


@dataclass(frozen=True)
class Extras:
    """What a report holds beyond its rows: notes, recipes (texts by title), groups of figures, sheets of pictures."""

    notes: list[str] = field(default_factory=list)
    recipes: dict[str, str] = field(default_factory=dict)
    groups: dict[str, Any] = field(default_factory=dict)
    sheets: dict[str, Any] = field(default_factory=dict)


def publish(evaluation: Evaluation, extras: Extras, show: dict[str, Cases] | None = None) -> dict[str, Any]:
    """Write the report of finished rows and return it; `show` gives the pictures to draw instead of those evaluated.

    Raises OutputError.
    """
    out, report = evaluation.out, build(evaluation) | extras.groups
    save_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    tables = [{name: method["masks"] for name, method in report[part].items()} for part in ("models", "baselines")]
    drawn = plots.draw_all(tables[0], tables[1], evaluation.request.samples)
    folder = make_folder(out / "plots")
    vectors = {}
    for name, figure in drawn.items():
        plots.save(figure, folder / f"{name}.png")
        vectors[name] = plots.svg(figure)
        save_text(folder / f"{name}.svg", vectors[name] + "\n")
    sheets = extras.sheets | (_chosen_fills(evaluation) if show is None else _shown_fills(evaluation, show))
    pictures = make_folder(out / "fills")
    for index, pixels in enumerate(sheets.values()):
        save_png(pictures / f"{index:02d}.png", pixels)
    inlined = {caption: html.inlined(pixels) for caption, pixels in sheets.items()}
    save_text(out / "report.html", page(report, vectors, inlined, extras.notes, extras.recipes))
    return report


def _chosen_fills(evaluation: Evaluation) -> dict[str, Any]:
    """The first model's fills of its best, median and worst cases by CRPS."""
    (name, filler), *_ = evaluation.request.models.items()
    sheets = {}
    for kind in evaluation.kinds:
        cases, rows = evaluation.cases(kind), evaluation.rows(name, kind)
        for which, numbers in chosen(rows).items():
            picked = [cases[number] for number in numbers]
            sheets[f"{kind} holes, {which} by CRPS"] = sheet(filler, picked, evaluation.request.seed)
    return sheets


def _shown_fills(evaluation: Evaluation, show: dict[str, Cases]) -> dict[str, Any]:
    """The first model's fills of all of these pictures, in their order."""
    filler = next(iter(evaluation.request.models.values()))
    return {
        f"{kind} holes": sheet(filler, [cases[i] for i in range(len(cases))], evaluation.request.seed)
        for kind, cases in show.items()
    }


def memorised(evaluation: Evaluation, checks: list[Memorisation], pictures: dict[str, Any]) -> Extras:
    """What the memorisation check adds to the report; `pictures` are the training pictures to show by space."""
    words = {True: "passed", False: "FAILED"}
    notes = [
        f"Memorisation in {check.space}: {words[check.passed]}. {check.copied:.1%} of the fills lie as near to one "
        f"training picture as a copy would; of the true pictures {check.copied_of_truth:.1%} do."
        for check in checks
    ]
    groups = {
        check.space: {"passed": check.passed, "copied": check.copied, "copied_of_truth": check.copied_of_truth}
        for check in checks
    }
    sheets = {
        f"Fills nearest to a training picture, in {check.space}": neighbours(check, pictures[check.space])
        for check in checks
    }
    return Extras(notes, groups={"memorisation": groups}, sheets=sheets)
