"""A run's state on disk: RUN/checkpoints/step-N (the last two), from which the run goes on exactly where it stood."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from manyfill.checkpoint import load_state, save_state
from manyfill.errors import ModelError
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train.optim import Guard


@dataclass
class RunState:
    """All that changes during a run. `elapsed` is training time in seconds, `rate` scales the learning rate."""

    model: ConditionalHVAE
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    guard: Guard
    step: int = 0
    elapsed: float = 0.0
    rate: float = 1.0
    setbacks: int = 0

    def save(self, run: Path, keep: int = 2) -> None:
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        save_state(run / "checkpoints" / f"step-{self.step:08d}", tensors, self._record())
        for old in checkpoints(run)[:-keep]:
            shutil.rmtree(old, ignore_errors=True)

    def load(self, directory: Path) -> None:
        tensors, record = load_state(directory)
        self.model.load_state_dict(_under(tensors, "model."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in _under(tensors, "optimizer.").items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        self.guard.restore(record["guard"])
        self.step, self.elapsed = record["step"], record["elapsed"]
        self.rate, self.setbacks = record["rate"], record["setbacks"]

    def _record(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            "rate": self.rate,
            "setbacks": self.setbacks,
            "guard": self.guard.state(),
        }


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def load_newest(run: Path, state: RunState) -> list[str]:
    """Go on from the newest readable checkpoint, if any; returns a warning for each damaged one passed over."""
    warnings = []
    for directory in reversed(checkpoints(run)):
        try:
            state.load(directory)
            return warnings
        except ModelError as error:
            warnings.append(f"{error}; trying the one before")
    if warnings:
        raise ModelError(f"{run}: no checkpoint can be read; start a new run elsewhere, with --init {run}/model")
    return warnings


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
