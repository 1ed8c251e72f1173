"""Training: it learns, it goes on bit for bit where it stopped, and it survives what goes wrong on the way."""

import errno
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
from torch import Tensor

import manyfill
from manyfill.checkpoint import load_model, load_state
from manyfill.data import Batch, open_source
from manyfill.errors import ConfigError, DataError, ManyfillError, ModelError, OutputError, PictureError
from manyfill.images import save_png
from manyfill.masks import write_mask
from manyfill.models.bound import Bound
from manyfill.train import loop, optim
from manyfill.train.held_out import split
from manyfill.train.loop import Trainer, run
from manyfill.train.optim import Guard, learning_rate
from manyfill.train.settings import Settings, TrainSettings, load
from manyfill.train.setup import initial_state
from manyfill.train.state import checkpoints

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


def corrupt(directory: Path) -> None:
    file = directory / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


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


def test_it_overfits_one_small_batch_to_below_two_bits(tmp_path: Path) -> None:
    folder = tmp_path / "four"
    folder.mkdir()
    for i in range(4):
        save_png(folder / f"{i}.png", smooth(i, 32))
    recipe = ["train.batch_size=4", "train.learning_rate=8e-3", "train.warmup_steps=20", "train.validation_pictures=4"]
    data = ["data.masks={centre=1}", "data.flip=false", "data.guide_probability=0"]
    run(tiny(folder, *recipe, *data, steps=OVERFIT_STEPS, validation=[str(folder)]), tmp_path / "run")
    first, *_, last, validation = records(tmp_path / "run")
    assert first["bits_per_dim"] > 6, "or the test shows nothing"
    assert validation["kind"] == "validation" and validation["step"] == OVERFIT_STEPS
    assert last["bits_per_dim"] < 2 and validation["bits_per_dim"] < 2


OVERFIT_STEPS = 240

# Bits per dimension at each of the first 20 steps. A change that alters them on purpose puts in what the test prints.
GOLDEN: list[float] = []


def test_the_first_twenty_losses_are_the_golden_ones(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    run(tiny(photos, "train.warmup_steps=5", steps=20, seed=3), tmp_path / "run")
    trace = [r["bits_per_dim"] for r in records(tmp_path / "run") if r["kind"] == "train"]
    np.testing.assert_allclose(trace, GOLDEN, rtol=0, atol=2e-3, err_msg=f"now {[round(bits, 4) for bits in trace]}")
