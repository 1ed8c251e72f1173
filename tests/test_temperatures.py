import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluating import cases_of, request_of, saved

from manyfill.checkpoint import load_model
from manyfill.cli import main
from manyfill.evaluate import run, temperatures
from manyfill.evaluate.run import Evaluation
from manyfill.pipeline import Filler


def test_calibration_brings_coverage_nearer_and_is_stored_with_the_model(
    pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    filler = Filler.from_pretrained(saved(tmp_path / "model", 0))
    cases = [cases_of(pictures, "centre", 2)]
    given: list[float] = []

    def covered(_: Any, tried: torch.Tensor) -> dict[str, float]:
        """An imaginary model, right at a factor of 1.3 and the wider the more covering."""
        factor = float(tried[0] / shape[0])
        given.append(factor)
        return {"centre": min(1.0, 0.9 * (factor / 1.3) ** 0.2)}

    shape = torch.linspace(0.8, 1.2, len(filler.model.config.levels))
    monkeypatch.setattr(temperatures, "_coverage", covered)
    monkeypatch.setattr(temperatures, "prior_misfit", lambda *_: shape)
    told = temperatures.fit(filler, cases, 0)
    assert len(given) <= temperatures.TRIES and told["centre"] == pytest.approx(0.9, abs=temperatures.NEAR)
    torch.testing.assert_close(filler.model.temperatures, 1.3 * shape, rtol=0.02, atol=0)


def test_half_of_a_small_set_is_left_to_evaluate(model: Path, pictures: Path, tmp_path: Path) -> None:
    evaluation = Evaluation(request_of(model, pictures, limit=None, calibrate=True), tmp_path)
    assert evaluation.calibration == [0, 2, 4, 6] and evaluation.numbers == [1, 3, 5, 7]


def test_the_command_calibrates_and_fills_use_it(
    model: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(model, tmp_path / "copy")
    (tmp_path / "copy" / "LICENSE").write_text("not ours to lose")
    arguments = ["--masks", "centre", "--samples", "3", "--bound-samples", "1", "--limit", "2", "--baselines", "mean"]
    monkeypatch.setattr(run, "CALIBRATION_PICTURES", 4)
    out = str(tmp_path / "out")
    assert main(["evaluate", str(tmp_path / "copy"), str(pictures), "--out", out, "--calibrate", *arguments]) == 0
    before, after = load_model(str(model)), load_model(str(tmp_path / "copy"))
    assert not torch.equal(after.model.temperatures, before.model.temperatures)
    assert after.figures["temperatures"] == pytest.approx(after.model.temperatures.tolist(), abs=1e-4)
    assert after.card == before.card and (tmp_path / "copy" / "LICENSE").read_text() == "not ours to lose"
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["settings"]["calibration_pictures"] == 4 and report["settings"]["count"] == 2
    written = (tmp_path / "copy" / "manifest.json").read_bytes()
    assert main(["evaluate", str(tmp_path / "copy"), str(pictures), "--out", out, "--calibrate", *arguments]) == 0
    assert (tmp_path / "copy" / "manifest.json").read_bytes() == written  # once is enough
    for name, tensor in before.model.state_dict().items():
        assert name == "temperatures" or torch.equal(tensor, after.model.state_dict()[name])
    picture = np.zeros((32, 32, 3), np.uint8)
    mask = np.ones((32, 32), bool)
    one, two = (Filler(loaded.model, "x")(picture, mask, 2).latents[-1] for loaded in (before, after))
    assert not np.array_equal(one, two)
