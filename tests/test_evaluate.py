import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluating import cases_of, done, noise_folder, request_of, saved

from manyfill.cli import main
from manyfill.data import open_source
from manyfill.errors import ConfigError, PictureError
from manyfill.evaluate import run
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.figures import of_fills, of_guess
from manyfill.evaluate.run import Evaluation
from manyfill.evaluate.scores import crps
from manyfill.evaluate.summary import differences, regressions, summary
from manyfill.images import save_png
from manyfill.models.config import PRESETS, StageSpec

# ----------------------------------------------------------------------------------------------------------------- rows


def test_rows_hold_the_figures_of_the_very_fills_that_users_get(model: Path, pictures: Path, tmp_path: Path) -> None:
    evaluation = done(Evaluation(request_of(model, pictures), tmp_path))
    rows, filler = evaluation.rows("first", "centre"), evaluation.request.models["first"]
    case = evaluation.cases("centre")[2]
    assert len(rows) == 4 and rows[2]["name"] == case.name and case.pixels.shape == (32, 32, 3)
    fills = filler(case.pixels, case.mask, 5, case.seed, truth=case.pixels, bound_samples=3)
    values = np.stack([case.hole(image) for image in fills.images])
    assert rows[2]["crps"] == crps(values, case.hole(case.pixels))
    assert fills.bound is not None and rows[2]["nats_k"] == fills.bound.nats_k
    assert rows[2]["dims"] == 16 * 16 * 3 and rows[2]["hole"] == 0.25
    assert sum(rows[2]["ranks"]) == 16 * 16 * 3 and len(rows[2]["ranks"]) == 6
    assert len(rows[2]["spread"]) == len(filler.model.config.levels) == len(rows[2]["kl"])


def test_an_interrupted_evaluation_goes_on_where_it_stopped(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = done(Evaluation(request_of(model, pictures), tmp_path / "whole"))

    def interrupted(numbers: Any, what: str) -> Any:
        for number in numbers:
            if number == 2:
                raise KeyboardInterrupt
            yield number

    parted = Evaluation(request_of(model, pictures), tmp_path / "parted")
    with pytest.raises(KeyboardInterrupt), parted.claimed():
        parted.run(interrupted)
    path = tmp_path / "parted" / "rows" / "first.centre.jsonl"
    kept = path.read_text()
    assert kept.count("\n") == 2
    path.write_text(kept + '{"index": 2, "na')  # the power went in the middle of a line
    asked: list[int] = []
    monkeypatch.setattr(run, "of_fills", lambda case, fills: asked.append(case.index) or of_fills(case, fills))
    done(Evaluation(request_of(model, pictures), tmp_path / "parted"))
    assert asked == [2, 3] and path.read_text().startswith(kept)
    for name in ("first", "mean colour"):
        assert parted.rows(name, "centre") == whole.rows(name, "centre")
    fewer = done(Evaluation(request_of(model, pictures, limit=1), tmp_path / "parted"))
    assert len(fewer.rows("first", "centre")) == 1
    assert path.read_text().count("\n") == 4  # a lower limit shows less and loses nothing


@pytest.mark.parametrize(
    ("changes", "said"), [({"samples": 7}, "samples"), ({"seed": 1}, "seed"), ({"bound_samples": 4}, "bound_samples")]
)
def test_another_evaluation_does_not_mix_with_what_is_there(
    model: Path, pictures: Path, tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    done(Evaluation(request_of(model, pictures, limit=1), tmp_path))
    done(Evaluation(request_of(model, pictures, limit=2, masks="centre,half"), tmp_path))  # more of the same may join
    with pytest.raises(ConfigError, match=f"holds another evaluation.*{said}"):
        done(Evaluation(request_of(model, pictures, limit=1, **changes), tmp_path))
    (tmp_path / "request.json").unlink()
    with pytest.raises(ConfigError, match="holds another evaluation"):
        done(Evaluation(request_of(model, pictures, limit=1), tmp_path))


def test_other_weights_under_the_same_name_are_another_evaluation(pictures: Path, tmp_path: Path) -> None:
    done(Evaluation(request_of(saved(tmp_path / "a", 0), pictures, limit=1), tmp_path / "out"))
    with pytest.raises(ConfigError, match="first differ"):
        done(Evaluation(request_of(saved(tmp_path / "b", 1), pictures, limit=1), tmp_path / "out"))


def test_other_pictures_of_the_same_number_are_another_evaluation(model: Path, pictures: Path, tmp_path: Path) -> None:
    done(Evaluation(request_of(model, pictures, limit=1), tmp_path / "out"))
    shutil.copytree(pictures, tmp_path / "renamed")
    (tmp_path / "renamed" / "coffee-0.png").rename(tmp_path / "renamed" / "tea.png")
    with pytest.raises(ConfigError, match="pictures differ"):
        done(Evaluation(request_of(model, tmp_path / "renamed", limit=1), tmp_path / "out"))


def test_a_guess_is_scored_as_a_distribution_of_one_value(pictures: Path) -> None:
    case = cases_of(pictures, "half", 1)[0]
    row = of_guess(case, np.full(case.pixels.shape, 100.0))
    error = np.abs(100.0 - case.hole(case.pixels).astype(float))
    assert row["crps"] == pytest.approx(error.mean()) and row["energy"] == pytest.approx(np.sqrt((error**2).mean()))
    assert "nats" not in row and "diversity" not in row and "ranks" not in row


def test_cases_are_fixed_by_their_number_and_an_unreadable_picture_is_named(pictures: Path, tmp_path: Path) -> None:
    first, again = (cases_of(pictures, "brush", 8) for _ in range(2))
    assert all(np.array_equal(first[i].mask, again[i].mask) for i in range(8))
    assert not np.array_equal(first[0].mask, first[1].mask)
    assert len({first[i].seed for i in range(8)}) == 8
    later = Cases(open_source(pictures), "brush", 32, 1, [6, 7], 0)
    assert later[0].index == 6 and np.array_equal(later[0].mask, first[6].mask) and later[0].pixels.shape[2] == 1
    shutil.copytree(pictures, tmp_path / "spoilt")
    (tmp_path / "spoilt" / "coffee-0.png").write_bytes(b"no picture")
    with pytest.raises(PictureError, match=r"coffee-0\.png.*mend or remove it"):
        list(cases_of(tmp_path / "spoilt", "brush", 8))


def test_masks_of_ones_own_are_taken_in_order_unturned_and_cropped_like_the_pictures(
    model: Path, pictures: Path, tmp_path: Path
) -> None:
    (tmp_path / "masks").mkdir()
    wide = np.zeros((64, 96, 1), np.uint8)
    wide[2:4, 20:22] = 255  # the top left of the central square
    wide[:, :10] = 255  # outside of it
    save_png(tmp_path / "masks" / "a.png", wide)
    save_png(tmp_path / "masks" / "b.png", np.full((8, 8, 1), 255, np.uint8))
    evaluation = Evaluation(request_of(model, pictures, masks=None, mask_dir=tmp_path / "masks"), tmp_path / "out")
    cases = evaluation.cases(evaluation.kinds[0])
    assert evaluation.kinds == ["folder"]
    assert np.argwhere(cases[0].mask).tolist() == [[1, 2]] and np.array_equal(cases[0].mask, cases[2].mask)
    assert cases[1].mask.all()
    rows = done(evaluation).rows("first", "folder")
    assert summary(rows)["count"] == 4 and "seam_ratio" in summary(rows)  # of the two with a border


# -------------------------------------------------------------------------------------------------------------- figures


def rows_of(crps_values: list[float], nats: list[float], ranks: list[list[int]]) -> list[dict[str, Any]]:
    return [
        {
            "index": i,
            "hole": 0.25,
            "dims": 100,
            "seam": 3.0 if i else 7.0,
            "seam_of_truth": 2.0 if i else 0.0,
            "psnr_mean": 20.0,
            "crps": c,
            "nats": n,
            "nats_k": n + 5,
            "kl": [1.0, 2.0],
            "ranks": r,
            "reliability": np.ones((3, 12)).tolist(),
        }
        for i, (c, n, r) in enumerate(zip(crps_values, nats, ranks, strict=True))
    ]


def test_summary_divides_sums_and_leaves_out_what_does_not_apply() -> None:
    even = [1] * 40
    narrow = [20] + [0] * 38 + [20]
    row = summary(rows_of([4.0, 8.0], [-100 * np.log(2), -300 * np.log(2)], [even, narrow]))
    assert row["count"] == 2 and row["crps"]["mean"] == 6
    assert row["bits_per_dim"]["mean"] == pytest.approx(2.0)
    assert row["bits_per_dim"]["low"] == pytest.approx(1.0) and row["bits_per_dim"]["high"] == pytest.approx(3.0)
    assert row["bits_per_dim_k"]["mean"] == pytest.approx(2 - 5 / (100 * np.log(2)))
    assert row["seam_ratio"]["mean"] == 1.5
    assert row["coverage"]["90"]["mean"] == pytest.approx(36 / 80) and row["coverage"]["50"]["mean"] == 20 / 80
    assert row["ranks"] == [21] + [1] * 38 + [21]
    assert [level["mean"] for level in row["kl_bits_per_dim"]] == pytest.approx([0.01 / np.log(2), 0.02 / np.log(2)])
    assert "lpips_mean" not in row and "psnr_one" not in row and "spread" not in row
    guess = summary([{"index": 0, "hole": 0.2, "seam": 3.0, "seam_of_truth": 0.0, "crps": 1.0}])
    assert set(guess) == {"crps", "count"}


def test_differences_are_paired() -> None:
    even = [[1] * 40] * 30
    hard = np.random.default_rng(0).uniform(1, 100, 30)
    base = rows_of(list(hard), list(-10 * hard), even)
    better = rows_of(list(hard - 1), list(-10 * hard + np.log(2) * 50), even)
    found = differences(better, base)
    assert [found["crps"][end] for end in ("mean", "low", "high")] == pytest.approx([-1, -1, -1])
    assert [found["bits_per_dim"][end] for end in ("mean", "low", "high")] == pytest.approx([-0.5] * 3)
    assert found["coverage"]["90"]["mean"] == 0


def report_of(**figures: float) -> dict[str, Any]:
    row = {name: {"mean": v, "low": v - 1, "high": v + 1} for name, v in figures.items() if name != "coverage"}
    if "coverage" in figures:
        v = figures["coverage"]
        row["coverage"] = {"90": {"mean": v, "low": v - 0.01, "high": v + 0.01}}
    return {"settings": {"count": 5}, "models": {"m": {"masks": {"centre": row | {"count": 5}}}}}


def test_the_gate_closes_only_for_the_worse_and_only_beyond_the_interval() -> None:
    old = report_of(psnr_mean=20, crps=10, seam_ratio=1.5, coverage=0.88, diversity=30)
    assert regressions(old, old) == []
    assert regressions(report_of(psnr_mean=19.1, crps=10.9, seam_ratio=2.4, coverage=0.872, diversity=9), old) == []
    assert regressions(report_of(psnr_mean=40, crps=1, seam_ratio=1, coverage=0.9, diversity=9), old) == []
    worse = regressions(report_of(psnr_mean=18.9, crps=11.1, seam_ratio=2.6, coverage=0.86, diversity=9), old)
    assert [line.split()[3] for line in worse] == ["coverage.90", "crps", "psnr_mean", "seam_ratio"]
    assert "crps 11.1, was 10 [9, 11]" in worse[1] and worse[1].startswith("m, centre holes: ")
    assert regressions(report_of(coverage=0.95), report_of(coverage=0.9))  # too wide is wrong as well
    other = {"settings": {"count": 5}, "models": {"n": {"masks": {}}, "o": {"masks": {}}}}
    assert regressions(other, old) == ["m, centre holes: missing in the new report"]
    alone = {"settings": {"count": 5}, "models": {"n": report_of(psnr_mean=20)["models"]["m"]}}
    assert regressions(alone, report_of(psnr_mean=20)) == []  # one against one, whatever they are called
    assert regressions(report_of(psnr_mean=20), report_of(psnr_mean=20, crps=10)) == [
        "m, centre holes: crps is missing in the new report"
    ]
    with pytest.raises(ConfigError, match=r"other settings \(count\)"):
        regressions(old | {"settings": {"count": 6}}, old)


# -------------------------------------------------------------------------------------------------------------- command


def test_the_command_writes_a_report_that_others_can_read(model: Path, pictures: Path, tmp_path: Path) -> None:
    other = saved(tmp_path / "second", 1)
    options = [
        "--masks",
        "centre,half",
        "--bound-samples",
        "2",
        "--limit",
        "3",
        "--baselines",
        "mean",
    ]
    out = tmp_path / "out"
    assert main(["evaluate", str(model), str(other), str(pictures), "--out", str(out), *options]) == 0
    report = json.loads((out / "report.json").read_text())
    assert report["version"] == 1 and report["settings"]["count"] == 3
    assert set(report["models"]) == {"first", "second"} and set(report["baselines"]) == {"mean colour"}
    figures = {"bits_per_dim", "bits_per_dim_k", "psnr_mean", "psnr_one", "psnr_best", "ssim_mean", "crps", "energy"}
    figures |= {"seam_ratio", "diversity"}
    for name in ("first", "second"):
        assert set(report["models"][name]["masks"]) == {"centre", "half"}
        row = report["models"][name]["masks"]["half"]
        assert all(row[figure]["low"] <= row[figure]["mean"] <= row[figure]["high"] for figure in figures)
        assert set(row["coverage"]) == {"50", "80", "90", "95"} and row["count"] == 3
        assert row["bits_per_dim_k"]["mean"] <= row["bits_per_dim"]["mean"]
    guess = report["baselines"]["mean colour"]["masks"]["centre"]
    assert "coverage" not in guess and "bits_per_dim" not in guess and guess["crps"]["mean"] > 0
    assert set(report["differences"]) == {"second"} and "crps" in report["differences"]["second"]["centre"]
    page = (out / "report.html").read_text()
    assert not any(word in page for word in ('src="http', "url(http", "<script", "<link"))  # nothing from elsewhere
    assert page.count("<svg") == 9 and "data:image/png;base64," in page and str(tmp_path) not in page
    assert {path.suffix for path in (out / "plots").iterdir()} == {".png", ".svg"}
    assert (out / "fills" / "00.png").is_file()
    gate = [str(model), str(pictures), "--out", str(tmp_path / "again"), *options]
    assert main(["evaluate", *gate, "--against", str(out / "report.json")]) == 1  # the second model is missing
    report["models"].pop("second")
    report["settings"].pop("masks")
    (tmp_path / "old.json").write_text(json.dumps(report))
    assert main(["evaluate", *gate, "--against", str(tmp_path / "old.json")]) == 0
    report["models"]["first"]["masks"]["half"]["crps"] = {"mean": 0.2, "low": 0.1, "high": 0.3}
    (tmp_path / "old.json").write_text(json.dumps(report))
    assert main(["evaluate", *gate, "--against", str(tmp_path / "old.json")]) == 1


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["{pictures}"], "no model given"),
        (["{model}"], "no data given"),
        (["{model}", "{pictures}", "--masks", "blob"], "--masks blob: no such kind"),
        (["{model}", "{pictures}", "--masks", ","], "--masks: names no kind"),
        (["{model}", "{pictures}", "--mask-dir", "nowhere"], "nowhere: no such mask file or folder"),
        (["{model}", "{pictures}", "--limit", "9"], "--limit 9: the data holds 8 pictures only"),
        (["{model}", "{pictures}", "--limit", "0"], "--limit 0"),
        (["{model}", "{pictures}", "--samples", "1"], "--samples 1"),
        (["{model}", "{pictures}", "--bound-samples", "0"], "--bound-samples 0"),
        (["{model}", "{pictures}", "--baselines", "lama"], "--baselines lama"),
        (["{model}", "{pictures}", "--against", "nowhere.json"], "--against nowhere.json"),
        (["{model}", "{pictures}", "--lpips", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["{model}", "{empty}"], "no pictures in it"),
        (["{model}", "{model}", "{pictures}"], "another model here is called first too"),
        (["{model}", "{grey}", "{pictures}"], "models of different channels"),
        (["{model}", "{pictures}", "--training", "nowhere"], "nowhere: no such folder"),
        (["{model}", "{pictures}", "--show", "nowhere"], "nowhere: no such folder"),
        (["{model}", "{pictures}", "--inception", "nowhere.safetensors"], "nowhere.safetensors: no such file"),
        (["{model}", "{single}", "--calibrate"], "--calibrate: takes some pictures, and the data holds one only"),
    ],
)
def test_bad_input_is_one_line_that_names_it(
    arguments: list[str],
    said: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    places = {"model": model, "pictures": pictures} | {name: tmp_path / name for name in ("empty", "grey", "single")}
    for name in ("empty", "single"):
        places[name].mkdir()
    shutil.copy(pictures / "coffee-0.png", places["single"])
    if "{grey}" in arguments:
        saved(tmp_path / "grey", 0, channels=1)
    words = [word.format(**places) if word.startswith("{") else word for word in arguments]
    assert main(["evaluate", *words, "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1, error
    assert not (tmp_path / "out").exists()


def test_a_mask_folder_without_a_hole_is_named(model: Path, pictures: Path, tmp_path: Path) -> None:
    (tmp_path / "masks").mkdir()
    save_png(tmp_path / "masks" / "black.png", np.zeros((32, 32, 1), np.uint8))
    evaluation = Evaluation(request_of(model, pictures, masks=None, mask_dir=tmp_path / "masks"), tmp_path / "out")
    with pytest.raises(PictureError, match=r"black\.png: the mask is empty"):
        evaluation.check()


def test_models_of_two_sizes_and_pictures_to_show_share_a_report(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = PRESETS["tiny32"]
    twice = {"size": 64, "stages": [{"size": 64, "width": 8, "depth": 0}, *small.model_dump()["stages"]]}
    levels = (*small.levels, small.levels[-1].model_copy(update={"size": 64, "width": 8}))
    large = saved(tmp_path / "large", 0, **(twice | {"levels": levels, "stages": tuple(map(_stage, twice["stages"]))}))
    base = saved(tmp_path / "small", 0)
    options = ["--masks", "half", "--samples", "3", "--bound-samples", "1", "--limit", "2", "--baselines", "mean"]
    options += ["--show", str(pictures), "--training", str(noise_folder(tmp_path / "noise", 0, 12))]
    assert main(["evaluate", str(base), str(large), str(pictures), "--out", str(tmp_path / "out"), *options]) == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    found = report["differences"]["large"]["half"]
    assert "crps" in found and not {"bits_per_dim", "nats_k"} & found.keys()
    assert set(report["memorisation"]) == {"pixels", "features"} and "memorisation in pixels" in capsys.readouterr().out
    assert len(list((tmp_path / "out" / "fills").iterdir())) == 1  # only what may be shown


def _stage(values: dict[str, Any]) -> StageSpec:
    return StageSpec(**values)
