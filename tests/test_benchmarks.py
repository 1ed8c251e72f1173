import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import adapt
import bulk
import common
import megapixels
import memory

from manyfill.benchmark import model_named
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler

# -------------------------------------------------------------------------------------------------------- bulk


def test_fill_many_is_held_against_the_model_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("in", "masks", "model"):
        (tmp_path / part).mkdir()
    bulk.write_pictures(tmp_path, 3, 32)
    filler = Filler(model_named("tiny32"), "tiny")
    job = bulk.Job(tmp_path / "in", tmp_path / "out", tmp_path / "masks", bulk.Sampling(20), batch=32)
    batches: list[int] = []
    decode = ConditionalHVAE.decode
    monkeypatch.setattr(
        ConditionalHVAE,
        "decode",
        lambda m, known, choose, noise: batches.append(len(known.x)) or decode(m, known, choose, noise),
    )
    drawn = {}
    for name, task in {**bulk.own_rates(filler, job), "fill-many": bulk.bulk_rate(filler, job)}.items():
        batches.clear()
        assert task() == 60
        drawn[name] = list(batches)
    assert drawn["fill-many"] == [32, 8, 16, 4]
    assert all(sizes == drawn["fill-many"] for sizes in drawn.values())


def test_bulk_shares_are_of_medians(monkeypatch: pytest.MonkeyPatch) -> None:
    rates = {"model.fill": (10.0, 5.0), "model.encode_known and fill": (8.0, 4.0), "fill-many": (7.6, 3.0)}
    monkeypatch.setattr(bulk, "own_rates", lambda *_: dict.fromkeys(list(rates)[:2]))
    monkeypatch.setattr(bulk, "bulk_rate", lambda *_: None)
    monkeypatch.setattr(bulk, "measure", lambda tasks, rounds: {name: rates[name] for name in tasks})
    record = bulk.compare(cast(Filler, None), cast(bulk.Job, None), 1)
    assert record["per_second"]["share_of_model_fill"] == pytest.approx(0.76)
    assert record["per_second"]["share_of_encode_known_and_fill"] == pytest.approx(0.95)
    assert record["per_processor_second"]["share_of_model_fill"] == pytest.approx(0.6)


# --------------------------------------------------------------------------------------------------------- megapixels


def test_a_large_photograph_is_filled_and_timed() -> None:
    row = megapixels.measure("default", 1, 90, 120, 20)
    assert (row["height"], row["width"], row["hole"]) == (90, 120, 20)
    assert row["seconds"] > 0 and row["processor_seconds"] > 0 and row["process_mib"] > 100
    assert megapixels.hole_of(90, 120, 20).sum() == 400 and megapixels.photograph(90, 120).shape == (90, 120, 3)


# ------------------------------------------------------------------------------------------------------------- memory


@pytest.mark.parametrize(
    "arguments, said",
    [(["--json", "nowhere/out.json"], "--json nowhere/out.json"), (["--batch", "0"], "--batch must be")],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["memory.py", *arguments])
    with pytest.raises(SystemExit) as end:
        common.run(memory.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


def asked(preset: str, batch: int) -> argparse.Namespace:
    return argparse.Namespace(preset=preset, batch=batch, precision="float32")


def test_recomputing_is_measured_on_the_same_step() -> None:
    plain, recomputed = (memory.step(memory.settings_of(asked("tiny32", 2), recompute)) for recompute in (False, True))
    assert plain["loss"] == recomputed["loss"]


@pytest.mark.slow
def test_recomputing_spares_a_quarter_of_what_a_step_of_large256_takes() -> None:
    record = memory.compare(asked("large256", 2))
    assert record["plain"]["loss"] == record["recomputed"]["loss"]
    assert record["peak_mib_share"] < 0.75, record


# ---------------------------------------------------------------------------------- learning from the picture


def test_pictures_to_learn_from_are_the_same_everywhere_and_their_holes_apart() -> None:
    drawn = adapt.town()
    assert drawn.shape == (512, 512, 3) and np.array_equal(drawn, adapt.town())
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) == 8
    holes = adapt.holes_of(drawn.shape)
    assert [hole.sum() for hole in holes] == [adapt.SIDE**2] * adapt.HOLES
    assert np.sum(holes, 0).max() == 1
    assert {kind for kind, *_ in adapt.pictures(None, 0)} == {"other"}
