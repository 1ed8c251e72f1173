"""Training: it learns, it goes on bit for bit where it stopped, and it survives what goes wrong on the way."""

import errno
import io
import itertools
import json
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import manyfill
from manyfill.checkpoint import load_model, load_state
from manyfill.data import Batch, open_source
from manyfill.errors import ConfigError, DataError, ManyfillError, ModelError, OutputError, PictureError
from manyfill.images import save_png
from manyfill.masks import write_mask
from manyfill.models.bound import Bound
from manyfill.train import loop
from manyfill.train.card import write_card
from manyfill.train.held_out import split
from manyfill.train.loop import Trainer, run
from manyfill.train.monitor import Monitor
from manyfill.train.optim import Guard, learning_rate
from manyfill.train.settings import Settings, TrainSettings, load
from manyfill.train.setup import initial_state
from manyfill.train.state import RunState, checkpoints
from manyfill.train.tally import Tally

ROOT = Path(manyfill.__file__).parent.parent

# As small as a model can be and still have two sizes, so that a step takes milliseconds.
MICRO = """
[model]
size = 8
mixtures = 2
stages = [{size = 8, width = 4}, {size = 4, width = 4}]
levels = [{size = 4, width = 4, latent = 2}, {size = 8, width = 4, latent = 2}]
[train]
batch_size = 2
workers = 0
precision = "float32"
"""


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """Models this small lose more by sharing work than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def smooth(index: int, size: int) -> np.ndarray:
    """A picture of soft colours, uint8 (size, size, 3), by integer arithmetic alone."""
    y, x = np.mgrid[:size, :size] * 255 // size
    a, b, c = (index * 37 + 11) % 97, (index * 53 + 29) % 97, (index * 71 + 5) % 97
    bands = np.stack([(a * x + (97 - a) * y) // 97, (b * y + (97 - b) * (255 - x)) // 97, (c * x + 128 * y) // 225], -1)
    return (40 + bands * 170 // 255).astype(np.uint8)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of 40x40."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for i in range(6):
        save_png(folder / f"{i}.png", smooth(i, 40))
    return folder


@pytest.fixture(scope="session")
def micro_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "micro.toml"
    path.write_text(MICRO)
    return path


Micro = Callable[..., Settings]


@pytest.fixture
def micro(photos: Path, micro_toml: Path) -> Micro:
    """Settings of a run of the smallest model, with `key=value` assignments."""

    def make(*assignments: str, **flags: Any) -> Settings:
        if flags.keys().isdisjoint({"steps", "minutes"}):
            flags["steps"] = 4
        data = flags.pop("data", [str(photos)])
        return load(data, config=micro_toml, assignments=assignments, **flags)

    return make


def tiny(photos: Path, *assignments: str, **flags: Any) -> Settings:
    small = ["train.workers=0", "train.batch_size=2", "train.precision=float32", "train.validation_pictures=2"]
    return load([str(photos)], preset="tiny32", assignments=[*small, *assignments], **flags)


def records(out: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]


def timeless(out: Path) -> list[dict[str, Any]]:
    """The log without what no two runs share."""
    return [{k: v for k, v in r.items() if k not in ("elapsed", "pictures_per_second")} for r in records(out)]


def state(out: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    tensors, record = load_state(checkpoints(out)[-1])
    return tensors, {k: v for k, v in record.items() if k != "elapsed"}


def unequal(a: dict[str, Tensor], b: dict[str, Tensor]) -> list[str]:
    assert a.keys() == b.keys()
    return [name for name in a if not torch.equal(a[name], b[name])]


def corrupt(directory: Path) -> None:
    file = directory / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


def ticking(monkeypatch: pytest.MonkeyPatch, seconds: int = 1) -> Iterator[int]:
    """A clock on which so many seconds pass each time that the loop looks at it."""
    now = itertools.count(0, seconds)
    monkeypatch.setattr(loop, "time", SimpleNamespace(monotonic=lambda: next(now)))
    return now


def after_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[Trainer], object]) -> None:
    """Have something happen after each step."""
    step = Trainer.step

    def stepped(self: Trainer, batch: Batch) -> float:
        norm = step(self, batch)
        act(self)
        return norm

    monkeypatch.setattr(Trainer, "step", stepped)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    after_step(monkeypatch, lambda trainer: setattr(trainer, "stopping", trainer.state.step == step))


def break_when(monkeypatch: pytest.MonkeyPatch, broken: Callable[[Trainer], bool]) -> None:
    """Make the loss of some steps NaN."""
    now: list[Trainer] = []
    step, objective = Trainer.step, loop.objective

    def stepped(self: Trainer, batch: Batch) -> float:
        now[:] = [self]
        return step(self, batch)

    def spoilt(bound: Bound, kl_weight: float, nested_weight: float) -> Tensor:
        loss = objective(bound, kl_weight, nested_weight)
        return loss * math.nan if broken(now[0]) else loss

    monkeypatch.setattr(Trainer, "step", stepped)
    monkeypatch.setattr(loop, "objective", spoilt)


# ------------------------------------------------------------------------------------------------------- it learns

OVERFIT_STEPS = 300


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
    *(
        9.1625,
        9.6964,
        9.7529,
        9.0897,
        8.3799,
        8.9718,
        8.2127,
        8.1555,
        8.0386,
        8.4575,
        8.1356,
        7.7455,
        7.8017,
        7.8654,
        7.8182,
        7.7331,
        7.6345,
        7.8544,
        7.4878,
        7.6737,
    ),
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


def test_the_rate_warms_up_and_follows_its_schedule() -> None:
    def rate(step: int, progress: float, **values: Any) -> float:
        return learning_rate(TrainSettings(steps=100, learning_rate=2.0, **values), step, progress)

    assert rate(0, 0, warmup_steps=4) == 0.5 and rate(3, 0, warmup_steps=4) == 2.0 and rate(0, 0, warmup_steps=0) == 2.0
    assert [rate(9, p, warmup_steps=0) for p in (0, 0.25, 1)] == [2.0, 1.5, 0.0]
    assert rate(9, 0.5, warmup_steps=0, schedule="cosine") == pytest.approx(1.0)
    assert rate(9, 0.9, warmup_steps=0, schedule="constant") == 2.0


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
    assert loop.objective(bound, 1.0, 0.0).item() == pytest.approx(22 / 10)
    assert loop.objective(bound, 0.5, 2.0).item() == pytest.approx(17 / 10 + 6)


# ------------------------------------------------------------------------------------------------- it goes on


@pytest.mark.parametrize("norm", ["none", "batch"])
def test_resumed_is_uninterrupted_bit_for_bit(
    norm: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 4)  # so that the stop falls in the middle of one
    rhythm = ["train.validate_steps=5", "train.checkpoint_steps=4", "train.warmup_steps=3", "train.kl_warmup=0.5"]
    settings = tiny(photos, *rhythm, f"model.norm={norm}", steps=12)
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        run(settings, tmp_path / "halves")
    assert state(tmp_path / "halves")[1]["step"] == 6
    run(settings, tmp_path / "halves")

    (whole, whole_record), (halves, halves_record) = state(tmp_path / "whole"), state(tmp_path / "halves")
    assert {name.split(".")[0] for name in whole} == {"model", "ema", "optimizer", "tally"}
    assert unequal(whole, halves) == []
    assert whole_record == halves_record and whole_record["step"] == 12
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "halves")
    assert [(r["kind"], r["step"]) for r in records(tmp_path / "whole")] == [
        *[("train", 4), ("validation", 5), ("train", 8), ("validation", 10), ("train", 12), ("validation", 12)]
    ]
    for file in ("model/model.safetensors", "grids/step-00000012.png"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "halves" / file).read_bytes()


def test_moments_lie_in_memory_as_their_parameters_do(photos: Path, tmp_path: Path) -> None:
    """The fused optimiser walks memory: after a reload in another layout it would mix the moments up."""
    settings = tiny(photos, steps=1)
    run(settings, tmp_path / "run")
    again = Trainer(settings, tmp_path / "run").state
    layouts = [(p.stride(), m["exp_avg"].stride(), m["exp_avg_sq"].stride()) for p, m in again.optimizer.state.items()]
    assert layouts and all(len(set(strides)) == 1 for strides in layouts)


def test_a_finished_run_stays_as_it_is_until_it_may_be_longer(
    micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(micro(steps=4), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != "settings.json"}
    run(micro(steps=4), tmp_path / "run")
    assert "this run is finished; raise --steps or --minutes" in capsys.readouterr().err
    assert before.keys() == set((tmp_path / "run").rglob("*")) - {tmp_path / "run" / "settings.json"}
    run(micro(steps=6), tmp_path / "run")
    assert state(tmp_path / "run")[1]["step"] == 6
    assert [r["step"] for r in records(tmp_path / "run") if r["kind"] == "validation"] == [4, 6]


def test_a_run_that_another_process_works_on_is_refused(micro: Micro, tmp_path: Path) -> None:
    """A record lock belongs to a process, so the other one has to be real."""
    (tmp_path / "run").mkdir()
    hold = (
        "import sys, pathlib; from manyfill.files import locked\nwith locked(pathlib.Path(sys.argv[1])): input(print())"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match="is in use by another process"):
            run(micro(steps=1), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        other.kill()
    run(micro(steps=1), tmp_path / "run")  # the kill let go of it


def test_other_settings_on_resuming_are_refused_by_name(micro: Micro, tmp_path: Path) -> None:
    run(micro(), tmp_path / "run")
    with pytest.raises(
        ConfigError, match=r"--out .*run: .*\(seed: 0 -> 1, train\.batch_size: 2 -> 4\); choose another"
    ):
        run(micro("train.batch_size=4", seed=1), tmp_path / "run")
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(ConfigError, match=r"settings\.json"):
        run(micro(), tmp_path / "run")


def test_a_run_that_never_began_leaves_the_folder_free(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(micro(data=["nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(micro(seed=9).to_json())  # of one that died before it saved
    run(micro(), tmp_path / "run")
    assert state(tmp_path / "run")[1]["step"] == 4


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rhythm = tmp_path / "run", "train.checkpoint_steps=3"
    run(micro(rhythm, steps=8), tmp_path / "whole")
    run(micro(rhythm, steps=8), out)
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000008"]
    corrupt(checkpoints(out)[-1])
    with (out / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')  # cut short by a crash
    run(micro(rhythm, steps=8), out)
    warning = capsys.readouterr().err
    assert "warning: " in warning and "step-00000008" in warning and "going on from step 6" in warning
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000008"]
    assert timeless(out) == timeless(tmp_path / "whole"), "the log has neither doubles nor rags"
    assert unequal(state(out)[0], state(tmp_path / "whole")[0]) == []


def test_checkpoints_of_an_abandoned_course_are_dropped(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(micro("train.checkpoint_steps=2", steps=6), out)
    corrupt(checkpoints(out)[-1])
    trainer = Trainer(micro(steps=6), out)
    assert trainer.state.step == 4
    trainer.state.step = 5
    trainer.state.save(out)
    assert [path.name for path in checkpoints(out)] == ["step-00000004", "step-00000005"]


def test_without_a_sound_checkpoint_it_refuses(micro: Micro, tmp_path: Path) -> None:
    run(micro("train.checkpoint_steps=2"), tmp_path / "run")
    for directory in checkpoints(tmp_path / "run"):
        corrupt(directory)
    with pytest.raises(ModelError, match=r"no checkpoint can be read.*--init"):
        run(micro(steps=9), tmp_path / "run")


def test_minutes_are_of_the_clock_and_add_up(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ticking(monkeypatch)
    saves: list[float] = []
    save = RunState.save

    def noted(self: RunState, run: Path) -> None:
        saves.append(self.elapsed)
        save(self, run)

    monkeypatch.setattr(RunState, "save", noted)
    out, rhythm = tmp_path / "run", ["train.validate_minutes=0.1", "train.checkpoint_minutes=0.15"]
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
    rhythm = ["train.validate_steps=3", "train.checkpoint_steps=2", "train.validate_minutes=0.001"]
    run(micro(*rhythm, steps=5), tmp_path / "quick")
    ticking(monkeypatch, 10_000)
    run(micro(*rhythm, steps=5), tmp_path / "slow")
    assert timeless(tmp_path / "quick") == timeless(tmp_path / "slow")
    assert [r["step"] for r in records(tmp_path / "slow") if r["kind"] == "validation"] == [3, 5]


def test_fine_tuning_starts_from_the_given_weights(micro: Micro, tmp_path: Path) -> None:
    run(micro(), tmp_path / "first")
    model = str(tmp_path / "first" / "model")
    given = load_model(model).model.state_dict()
    settings = micro("train.warmup_steps=1000", init=model, steps=2)
    start = initial_state(settings, torch.device("cpu"))
    assert unequal(given, start.model.state_dict()) == unequal(given, start.ema.module.state_dict()) == []
    assert start.model.training and start.step == 0
    run(settings, tmp_path / "second")
    tuned = load_model(tmp_path / "second" / "model").model.state_dict()
    assert 0 < max((tuned[name] - given[name]).abs().max().item() for name in given) < 1e-3
    assert "fine-tuned from model" in (tmp_path / "second" / "model" / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"--init .*model\.\*"):
        run(micro("model.mixtures=3", init=model), tmp_path / "third")


# ------------------------------------------------------------------------------------------------ when it is stopped


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


# --------------------------------------------------------------------------------------------- when steps go wrong


def test_the_guard_refuses_outliers_until_they_are_the_usual() -> None:
    guard = Guard(factor=20)
    assert all(guard.accepts(1.0 + i % 3, 5.0) for i in range(60))
    assert not guard.accepts(100.0, 5.0) and guard.accepts(2.0, 5.0)
    decisions = [guard.accepts(100.0, 5.0) for _ in range(100)]
    first = decisions.index(True)
    assert 10 < first < 60 and all(decisions[first:]) and guard.in_a_row == 0
    assert guard.skipped == 1 + first


@pytest.mark.parametrize(("norm", "loss"), [(math.nan, 5.0), (math.inf, 5.0), (1.0, math.nan), (1.0, 1e10)])
def test_the_guard_never_accepts_a_broken_step(norm: float, loss: float) -> None:
    guard = Guard(factor=20)
    assert not any(guard.accepts(norm, loss) for _ in range(200))
    assert guard.in_a_row == guard.skipped == 200 and not guard.norms
    assert guard.accepts(1.0, 5.0) and guard.in_a_row == 0 and guard.skipped == 200


def test_a_refused_step_leaves_no_trace_but_the_count(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny(photos, "model.norm=batch", steps=9), tmp_path / "run")
    stream = trainer.stream()
    trainer.step(next(stream))
    kept = trainer.state
    tensors = {**kept.model.state_dict(), **{f"ema.{k}": v for k, v in kept.ema.state_dict().items()}}
    before = {name: value.clone() for name, value in tensors.items()}
    batch = next(stream)
    batch.x.fill_(math.nan)
    assert math.isnan(trainer.step(batch))
    assert unequal(before, tensors) == []
    assert (kept.step, kept.guard.skipped, kept.guard.in_a_row) == (2, 1, 1)
    assert math.isfinite(trainer.step(next(stream)))


def test_broken_steps_are_skipped_counted_and_logged(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 2)
    break_when(monkeypatch, lambda trainer: 2 <= trainer.state.step < 5)
    run(micro(steps=6), tmp_path / "run")
    log = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert [r["skipped_steps"] for r in log] == [0, 2, 3]
    assert [r["bits_per_dim"] is None for r in log] == [False, True, False], "null, where a NaN would be no JSON"
    assert log[1]["gradient_norm"] is None and math.isfinite(log[2]["gradient_norm"])


@pytest.mark.parametrize(("rhythm", "back_to"), [("train.checkpoint_steps=4", 4), ("train.checkpoint_steps=100", 0)])
def test_a_diverging_run_goes_back_and_goes_on_at_half_the_rate(
    rhythm: str,
    back_to: int,
    micro: Micro,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    break_when(monkeypatch, lambda trainer: trainer.state.rate == 1 and trainer.state.step >= 5)
    run(micro(rhythm, "train.patience=3", steps=10), tmp_path / "run")
    shown = " ".join(capsys.readouterr().err.split())
    assert f"step 8: diverged; back to step {back_to} at 0.5 times the learning rate" in shown
    record = state(tmp_path / "run")[1]
    assert (record["step"], record["rate"], record["setbacks"]) == (10, 0.5, 1)
    assert record["guard"]["skipped"] == 3 and record["guard"]["in_a_row"] == 0
    assert [r["step"] for r in records(tmp_path / "run") if r["kind"] == "train"] == list(range(1, 11))


def test_it_does_not_go_back_for_ever(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    break_when(monkeypatch, lambda trainer: trainer.state.step >= 5)
    after_step(monkeypatch, lambda trainer: rates.append(trainer.state.rate))
    with pytest.raises(ManyfillError, match=r"keeps diverging at step 7; .*train\.learning_rate") as error:
        run(micro("train.patience=2", "train.checkpoint_steps=2", steps=50), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert [rates.count(rate) for rate in (1, 0.5, 0.25, 0.125)] == [7, 3, 3, 3] and len(rates) == 16
    assert state(tmp_path / "run")[1]["step"] == 4, "what it had is still there"


def test_a_checkpoint_is_not_taken_among_broken_steps(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_when(monkeypatch, lambda trainer: trainer.state.step >= 3)
    with pytest.raises(ManyfillError, match="keeps diverging"):
        run(micro("train.patience=4", "train.checkpoint_steps=1", steps=50), tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000003"


def test_a_batch_without_a_hole_changes_nothing_for_the_worse(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny(photos, steps=9), tmp_path / "run")
    batch = next(trainer.stream())
    batch.m.zero_()
    assert math.isfinite(trainer.step(batch)) and trainer.state.guard.skipped == 0
    assert all(p.isfinite().all() for p in trainer.state.model.parameters())


# --------------------------------------------------------------------------------------- what the disk may refuse


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_stays(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    settings = micro("train.checkpoint_steps=3", steps=9)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        after_step(patch, lambda trainer: trainer.state.step == 4 and patch.setattr(os, "fsync", full))
        with pytest.raises(OutputError, match="No space left on device") as error:
            run(settings, out)
    assert "\n" not in str(error.value)
    assert state(out)[1]["step"] == 3 and load_model(out / "model").figures["steps"] == 3
    assert not [path for path in out.rglob(".*") if path.is_dir()], "nothing half-written is left"
    run(settings, out)
    assert state(out)[1]["step"] == 9


def test_a_log_that_cannot_be_written_ends_in_one_line(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    broken = SimpleNamespace(write=full, flush=lambda: None, close=lambda: None)
    after_step(monkeypatch, lambda trainer: setattr(trainer.monitor, "_log", broken))
    with pytest.raises(OutputError, match=r"--out .*run: cannot be written \(No space left on device\)"):
        run(micro(), tmp_path / "run")


def test_an_out_that_is_no_folder_is_refused(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="file"):
            run(micro(), out)
    assert (tmp_path / "file").read_text() == "mine"


# ------------------------------------------------------------------------------------------------------- the data


def test_without_validation_pictures_some_are_held_back(photos: Path, micro: Micro, tmp_path: Path) -> None:
    source = open_source(photos)
    training, validation = split(source, seed=1)
    names = [{part.name(i) for i in range(len(part))} for part in (training, validation)]
    assert names[0].isdisjoint(names[1]) and len(names[0] | names[1]) == 6 and len(validation) == 1
    assert {training[i].name for i in range(len(training))} == names[0]
    again = split(source, seed=1)[1]
    assert [again.name(i) for i in range(len(again))] == list(names[1])
    trainer = Trainer(micro(), tmp_path / "run")
    seen = {name for batch, _ in zip(trainer.stream(), range(10), strict=False) for name in batch.names}
    assert len(seen) == 5 and trainer.validation.name(0) not in seen


def test_one_picture_is_too_few_to_hold_any_back(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    save_png(tmp_path / "one" / "0.png", smooth(0, 40))
    with pytest.raises(DataError, match=r"one picture only.*--val"):
        run(micro(data=[str(tmp_path / "one")]), tmp_path / "run")
    run(micro(data=[str(tmp_path / "one")], validation=[str(tmp_path / "one")]), tmp_path / "run")


def test_masks_of_ones_own_and_a_black_one_cannot_make_nan(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "black.png", np.zeros((40, 40), bool))
    run(micro(masks=str(tmp_path / "masks"), steps=6), tmp_path / "run")
    assert all(math.isfinite(r["bits_per_dim"]) and not r.get("skipped_steps") for r in records(tmp_path / "run"))
    with pytest.raises(DataError, match="nomasks"):
        run(micro(masks=str(tmp_path / "nomasks")), tmp_path / "other")
    with pytest.raises(ConfigError, match="folder"):
        run(micro("data.masks.folder=1"), tmp_path / "other")
    with pytest.raises(ConfigError, match="unknown kind 'circle'"):
        run(micro("data.masks.circle=1"), tmp_path / "other")


@pytest.fixture
def partly_broken(tmp_path: Path) -> Path:
    folder = tmp_path / "partly"
    folder.mkdir()
    for i in range(5):
        save_png(folder / f"{i}.png", smooth(i, 40))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def test_unreadable_pictures_are_named_once_and_left_out(
    partly_broken: Path, micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = micro(data=[str(partly_broken)], validation=[str(partly_broken)], steps=8)
    run(settings, tmp_path / "run")
    lines = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert [Path(line.split("\t")[0]).name for line in sorted(lines)] == ["broken.png", "empty.jpg"]
    assert all(line.count("\t") == 1 and line.split("\t")[1] for line in lines)
    assert "2 pictures left out" in capsys.readouterr().err
    run(settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 12})}), tmp_path / "run")
    assert (tmp_path / "run" / "skipped.tsv").read_text().splitlines() == lines


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_makes_an_unreadable_picture_an_error(
    workers: int, photos: Path, partly_broken: Path, micro: Micro, tmp_path: Path
) -> None:
    settings = micro(
        f"train.workers={workers}", data=[str(partly_broken)], validation=[str(photos)], strict=True, steps=9
    )
    with pytest.raises(PictureError, match=r"broken\.png|empty\.jpg"):
        run(settings, tmp_path / "run")


def test_data_that_cannot_be_used_is_refused_before_a_step(photos: Path, micro: Micro, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    for folder in (empty, broken):
        folder.mkdir()
    (broken / "0.png").write_bytes(b"no picture")
    for flags, words in (
        ({"data": []}, "no data given"),
        ({"data": [str(empty)]}, "empty: no pictures"),
        ({"validation": [str(empty)]}, "empty: no pictures"),
        ({"validation": [str(broken)]}, "no validation picture can be read"),
    ):
        with pytest.raises(DataError, match=words):
            run(micro(**flags), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="can be read"):
        run(micro(data=[str(broken)], validation=[str(photos)]), tmp_path / "run")


# --------------------------------------------------------------------------------------------------- what it tells


def test_the_run_directory_holds_what_it_promises(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(micro("train.validate_steps=2", steps=4), out)
    assert {path.name for path in out.iterdir()} == {
        *(".lock", "settings.json", "log.jsonl", "tensorboard", "checkpoints", "grids", "model")
    }
    assert {path.name for path in (out / "grids").iterdir()} == {"step-00000002.png", "step-00000004.png"}
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    loaded = load_model(out / "model")
    last = records(out)[-1]
    expected = {name: value for name, value in last.items() if name.startswith(("bits", "pixel", "kl"))}
    assert loaded.figures.items() >= {"steps": 4, "validation_step": 4, **expected}.items() and "kl_02" in expected
    assert last["bits_per_dim"] == pytest.approx(last["pixel_bits"] + last["kl_01"] + last["kl_02"])
    card = loaded.card
    for words in ("manyfill fill photo.png --mask mask.png --model", "`photos`", "4 steps", "## Limits"):
        assert words in card
    assert f"**{last['bits_per_dim']:.4f}**" in card or f"{last['bits_per_dim']:.4f} bits" in card
    assert f"| 4 | 0.00 | {last['bits_per_dim']:.4f} |" in card and str(tmp_path) not in card


def test_the_card_is_the_same_for_the_same_run_and_thins_its_curve(micro: Micro) -> None:
    kl = {"kl_01": 0.25, "kl_02": 0.75}
    passes = [
        {"kind": "validation", "step": i, "elapsed": 36.0 * i, "bits_per_dim": 5.0, "pixel_bits": 4.0, **kl}
        for i in range(1, 101)
    ]
    cards = {write_card(micro(), 100, 3600.0, 5, passes) for _ in range(2)}
    assert len(cards) == 1
    rows = [line for line in cards.pop().splitlines() if line.endswith("| 5.0000 | 4.0000 | 1.0000 |")]
    assert 8 <= len(rows) <= 12 and rows[-1].startswith("| 100 | 1.00 |")
    assert "No validation pass yet" in write_card(micro(), 1, 1.0, 5, [])
    assert "No validation pass yet" in write_card(micro(), 1, 1.0, 5, [{**passes[0], "bits_per_dim": None}])


def test_the_display_shows_rate_bits_levels_and_time_left(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    monitor = Monitor(tmp_path, ["1 (4x4)", "2 (8x8)"], console)
    figures = {"bits_per_dim": 5.5, "pixel_bits": 4.25, "kl_01": 0.5, "kl_02": 0.75, "skipped_steps": 2}
    with monitor:
        monitor.start(0)
        monitor.record("validation", 10, {**figures, "kl_01": 0.625})
        monitor.note("[a note] in full")
        monitor.show(20, 0.25, 37.4, 3725, figures)
    shown = screen.getvalue()
    for words in (
        "step 20  25.0%",
        "5.500 bits/dim",
        "pixels 4.250",
        "2 steps skipped",
        "37 pictures/s",
        "1:02:05 left",
    ):
        assert words in shown
    for words in ("1 (4x4)", "0.5000", "0.6250", "2 (8x8)", "0.7500", "[a note] in full", "validation 5.5000 bits/dim"):
        assert words in shown


def test_without_a_terminal_there_is_a_line_now_and_then_unbroken(tmp_path: Path) -> None:
    screen = io.StringIO()
    monitor = Monitor(tmp_path, ["1 (4x4)"], Console(file=screen, width=40))
    for step in range(5):
        monitor.show(step, 0.5, 3.14, 59.6, {})
    assert screen.getvalue() == "step 0  50.0%  3.1 pictures/s  1:00 left\n"


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


def test_slow_bfloat16_is_remarked_on(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda _: False)
    run(micro("train.precision=bfloat16", steps=1), tmp_path / "run")
    assert "bfloat16 is slow on this processor" in capsys.readouterr().err
    assert math.isfinite(records(tmp_path / "run")[-1]["bits_per_dim"])


def test_a_tally_divides_once() -> None:
    tally = Tally(2, torch.device("cpu"))
    assert math.isnan(tally.figures()["bits_per_dim"])
    for pixels, dims in ((-6.0, 2.0), (-12.0, 10.0)):
        tally.add(
            Bound(torch.tensor([pixels]), torch.tensor([[1.0, 2.0]]), torch.tensor([dims]), torch.tensor([[4.0]]))
        )
    bit = math.log(2)
    assert tally.figures() == pytest.approx(
        {"bits_per_dim": 2 / bit, "pixel_bits": 1.5 / bit, "kl_01": 2 / 12 / bit, "kl_02": 4 / 12 / bit, "nested": 4}
    )
