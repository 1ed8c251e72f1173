"""What the tests of training share: pictures, settings, what a run left behind, and ways to disturb it."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from manyfill.checkpoint import load_state
from manyfill.data import Batch
from manyfill.train import engine
from manyfill.train.loop import Trainer
from manyfill.train.settings import Settings, load
from manyfill.train.state import checkpoints

Micro = Callable[..., Settings]


def smooth(index: int, size: int) -> np.ndarray:
    """A picture of soft colours, uint8 (size, size, 3), by integer arithmetic alone."""
    y, x = np.mgrid[:size, :size] * 255 // size
    a, b, c = (index * 37 + 11) % 97, (index * 53 + 29) % 97, (index * 71 + 5) % 97
    bands = np.stack([(a * x + (97 - a) * y) // 97, (b * y + (97 - b) * (255 - x)) // 97, (c * x + 128 * y) // 225], -1)
    return (40 + bands * 170 // 255).astype(np.uint8)


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


def after_step(monkeypatch: pytest.MonkeyPatch, act: Callable[[Trainer], object]) -> None:
    """Have something happen after each step."""
    step = Trainer.step

    def stepped(self: Trainer, batch: Batch) -> float:
        norm = step(self, batch)
        act(self)
        return norm

    monkeypatch.setattr(Trainer, "step", stepped)


def stop_at(monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    after_step(monkeypatch, lambda trainer: setattr(trainer, "asked_to_stop", trainer.state.step == step))


def break_when(monkeypatch: pytest.MonkeyPatch, broken: Callable[[Trainer], bool]) -> None:
    """Make the loss of some steps NaN."""
    now: list[Trainer] = []
    step, objective = Trainer.step, engine.objective

    def stepped(self: Trainer, batch: Batch) -> float:
        now[:] = [self]
        return step(self, batch)

    def spoilt(*arguments: Any) -> Tensor:
        loss = objective(*arguments)
        return loss * math.nan if broken(now[0]) else loss

    monkeypatch.setattr(Trainer, "step", stepped)
    monkeypatch.setattr(engine, "objective", spoilt)
