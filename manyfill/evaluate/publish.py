"""Writes an evaluation's folder: report.json, the plots as PNG and SVG, and report.html, which holds all of it."""

import json
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from manyfill import html
from manyfill.evaluate import plots
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.memorisation import Memorisation
from manyfill.evaluate.page import page
from manyfill.evaluate.report import build
from manyfill.evaluate.run import Evaluation, slug
from manyfill.evaluate.sheets import chosen, sheet, suspects
from manyfill.files import make_folder, save_text
from manyfill.images import save_png
from manyfill.plots import write


@dataclass(frozen=True)
class Extras:
    """What a report holds beyond its rows: memorisation checks, FID and KID, and recipes for what is missing, by title.

    `show` are pictures to draw instead of those evaluated, which may not be fit to be published.
    """

    memorisation: Sequence[Memorisation] = ()
    sets: Mapping[str, Any] = field(default_factory=dict)
    recipes: Mapping[str, str] = field(default_factory=dict)
    show: Sequence[Cases] = ()

    def groups(self) -> dict[str, Any]:
        """The groups of figures that they add to report.json."""
        checks = {
            check.space: {
                "verdict": check.verdict,
                "copied": check.copied,
                "judged": check.judged,
                "doubles": check.doubles,
            }
            for check in self.memorisation
        }
        return ({"memorisation": checks} if checks else {}) | ({"sets": dict(self.sets)} if self.sets else {})


def publish(evaluation: Evaluation, extras: Extras) -> dict[str, Any]:
    """Write the report of finished rows and return it. Raises OutputError."""
    out, report = evaluation.out, build(evaluation) | extras.groups()
    save_text(out / "report.json", json.dumps(report, indent=1, allow_nan=False) + "\n")
    for stale in ("plots", "fills"):
        shutil.rmtree(out / stale, ignore_errors=True)
    models, baselines = (
        {name: method["masks"] for name, method in report[part].items()} for part in ("models", "baselines")
    )
    folder, vectors = make_folder(out / "plots"), {}
    for name, figure in plots.draw_all(models, baselines, evaluation.request.samples).items():
        vectors[name] = write(figure, folder, slug(name))
    sheets, pictures = _sheets(evaluation, extras), make_folder(out / "fills")
    for index, pixels in enumerate(sheets.values()):
        save_png(pictures / f"{index:02d}.png", pixels)
    inlined = {caption: html.inlined(pixels) for caption, pixels in sheets.items()}
    save_text(out / "report.html", page(report, vectors, inlined, extras.recipes))
    return report


def _sheets(evaluation: Evaluation, extras: Extras) -> dict[str, np.ndarray]:
    """Sheets of pictures by caption: the first model's fills, and what looks most like copies."""
    (name, filler), *_ = evaluation.request.models.items()
    if extras.show:
        return {
            f"{cases.kind} holes": sheet(filler, [cases[place] for place in range(len(cases))]) for cases in extras.show
        }
    sheets = {}
    for kind in evaluation.kinds:
        cases = evaluation.cases(kind)
        for which, places in chosen(evaluation.rows(name, kind)).items():
            sheets[f"{kind} holes, {which} by CRPS"] = sheet(filler, [cases[place] for place in places])
    for check in extras.memorisation:
        sheets[f"Fills nearest to a training picture, in {check.space}"] = suspects(check)
    return sheets
