"""The experiments' shared runner, and that each experiment still runs, in its quick form."""

import argparse
import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from captions import CAPTIONS
from pictures import patches, png, write_folder
from training import stop_at

from manyfill.models.pretrained import PretrainedText
from manyfill.train.settings import Settings

sys.path.insert(0, str(Path(__file__).parents[1] / "experiments"))

import grid

ROOT = Path(grid.__file__).parent
pytestmark = pytest.mark.usefixtures("one_thread")
NAMES = sorted(path.parent.name for path in ROOT.glob("*/run.py"))


def options(runs: Path, **changes: Any) -> argparse.Namespace:
    plain = {"pictures": None, "validation": None, "cells": None, "lock": None, "report": False, "quick": True}
    return argparse.Namespace(runs=runs, **(plain | changes))


def two_cells(rate: float = 1e-3) -> list[grid.Cell]:
    settings = grid.hierarchy((1, 32)) | grid.steady(2) | {"train.learning_rate": rate}
    return [grid.Cell({"design": "small one", "seed": seed}, settings) for seed in range(2)]


def measure(run: grid.Finished) -> dict[str, Any]:
    assert (run.model / "model.safetensors").exists() and Path(run.training).is_dir()
    return {"bits": run.log[-1]["bits_per_dim"]}


def test_a_finished_cell_is_not_run_again_unless_its_settings_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran, train = [], grid.run

    def counted(settings: Settings, out: Path) -> None:
        ran.append((out.name, settings.seed))
        train(settings, out)

    monkeypatch.setattr(grid, "run", counted)

    def records(rate: float = 1e-3, **changes: Any) -> list[dict[str, Any]]:
        return grid.run_grid(options(tmp_path, **changes), tmp_path / "home" / "toy", two_cells(rate), measure, 32)

    assert records(report=True) == [] and ran == []
    (first,) = records(cells=1)
    assert ran == [("small one-0", 0)] and math.isfinite(first["bits"]) and first["seed"] == 0
    both = records(lock=tmp_path / "lock")
    assert both[0] == first and both[1]["bits"] != first["bits"] and ran[1:] == [("small one-1", 1)]
    assert records() == both and len(ran) == 2
    records(rate=2e-3)
    assert len(ran) == 4
    assert {path.name for path in (tmp_path / "toy").iterdir()} == {
        *("small one-0.json", "small one-1.json", "messages.txt")
    }


def test_a_cell_that_is_stopped_is_not_finished(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop_at(monkeypatch, 1)
    with pytest.raises(KeyboardInterrupt):
        grid.run_grid(options(tmp_path), tmp_path / "home" / "toy", two_cells(), measure, 32)
    assert not list((tmp_path / "toy").glob("*.json"))


def test_pictures_are_those_of_the_source_and_validation_has_others(pictures: Path, tmp_path: Path) -> None:
    training, validation = grid.prepared(options(tmp_path, pictures=[str(pictures)]), 5, 3, 16)
    assert len(list(Path(training).iterdir())) == 5 and len(list(Path(validation).iterdir())) == 3
    contents = {path.read_bytes() for part in (training, validation) for path in Path(part).iterdir()}
    assert len(contents) == 8
    with pytest.raises(grid.ConfigError, match="validation needs 4 pictures, and there are 3"):
        grid.prepared(options(tmp_path, pictures=[str(pictures)]), 5, 4, 16)


def test_settings_are_written_as_the_command_line_takes_them() -> None:
    assert grid.toml([{"size": 4, "on": True}, "a"]) == '[{size = 4, on = true}, "a"]'


@pytest.mark.parametrize(
    ("hits", "trials", "low", "high"), [(0, 10, 0.0, 0.2775), (10, 10, 0.7225, 1.0), (5, 20, 0.1119, 0.4687)]
)
def test_wilson_intervals(hits: int, trials: int, low: float, high: float) -> None:
    assert grid.wilson(hits, trials) == pytest.approx((low, high), abs=1e-4)


def test_every_experiment_has_a_readme_with_room_for_its_figures() -> None:
    assert len(NAMES) == 9
    overview = (ROOT / "README.md").read_text()
    for name in NAMES:
        text = (ROOT / name / "README.md").read_text()
        assert text.index(grid.START) < text.index(grid.END) < text.index("**Answer.**")
        assert f"experiments/{name}/run.py" in text and f"({name}/README.md)" in overview


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_the_quick_form_runs(name: str, tmp_path: Path) -> None:
    command = [sys.executable, str(ROOT / name / "run.py"), "--quick", "--runs", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0, done.stderr
    out = tmp_path / name
    records = json.loads((out / "results.json").read_text())
    assert records and (out / "plot.svg").exists()
    readme = (out / "README.md").read_text()
    rows = readme[readme.index(grid.START) : readme.index(grid.END)].splitlines()
    assert sum(line.startswith("|") for line in rows) >= 3 and "Not yet run" not in "".join(rows)


@pytest.mark.slow
def test_a_text_encoder_that_has_seen_pictures_is_one_to_train_with(tmp_path: Path) -> None:
    data = write_folder(
        tmp_path / "data",
        {f"{i}.png": png(pixels) for i, pixels in enumerate(patches(6))}
        | {f"{i}.txt": f"{caption}\n".encode() for i, caption in enumerate(CAPTIONS)},
    )
    where = ["--training", str(data), "--pictures", str(data), "--out", str(tmp_path / "encoder")]
    command = [sys.executable, str(ROOT / "captions" / "encoder.py"), *where, "--size", "32", "--visits", "2"]
    few = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    assert few.returncode == 2 and "name more, or take a smaller --batch" in few.stderr
    done = subprocess.run([*command, "--batch", "2"], capture_output=True, text=True, cwd=ROOT.parent)
    assert done.returncode == 0 and "visit 2: loss" in done.stdout, done.stderr
    encoder = PretrainedText(str(tmp_path / "encoder"))
    read = encoder.read(CAPTIONS[:2], 8)
    assert encoder.width == 192 and not torch.equal(read[0], read[1])
