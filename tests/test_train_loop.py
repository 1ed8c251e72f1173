"""Training: it learns, it keeps to its seed and its time, and it stops when it is told to."""

import itertools
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from training import Micro, after_step, break_when, records, smooth, state, stop_at, timeless, tiny, unequal

import manyfill
from manyfill.checkpoint import load_model, load_state
from manyfill.images import save_png
from manyfill.models.bound import Bound
from manyfill.train import loop
from manyfill.train.engine import objective
from manyfill.train.loop import Trainer, run
from manyfill.train.settings import load
from manyfill.train.setup import initial_state
from manyfill.train.state import RunState, checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")

ROOT = Path(manyfill.__file__).parent.parent


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: int = 1) -> Iterator[int]:
    """A clock on which so many seconds pass each time that the loop looks at it."""
    now = itertools.count(0, seconds)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(now)))
    return now


# ---------------------------------------------------------------------------------------------------------- it learns

OVERFIT_STEPS = 400


def test_it_overfits_one_small_batch_to_below_two_bits(tmp_path: Path) -> None:
    folder = tmp_path / "four"
    folder.mkdir()
    for i in range(4):
        save_png(folder / f"{i}.png", smooth(i, 32) // 3 + 80)
    recipe = ["train.batch_size=4", "train.learning_rate=5e-3", "train.warmup_steps=20", "train.validation_pictures=4"]
    data = ["data.masks={centre=1}", "data.flip=false", "data.guide_probability=0"]
    run(tiny(folder, *recipe, *data, steps=OVERFIT_STEPS, validation=[str(folder)]), tmp_path / "run")
    first, *_, last, validation = records(tmp_path / "run")
    assert first["bits_per_dim"] > 6, "or the test shows nothing"
    assert validation["kind"] == "validation" and validation["step"] == OVERFIT_STEPS
    assert last["bits_per_dim"] < 2 and validation["bits_per_dim"] < 2


# Bits per dimension at each of the first 20 steps. A change that alters them on purpose puts in what the test prints.
GOLDEN = [
    *(10.9015, 13.7488, 10.9803, 15.2836, 13.6318, 9.8348, 13.564, 20.0393, 12.2827, 15.8096),
    *(16.7023, 10.1835, 9.7425, 9.7867, 10.7189, 8.6029, 10.7569, 8.7622, 8.8207, 8.6921),
]


def test_the_first_twenty_losses_are_the_golden_ones(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    run(tiny(photos, "train.warmup_steps=5", steps=20, seed=3), tmp_path / "run")
    trace = [r["bits_per_dim"] for r in records(tmp_path / "run") if r["kind"] == "train"]
    np.testing.assert_allclose(trace, GOLDEN, rtol=0, atol=1e-2, err_msg=f"now {[round(bits, 4) for bits in trace]}")


def test_the_same_seed_gives_the_same_bytes_and_another_seed_others(micro: Micro, tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        run(micro(seed=seed), tmp_path / name)
    weights, sheet = "model/model.safetensors", "grids/step-00000004.png"
    for file in (weights, sheet):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert (tmp_path / "a" / weights).read_bytes() != (tmp_path / "c" / weights).read_bytes()
    assert timeless(tmp_path / "a") == timeless(tmp_path / "b")
    drawn = [initial_state(micro(seed=seed), torch.device("cpu")).model.features.stem.weight for seed in (1, 2)]
    assert not torch.equal(*drawn)


def test_training_leaves_the_global_generator_alone(micro: Micro, tmp_path: Path) -> None:
    before = torch.get_rng_state()
    run(micro(), tmp_path / "run")
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize("size", [1, 3])
def test_grey_and_colour_train(size: int, photos: Path, tmp_path: Path) -> None:
    run(tiny(photos, f"model.channels={size}", steps=2), tmp_path / "run")
    assert load_model(tmp_path / "run" / "model").model.config.channels == size
    assert all(math.isfinite(r["bits_per_dim"]) for r in records(tmp_path / "run"))


def test_tan2017_trains(photos: Path, tmp_path: Path) -> None:
    settings = load([str(photos)], preset="tan2017", steps=2, assignments=["train.batch_size=2", "train.workers=0"])
    trainer = Trainer(settings, tmp_path / "run")
    weights = [p for p in trainer.state.model.parameters() if p.ndim > 1]  # batch norm takes a bias before it away
    before = [weight.detach().clone() for weight in weights]
    for batch, _ in zip(trainer.stream(), range(2), strict=False):
        assert math.isfinite(trainer.step(batch))
    assert trainer.state.guard.skipped == 0 and trainer.progress() == 1
    assert not any(torch.equal(a, b) for a, b in zip(before, weights, strict=True))


def test_the_kl_counts_more_and_more_while_it_warms_up(micro: Micro, tmp_path: Path) -> None:
    trainer = Trainer(micro("train.kl_warmup=0.5", steps=8), tmp_path / "run")
    weights = []
    for trainer.state.step in range(8):
        weights.append(trainer.kl_weight())
    assert weights == [0, 0.25, 0.5, 0.75, 1, 1, 1, 1]


def test_the_objective_is_the_bound_per_hole_value_and_what_is_nested() -> None:
    bound = Bound(
        pixels=torch.tensor([-10.0, -2.0]),
        kl=torch.tensor([[1.0, 2.0], [3.0, 4.0]]),
        dims=torch.tensor([4.0, 6.0]),
        nested=torch.tensor([[1.0, 2.0], [3.0, 0.0]]),
    )
    dims = bound.dims.sum()
    assert objective(bound, 1.0, 0.0, 2, dims).item() == pytest.approx(22 / 10)
    assert objective(bound, 0.5, 2.0, 2, dims).item() == pytest.approx(17 / 10 + 6)
    assert objective(bound, 0.5, 2.0, 4, 2 * dims).item() == pytest.approx((17 / 10 + 6) / 2), "half of a batch"
    # Half a nat of each hole value is free: 2 nats of each level in one picture, 3 in the other.
    assert objective(bound, 1.0, 0.0, 2, dims, 0.5 / math.log(2)).item() == pytest.approx((12 + 4 + 7) / 10)


def test_recomputing_trains_the_same(photos: Path, tmp_path: Path) -> None:
    for recompute in ("false", "true"):
        run(tiny(photos, f"train.recompute={recompute}", steps=3), tmp_path / recompute)
    plain, recomputed = (state(tmp_path / name)[0] for name in ("false", "true"))
    assert unequal(plain, recomputed) == []


def test_the_best_model_is_that_of_the_best_validation(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bounds = iter([5.0, 4.0, 4.5, 6.0, 3.0, math.nan])
    monkeypatch.setattr(loop, "bound_figures", lambda *_: ({"bits_per_dim": next(bounds), "pixel_bits": 1.0}, []))
    monkeypatch.setattr(loop, "write_card", lambda *_: "")

    def best(steps: int) -> tuple[int, float]:
        run(micro("train.validate_every=2", steps=steps), tmp_path / "run")
        figures = load_model(tmp_path / "run" / "best").figures
        return figures["steps"], figures["bits_per_dim"]

    assert best(3) == (3, 4.0)
    assert best(5) == (3, 4.0), "4.5 at step 4 and 6 at step 5 are no better, though measured after a resume"
    assert best(7) == (6, 3.0)


# ----------------------------------------------------------------------------------------------------------- its time


def test_minutes_are_of_the_clock_and_add_up(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch)
    saves: list[float] = []
    save = RunState.save

    def noted(self: RunState, run: Path) -> None:
        saves.append(self.elapsed)
        save(self, run)

    monkeypatch.setattr(RunState, "save", noted)
    out, rhythm = tmp_path / "run", ["train.validate_every=6s", "train.checkpoint_every=9s"]
    with monkeypatch.context() as patch:
        stop_at(patch, 5)
        run(micro(*rhythm, minutes=0.5), out)
    assert load_state(checkpoints(out)[-1])[1]["elapsed"] == 5 and saves == [5]
    run(micro(*rhythm, minutes=0.5), out)
    log, record = records(out), load_state(checkpoints(out)[-1])[1]
    assert log[-1]["kind"] == "validation" and log[-1]["elapsed"] == record["elapsed"] == 31
    passes = [r["elapsed"] for r in log if r["kind"] == "validation"]
    # Each step, pass and save takes a second. Passes are due 6 s after the last, saves 9 s; one of each ends the run.
    assert passes == [12, 19, 27, 31] and saves == [5, 14, 24, 31]
    assert record["step"] == 30 - len(passes[:-1]) - len(saves[1:-1]) and log[-2]["elapsed"] == 30
    assert Trainer(micro(*rhythm, minutes=0.5), out).progress() == 1


def test_time_lost_by_going_back_is_not_given_again(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = ticking(monkeypatch)
    break_when(monkeypatch, lambda trainer: trainer.state.rate == 1 and trainer.state.step >= 12)
    run(micro("train.patience=3", minutes=0.5), tmp_path / "run")
    record = load_state(checkpoints(tmp_path / "run")[-1])[1]
    assert record["setbacks"] == 1 and record["step"] == 15 and record["elapsed"] == 31 and next(now) == 33


def test_a_run_in_steps_does_not_look_at_the_clock(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rhythm = ["train.validate_every=3", "train.checkpoint_every=2"]
    run(micro(*rhythm, steps=5), tmp_path / "quick")
    ticking(monkeypatch, 10_000)
    run(micro(*rhythm, steps=5), tmp_path / "slow")
    assert timeless(tmp_path / "quick") == timeless(tmp_path / "slow")
    assert [r["step"] for r in records(tmp_path / "slow") if r["kind"] == "validation"] == [3, 5]


def test_rate_and_time_left_are_averages(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([0, 1, 4, 10])
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(now)))
    trainer = Trainer(micro(steps=9), tmp_path / "run")
    trainer.lap()
    trainer.pace.extend([trainer.lap() for _ in range(2)])
    trainer.state.step = 3
    assert trainer.rate() == pytest.approx(2 * 2 / 4) and trainer.seconds_left() == pytest.approx(6 * 2.0)
    trainer.settings = micro(minutes=1)
    assert trainer.seconds_left() == pytest.approx(60 - 4)


# ------------------------------------------------------------------------------------------------- when it is stopped


def test_ctrl_c_saves_and_ends_and_the_handlers_come_back(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    handlers = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    with monkeypatch.context() as patch:
        after_step(patch, lambda trainer: signal.raise_signal(signal.SIGINT) if trainer.state.step == 3 else None)
        run(micro(steps=9), tmp_path / "run")
    assert "stopped at step 3" in capsys.readouterr().err
    assert state(tmp_path / "run")[1]["step"] == 3 and load_model(tmp_path / "run" / "model").figures["steps"] == 3
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == handlers
    run(micro(steps=9), tmp_path / "run")
    assert state(tmp_path / "run")[1]["step"] == 9


def test_a_second_ctrl_c_ends_it_at_once(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def twice(_: Trainer) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    after_step(monkeypatch, twice)
    with pytest.raises(KeyboardInterrupt):
        run(micro(), tmp_path / "run")
    assert checkpoints(tmp_path / "run") == []


def test_a_clusters_sigterm_to_the_whole_group_saves_too(photos: Path, micro_toml: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "manyfill", "train", str(photos), "--out", "run", "--config", str(micro_toml)]
    command += ["--steps", "1000000", "--set", "train.workers=1", "--set", "train.batch_size=64"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(
        command, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / "log.jsonl").exists() and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.05)
    time.sleep(1)  # to meet it, and its worker, among its steps
    os.killpg(process.pid, signal.SIGTERM)
    try:
        errors = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 0 and "Traceback" not in errors and "stopped at step" in errors
    step = state(tmp_path / "run")[1]["step"]
    assert step >= 1 and load_model(tmp_path / "run" / "model").figures["steps"] == step


def test_it_trains_outside_the_main_thread(micro: Micro, tmp_path: Path) -> None:
    thread = threading.Thread(target=run, args=(micro(), tmp_path / "run"))
    thread.start()
    thread.join()
    assert state(tmp_path / "run")[1]["step"] == 4
