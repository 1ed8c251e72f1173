"""A run's state on disk: RUN/checkpoints/step-N (the last two), from which the run goes on exactly where it stood."""

import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.optim.swa_utils import AveragedModel

from manyfill.checkpoint import load_state, save_state
from manyfill.errors import ModelError
from manyfill.files import sweep
from manyfill.manifest import clear_leftovers, delete_directory, read_directory
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.pretrained import PretrainedText
from manyfill.models.tokens import Vocabulary
from manyfill.train.optim import Guard
from manyfill.train.tally import Tally


@dataclass
class RunState:
    """All that changes during a run.

    `tally` is what the next line of the log has gathered so far, `elapsed` the seconds of training in all, with
    validation and saving; `rate` scales the learning rate and is halved at each of the `setbacks`. `origin` tells what
    run it is of: its settings, its data and its last validation. Draws need no state, as they count by step.
    """

    model: ConditionalHVAE
    ema: AveragedModel
    optimizer: torch.optim.Optimizer
    guard: Guard
    tally: Tally
    step: int = 0
    elapsed: float = 0.0
    rate: float = 1.0
    setbacks: int = 0
    origin: dict[str, Any] = field(default_factory=dict)

    def save(self, run: Path, keep: int = 2) -> None:
        """Write RUN/checkpoints/step-N and drop what is out of date; OutputError, and nothing lost, if it cannot be."""
        tensors = {f"model.{name}": value for name, value in self.model.state_dict().items()}
        tensors |= {f"ema.{name}": value for name, value in self.ema.state_dict().items()}
        for index, entry in self.optimizer.state_dict()["state"].items():
            tensors |= {f"optimizer.{index}.{key}": value for key, value in entry.items()}
        tensors["tally"] = self.tally.sums
        newest = run / "checkpoints" / f"step-{self.step:08d}"
        save_state(newest, tensors, self._record())
        # A later one was damaged and passed over: what it held is being trained anew.
        kept = [directory for directory in checkpoints(run) if directory.name <= newest.name][-keep:]
        for directory in checkpoints(run):
            if directory not in kept:
                delete_directory(directory)

    def load(self, directory: Path) -> None:
        """Take over what `save` wrote; ModelError if it is damaged, and then nothing is changed."""
        tensors, record = load_state(directory)
        self.model.load_state_dict(_under(tensors, "model."))
        self.ema.load_state_dict(_under(tensors, "ema."))
        self._load_moments(_under(tensors, "optimizer."))
        self.tally.clear()
        if "tally" in tensors:
            self.tally.sums.copy_(tensors["tally"])
        self.guard.restore(record["guard"])
        self.step, self.elapsed = record["step"], record["elapsed"]
        self.rate, self.setbacks = record["rate"], record["setbacks"]
        self.origin = record.get("origin", {})
        if "vocabulary" in record:
            assert self.model.config.captions is not None
            kind = PretrainedText if self.model.config.captions.encoder else Vocabulary
            self.read_by(kind.of(record["vocabulary"]))

    def read_by(self, vocabulary: Vocabulary | PretrainedText) -> None:
        """Give the model its vocabulary."""
        assert isinstance(self.ema.module, ConditionalHVAE)
        self.model.vocabulary = self.ema.module.vocabulary = vocabulary

    def _load_moments(self, tensors: dict[str, Tensor]) -> None:
        moments: dict[int, dict[str, Tensor]] = {}
        for name, value in tensors.items():
            index, key = name.split(".", 1)
            moments.setdefault(int(index), {})[key] = value
        groups = self.optimizer.state_dict()["param_groups"]
        self.optimizer.load_state_dict({"state": moments, "param_groups": groups})
        for parameter, entry in self.optimizer.state.items():
            for key, value in entry.items():
                if value.shape == parameter.shape:
                    # The fused update walks memory, not indices: a moment must lie there as its parameter does.
                    entry[key] = torch.empty_like(parameter).copy_(value)

    def _record(self) -> dict[str, Any]:
        vocabulary = self.model.vocabulary
        return {
            "step": self.step,
            "elapsed": self.elapsed,
            "rate": self.rate,
            "setbacks": self.setbacks,
            "guard": self.guard.state(),
            "origin": self.origin,
            **({} if vocabulary is None else {"vocabulary": vocabulary.text}),
        }


def checkpoints(run: Path) -> list[Path]:
    """The run's checkpoints, oldest first."""
    return sorted((run / "checkpoints").glob("step-*"))


def tidy(run: Path) -> None:
    """Delete what a killed process left half-written; the run must be locked."""
    for folder in (run, run / "checkpoints", run / "grids"):
        clear_leftovers(folder)
        sweep(folder)


def best_so_far(run: Path) -> float:
    """The validation bound, in bits per hole value, of the model in RUN/best; infinite if there is none to be read."""
    try:
        return float(json.loads(read_directory(run / "best", "")["figures.json"])["bits_per_dim"])
    except (ModelError, KeyError, ValueError):
        return math.inf


def load_newest(run: Path, state: RunState) -> list[str]:
    """Go on from the newest readable checkpoint, if any; returns a warning for each damaged one passed over."""
    warnings: list[str] = []
    for directory in reversed(checkpoints(run)):
        try:
            state.load(directory)
            return warnings
        except ModelError as error:
            reason = str(error).partition(";")[0]
            warnings.append(f"{reason}; going on from the checkpoint before")
    if warnings:
        raise ModelError(f"{run}: no checkpoint can be read; start a new run elsewhere, with --init {run}/model")
    return warnings


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}
