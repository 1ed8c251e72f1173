"""`manyfill benchmark`: what is timed, what is counted, and what the figures are made of."""

import json
from typing import cast

import numpy as np
import pytest
import torch

import manyfill.benchmark as speed
from manyfill.cli import main
from manyfill.cli_benchmark import MEANINGS
from manyfill.completions import Completions
from manyfill.images import to_pixels
from manyfill.models.hvae import ConditionalHVAE


@pytest.fixture(scope="module")
def tiny() -> ConditionalHVAE:
    return speed.model_named("tiny32")


@pytest.mark.parametrize("backward, passes", [(False, 1), (True, 3)])
def test_flops_of_a_convolution_are_two_per_multiply_add(backward: bool, passes: int) -> None:
    assert speed.convolution(8, 4, torch.float32, backward).flops == passes * 2 * 9 * 8 * 8 * 4 * 4 * speed.BATCH


def test_tasks_take_turns() -> None:
    called: list[str] = []
    tasks = {name: speed.Task(lambda name=name: called.append(name), 0) for name in "AB"}  # type: ignore[misc]
    seconds = speed.measure(tasks, range(3), burst=0.0)
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
    assert record["sample_share_of_conv_rate"] == pytest.approx(0.5)
    assert (record["fill_1_ms"], record["fill_16_ms"]) == pytest.approx((2, 2))
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


@pytest.mark.usefixtures("one_thread")
def test_the_command_prints_every_figure(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "BURST", 0.0)
    monkeypatch.setattr(speed, "CONVOLUTIONS", ((4, 4),))
    assert main(["benchmark", "--model", "tiny32", "--rounds", "1", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "tiny32" and all(record[name] > 0 for name in MEANINGS)
    assert 0 < record["peak_memory_mib"]["fill"] <= record["peak_memory_mib"]["train"]
    monkeypatch.setattr(speed, "benchmark", lambda *_: record)
    assert main(["benchmark"]) == 0
    shown = capsys.readouterr().out
    assert f"{record['train_share_of_conv_rate']:.3g}" in shown and "training step" in shown


def test_bad_input_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    for arguments, said in ((["--model", "no-such-model"], "no-such-model"), (["--rounds", "0"], "rounds")):
        assert main(["benchmark", *arguments]) == 2
        error = capsys.readouterr().err
        assert said in error and error.count("\n") == 1
