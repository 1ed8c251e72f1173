"""`manyfill levels` and `manyfill diagnose`: what they write, and that it shows what the model and the log hold."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from training import Micro

from manyfill.cli import main
from manyfill.diagnose import watch
from manyfill.diagnose.curves import curve, draw_all
from manyfill.diagnose.levels import level_grids
from manyfill.masks import write_mask
from manyfill.pipeline import Filler
from manyfill.train.log import Record, read
from manyfill.train.loop import run

pytestmark = pytest.mark.usefixtures("one_thread")

# ------------------------------------------------------------------------------------------------------------- levels


@pytest.fixture
def hole(tmp_path: Path) -> Path:
    mask = np.zeros((40, 40), bool)
    mask[10:30, 10:30] = True
    write_mask(tmp_path / "mask.png", mask)
    return tmp_path / "mask.png"


def test_levels_writes_a_row_for_each(
    model: Path, pictures: Path, hole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo, out = pictures / "coffee-0.png", tmp_path / "out"
    assert main(["levels", str(model), str(photo), "--mask", str(hole), "--out", str(out), "-n", "2"]) == 0
    assert {path.name for path in out.iterdir()} == {"alone.png", "rest.png", "levels.json"}
    record = json.loads((out / "levels.json").read_text())["levels"]
    assert [(level["level"], level["size"]) for level in record] == [(1, 1), (2, 4), (3, 8), (4, 8), (5, 16), (6, 32)]
    for level in record:
        assert 0 < level["low_frequency_spread"] <= level["spread"]
    assert "look at" in capsys.readouterr().out


def test_grids_are_functions_of_the_seed(model: Path, pictures: Path, hole: Path) -> None:
    filler, photo = Filler.from_pretrained(model), pictures / "coffee-0.png"
    one, same, other = (level_grids(filler, photo, hole, 2, seed) for seed in (0, 0, 1))
    for name in ("alone", "rest"):
        assert np.array_equal(getattr(one, name), getattr(same, name))
        assert not np.array_equal(getattr(one, name), getattr(other, name))
    assert one.record == same.record != other.record


@pytest.mark.parametrize(("arguments", "said"), [(["-n", "0"], "-n 0"), ([], "nothing is missing")])
def test_levels_refuses_in_one_line(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], said: str
) -> None:
    write_mask(tmp_path / "mask.png", np.zeros((40, 40), bool))
    photo, out = str(pictures / "coffee-0.png"), tmp_path / "out"
    command = ["levels", str(model), photo, "--mask", str(tmp_path / "mask.png"), "--out", str(out), *arguments]
    assert main(command) == 2 and not out.exists()
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1


# ----------------------------------------------------------------------------------------------------------- diagnose


@pytest.fixture
def finished(micro: Micro, tmp_path: Path) -> Path:
    run(micro("train.validate_every=2", "train.fit_pictures=2"), tmp_path / "run")
    return tmp_path / "run"


def test_training_measures_latents_on_training_and_validation_pictures(finished: Path) -> None:
    records = read(finished / "log.jsonl")
    assert [(r["kind"], r["step"]) for r in records if r["kind"] != "train"] == [
        *(("fit", 2), ("validation", 2), ("fit", 4), ("validation", 4))
    ]
    for record in (r for r in records if r["kind"] != "train"):
        assert 0 <= record["active_01"] <= 2 and record["active_01"] == int(record["active_01"])
        assert record["misfit_02"] > 0 and math.isfinite(record["misfit_02"])
    fit, validation = records[-2:]
    assert fit["bits_per_dim"] != validation["bits_per_dim"]


def test_diagnose_draws_what_the_log_holds(finished: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["diagnose", str(finished)]) == 0
    out = finished / "diagnostics"
    assert {path.name for path in out.iterdir()} == {
        "index.html",
        *(f"{name}.{kind}" for name in ("bound", "levels", "latents") for kind in ("png", "svg")),
    }
    page, last = (out / "index.html").read_text(), read(finished / "log.jsonl")[-1]
    assert f"{last['kl_02']:.4f}" in page and "Step 4" in page and page.count("<svg") == 3
    assert "http-equiv" not in page and str(out / "index.html") in capsys.readouterr().out
    with Image.open(out / "levels.png") as picture:
        assert picture.size[0] > 400


def test_curves_are_the_records_with_gaps_for_nulls(micro: Micro) -> None:
    levels = micro().model.levels
    records: list[Record] = [
        {"kind": "train", "step": 20, "bits_per_dim": 7.0, "kl_01": 1.0, "kl_02": 1.0},
        {"kind": "train", "step": 40, "bits_per_dim": None, "kl_01": 1e12, "kl_02": None},
        {"kind": "validation", "step": 40, "bits_per_dim": 6.0, "kl_01": 2.0, "kl_02": 0.5},
    ]
    steps, values = curve(records, "train", "bits_per_dim")
    assert steps == [20, 40] and values[0] == 7.0 and math.isnan(values[1])
    assert curve(records, "fit", "kl_01") == ([], [])
    first, second = draw_all(records, levels)["levels"].axes[:2]
    assert [list(line.get_ydata()) for line in first.lines] == [[1.0, 1e12], [2.0]]
    assert first.get_yscale() == "log" and second.get_yscale() == "linear"
    assert first.get_title() == "level 1, 4x4"


def test_a_live_page_reloads_itself_until_the_run_is_over(finished: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log, page = finished / "log.jsonl", finished / "diagnostics" / "index.html"
    lines, seen = log.read_text().splitlines(keepends=True), []
    log.write_text("")

    def later(pause: float) -> None:
        seen.append(page.read_text())
        with log.open("a") as file:
            file.write(lines.pop(0))

    monkeypatch.setattr(watch.time, "sleep", later)
    assert main(["diagnose", str(finished), "--live"]) == 0
    assert not lines and "Nothing is logged yet" in seen[0] and "Step 2" in seen[1]
    assert all('http-equiv="refresh" content="10"' in text for text in seen)
    assert "http-equiv" not in page.read_text() and "Step 4" in page.read_text()


def test_diagnose_refuses_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str], finished: Path) -> None:
    assert main(["diagnose", str(tmp_path / "nowhere")]) == 2
    (finished / "log.jsonl").unlink()
    assert main(["diagnose", str(finished)]) == 2
    first, second = (line for line in capsys.readouterr().err.splitlines() if line.startswith("error: "))
    assert "nowhere" in first and "nothing is logged yet" in second and not (finished / "diagnostics").exists()
