import argparse
import sys
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import adapt
import bulk
import common
import memory
import speed

from manyfill.completions import Completions
from manyfill.images import to_pixels
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler


@pytest.fixture(scope="module")
def tiny() -> ConditionalHVAE:
    return common.model_named("tiny32")


# ------------------------------------------------------------------------------------------------------- speed


@pytest.mark.parametrize("backward, passes", [(False, 1), (True, 3)])
def test_flops_of_a_convolution_are_two_per_multiply_add(backward: bool, passes: int) -> None:
    assert speed.convolution(8, 4, torch.float32, backward).flops == passes * 2 * 9 * 8 * 8 * 4 * 4 * speed.BATCH


def test_tasks_take_turns() -> None:
    called: list[str] = []
    tasks = {name: speed.Task(lambda name=name: called.append(name), 0) for name in "AB"}  # type: ignore[misc]
    seconds = speed.measure(tasks, rounds=3, burst=0.0)
    # Once each to see how long a call takes; then a warm-up call and a burst of one call, in turn.
    assert "".join(called) == "AB" + "AABB" * 3
    assert [len(values) for values in seconds.values()] == [3, 3]


def test_ratios_are_of_medians_against_the_best_convolution() -> None:
    ways = ("forward", "forward+backward")
    kinds = [f"{kind} {way} {shape}" for kind in speed.TYPES for way in ways for shape in "ab"]
    fills = [speed.PICTURES, speed.MANY, speed.ONE, f"Filler, {speed.MANY}", f"Filler, {speed.ONE}"]
    names = [*kinds, speed.TRAIN, *fills]
    tasks = {name: speed.Task(lambda: None, 4 * 10**9) for name in names}
    seconds = {name: np.array([1.0, 2.0, 90.0]) for name in names}  # a median of 2 ms whatever disturbed the third
    seconds |= {name: np.array([0.5, 1.0, 1.0]) for name in kinds if name.endswith("b")}
    seconds[speed.TRAIN], seconds[speed.ONE] = np.array([4.0]), np.array([0.5])
    record = speed.summarise(tasks, {name: values / 1e3 for name, values in seconds.items()})
    assert record["conv_rate_tflops"] == pytest.approx({"forward": 4.0, "forward+backward": 4.0})
    assert record["train_share_of_conv_rate"] == pytest.approx(0.25)
    assert record["sampling_share_of_conv_rate"] == pytest.approx(0.5)
    assert record["cost_of_16_fills_over_1"] == pytest.approx(4)
    assert record["filler_cost_of_16_fills_over_1"] == pytest.approx(1)
    assert record["pictures_per_second"] == pytest.approx(speed.BATCH / 4e-3)


def test_the_timed_training_step_trains_a_copy(tiny: ConditionalHVAE) -> None:
    before = {name: value.clone() for name, value in tiny.state_dict().items()}
    task = speed.training_step(tiny)
    task.call()
    assert not tiny.training
    assert all(torch.equal(value, before[name]) for name, value in tiny.state_dict().items())
    # Three times a fill's, but for the expectation, which has no gradient.
    assert task.flops > 2.5 * speed.filling(tiny, speed.BATCH, 1).flops


def test_branching_saves_the_flops_of_reading_the_picture_again(tiny: ConditionalHVAE) -> None:
    one, branched, apart = (speed.filling(tiny, *counts) for counts in ((1, 1), (1, 16), (16, 1)))
    assert apart.flops == 16 * one.flops
    assert one.flops < branched.flops < apart.flops
    fills = cast(torch.Tensor, branched.call())
    assert fills.shape == (16, 3, 32, 32) and not torch.equal(fills[0], fills[1])


def test_the_filler_is_timed_on_the_same_fills(tiny: ConditionalHVAE) -> None:
    through = cast(Completions, speed.filler_call(tiny, 2).call())
    direct = cast(torch.Tensor, speed.filling(tiny, 1, 2).call())
    known = ~through.mask
    for fill, image in zip(direct, through.images, strict=True):
        assert np.array_equal(to_pixels(fill)[known], image[known])
        assert not np.array_equal(to_pixels(fill), image)  # the same task, each with noise of its own


@pytest.mark.parametrize(
    "arguments, said",
    [(["--json", "nowhere/out.json"], "--json nowhere/out.json"), (["--model", "no-such-model"], "no-such-model")],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str], said: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["speed.py", *arguments])
    with pytest.raises(SystemExit) as end:
        common.run(speed.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


# -------------------------------------------------------------------------------------------------------- bulk


def test_fill_many_is_held_against_the_model_on_the_same_batches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for part in ("in", "masks", "model"):
        (tmp_path / part).mkdir()
    bulk.write_pictures(tmp_path, 3, 32)
    filler = Filler(common.model_named("tiny32"), "tiny")
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


# ------------------------------------------------------------------------------------------------------------- memory


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
