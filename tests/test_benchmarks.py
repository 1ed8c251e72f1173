import itertools
import json
import math
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import skimage.data
import torch

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import common
import quality
import speed
from baselines import METHODS, inpaint
from scores import crps, estimate, mae, pairwise, psnr, rmse

from manyfill.completions import Completions
from manyfill.data.loader import tile
from manyfill.distributions import Gaussian
from manyfill.images import save_png, to_pixels
from manyfill.masks import draw
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import numpy_generator

# ------------------------------------------------------------------------------------------------------ scores


def test_psnr_of_a_tenth_of_the_peak_is_20_db_and_a_perfect_guess_is_capped() -> None:
    truth = np.linspace(0, 200, 30)
    assert psnr(truth + 25.5, truth) == pytest.approx(20)
    assert psnr(truth, truth) == pytest.approx(10 * math.log10(255**2 * 12))


def test_errors_of_a_known_guess() -> None:
    truth = np.zeros(4)
    guess = np.array([3.0, -4, 0, 5])
    assert mae(guess, truth) == 3
    assert rmse(guess, truth) == pytest.approx(math.sqrt(50 / 4))


def test_crps_of_equal_fills_is_their_mean_absolute_error() -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.uniform(0, 255, 50), rng.uniform(0, 255, 50)
    assert crps(np.tile(guess, (5, 1)), truth) == pytest.approx(mae(guess, truth), rel=1e-12)


@pytest.mark.parametrize("draws", [2, 3])
def test_crps_is_unbiased_for_any_number_of_draws(draws: int) -> None:
    # A fair coin, y = 0: E|X - y| - E|X - X'| / 2 = 1/2 - 1/4. Every outcome of the draws is equally likely.
    outcomes = itertools.product([0.0, 1.0], repeat=draws)
    assert np.mean([crps(np.array(outcome)[:, None], np.zeros(1)) for outcome in outcomes]) == pytest.approx(0.25)


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
def test_crps_of_uniform_draws_meets_its_closed_form(truth: float) -> None:
    fills = np.random.default_rng(1).uniform(0, 1, (16, 40_000))
    assert crps(fills, np.full(40_000, truth)) == pytest.approx(1 / 3 - truth + truth**2, abs=0.003)


def test_crps_of_normal_draws_meets_its_closed_form() -> None:
    # Gneiting & Raftery (2007), equation 21, at the mean: sigma (2 phi(0) - 1 / sqrt(pi)).
    fills = 7 * np.random.default_rng(2).standard_normal((16, 40_000))
    assert crps(fills, np.zeros(40_000)) == pytest.approx(7 * (math.sqrt(2) - 1) / math.sqrt(math.pi), rel=0.02)


def test_crps_by_sorting_equals_the_double_sum() -> None:
    rng = np.random.default_rng(3)
    fills, truth = rng.integers(0, 256, (7, 20)).astype(np.float64), rng.uniform(0, 255, 20)
    pairs = np.abs(fills[:, None] - fills).sum((0, 1)) / (7 * 6)
    assert crps(fills, truth) == pytest.approx((np.abs(fills - truth).mean(0) - pairs / 2).mean(), rel=1e-12)


def test_pairwise_distance_averages_over_pairs() -> None:
    fills = np.array([0.0, 3, 9])[:, None].repeat(4, 1)
    assert pairwise(fills) == pytest.approx((3 + 9 + 6) / 3)


def test_bootstrap_interval_is_that_of_the_normal_approximation() -> None:
    column = np.random.default_rng(4).normal(10, 3, 400)
    found = estimate(column)
    half = 1.96 * column.std() / math.sqrt(400)
    assert found.value == pytest.approx(column.mean())
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_bootstrap_keeps_columns_paired_and_divides_means() -> None:
    column = np.array([1.0, 2, 30, 4])
    found = estimate(column / 2, column, of=np.divide)
    assert (found.value, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert estimate(np.array([1.0, 1]), np.array([1.0, 3]), of=np.divide).value == 0.5


# --------------------------------------------------------------------------------------------------- baselines


def photograph(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    pixels = tile(np.asarray(skimage.data.chelsea()), 32, None)[..., :channels]
    return np.ascontiguousarray(pixels), draw("brush", 32, 32, numpy_generator(0, "test"))


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_baselines_keep_the_known_and_never_read_the_hole(method: str, channels: int) -> None:
    pixels, mask = photograph(channels)
    guess = inpaint(method, pixels, mask)
    assert guess.shape == pixels.shape and guess.dtype == np.float64
    assert np.array_equal(guess[~mask], pixels[~mask])
    altered = pixels.copy()
    altered[mask] = 255 - altered[mask]
    assert np.array_equal(inpaint(method, altered, mask), guess)


@pytest.mark.parametrize("method", METHODS)
def test_baselines_continue_a_flat_picture(method: str) -> None:
    tolerance = 4 if method == "telea" else 0.5  # OpenCV's Telea truncates as it marches
    pixels = np.full((32, 32, 3), (200, 90, 7), np.uint8)
    guess = inpaint(method, pixels, draw("centre", 32, 32, numpy_generator(0, "test")))
    assert np.abs(guess - pixels).max() < tolerance


def test_biharmonic_continues_a_ramp_and_the_mean_is_of_known_pixels() -> None:
    ramp = np.broadcast_to(np.arange(20, 212, 6, dtype=np.uint8)[:, None, None], (32, 32, 1))
    mask = np.zeros((32, 32), bool)
    mask[8:16, 8:24] = True
    assert np.abs(inpaint("biharmonic", ramp, mask) - ramp).max() < 0.5
    assert inpaint("mean colour", ramp, mask)[mask] == pytest.approx(ramp[~mask].mean())


# ----------------------------------------------------------------------------------------------------- quality


@pytest.fixture(scope="module")
def tiny() -> ConditionalHVAE:
    return common.model_named("tiny32")


class Toy:
    """Pictures that are the sum of their levels' latents; outside the hole a thousand times that."""

    stds = (0.1, 0.0, 0.02)

    def __init__(self, mask: np.ndarray) -> None:
        self.config = SimpleNamespace(levels=self.stds)
        self.gain = torch.where(torch.from_numpy(mask), 1.0, 1000.0)

    def decode(self, known: Any, choose: Any, noise: list[torch.Generator]) -> Any:
        shape = (len(noise), 1, *self.gain.shape)
        priors = [Gaussian(torch.full(shape, 0.2), torch.full(shape, std)) for std in self.stds]
        total = torch.stack([choose(level, prior, None) for level, prior in enumerate(priors)]).sum(0)
        return SimpleNamespace(mean=total * self.gain)


def test_spread_is_each_level_s_own_deviation_within_the_hole() -> None:
    mask = draw("centre", 64, 64, numpy_generator(0, "test"))
    group = [quality.Case(index, np.zeros((64, 64, 1), np.uint8), mask) for index in range(2)]
    known = SimpleNamespace(repeat=lambda n: None)
    moved = quality.spread(cast(Any, Toy(mask)), cast(Any, known), group)
    for level, std in enumerate(Toy.stds):
        assert moved[level] == pytest.approx([std * 127.5] * 2, rel=0.03, abs=1e-9)


def test_holes_depend_on_the_picture_s_number_alone() -> None:
    source = speed.OnePhotograph()
    first = quality.cases(source, "brush", 32, 3, 5)
    assert len(first) == 1 and first[0].pixels.shape == (32, 32, 3)
    assert np.array_equal(first[0].mask, draw("brush", 32, 32, numpy_generator(0, "quality", 0)))
    assert quality.cases(source, "brush", 32, 1, 1)[0].pixels.shape == (32, 32, 1)


def test_our_figures_agree_with_the_model_asked_directly(tiny: ConditionalHVAE) -> None:
    pixels, mask = photograph()
    group = [quality.Case(0, pixels, mask), quality.Case(1, pixels[::-1].copy(), ~mask)]
    rows = list(quality.ours(tiny, group, samples=3))
    assert [set(row) for row in rows] == [set(rows[0])] * 2
    assert all(math.isfinite(value) for row in rows for value in row.values())
    for row in rows:
        figures = {name: value for (_, name), value in row.items()}
        assert figures["psnr"] > figures["psnr of one fill"]  # draws of an untrained model are nearly independent
        assert figures["pairwise"] > figures["crps"] > 0
    alone = next(quality.ours(tiny, group[:1], samples=3))
    assert alone[quality.OURS, "crps"] == pytest.approx(rows[0][quality.OURS, "crps"], rel=0.1)


def test_quality_writes_what_it_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for index in range(2):
        save_png(tmp_path / f"{index}.png", np.roll(photograph()[0], 5 * index, 0))
    arguments = ["--model", "tiny32", "--samples", "2", "--masks", "half", "--json", str(tmp_path / "out.json")]
    monkeypatch.setattr(sys, "argv", ["quality.py", str(tmp_path), *arguments])
    quality.main()
    record = json.loads((tmp_path / "out.json").read_text())
    assert record["machine"].keys() >= {"date", "device", "torch", "threads"}
    assert record["model"] == "tiny32" and record["data"] == [tmp_path.name]
    half = record["masks"]["half"]
    assert half["pictures"] == 2 and set(half) == {"pictures", *METHODS, quality.OURS, "against"}
    gain, ratio = half["against"].values()
    best = max(half[method]["psnr"]["value"] for method in METHODS)
    assert gain["value"] == pytest.approx(half[quality.OURS]["psnr"]["value"] - best)
    least = min(half[method]["mae"]["value"] for method in METHODS)
    assert ratio["value"] == pytest.approx(half[quality.OURS]["crps"]["value"] / least)


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--masks", "blob"], "'blob' does not exist"),
        (["--samples", "1"], "--samples 2 or more"),
        (["--json", "nowhere/out.json"], "--json nowhere/out.json"),
        (["--model", "no-such-model"], "no-such-model"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    arguments: list[str],
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    save_png(tmp_path / "a.png", photograph()[0])
    monkeypatch.setattr(sys, "argv", ["quality.py", str(tmp_path), "--model", "tiny32", *arguments])
    with pytest.raises(SystemExit) as end:
        common.run(quality.main)
    error = capsys.readouterr().err
    assert end.value.code == 2 and said in error and error.count("\n") == 1


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
    assert task.flops > 3 * speed.filling(tiny, speed.BATCH, 1).flops


def test_branching_saves_the_flops_of_reading_the_picture_again(tiny: ConditionalHVAE) -> None:
    one, branched, apart = (speed.filling(tiny, *counts) for counts in ((1, 1), (1, 16), (16, 1)))
    assert apart.flops == 16 * one.flops
    assert one.flops < branched.flops < apart.flops
    fills = cast(torch.Tensor, branched.call())
    assert fills.shape == (16, 3, 32, 32) and not torch.equal(fills[0], fills[1])


def test_the_filler_is_timed_on_the_same_fills(tiny: ConditionalHVAE) -> None:
    through = cast(Completions, speed.filler_call(tiny, 2).call())
    direct = cast(torch.Tensor, speed.filling(tiny, 1, 2).call())
    assert all(np.array_equal(to_pixels(fill), image) for fill, image in zip(direct, through.images, strict=True))
