"""An evaluation from its request to its rows: every method on every picture under every kind of hole, resumable.

A row is written as soon as a picture is done, so that an interrupted evaluation goes on where it stopped.
"""

import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyfill import __version__
from manyfill.checkpoint import digest
from manyfill.data import Source, open_source
from manyfill.device import autocast
from manyfill.diagnostics import spread
from manyfill.errors import ConfigError, DataError, OutputError
from manyfill.evaluate.baselines import COMMAND, Method, inpaint, methods
from manyfill.evaluate.cases import Case, Cases, first, kinds
from manyfill.evaluate.crew import Crew
from manyfill.evaluate.figures import Row, of_fills, of_guess
from manyfill.evaluate.perceptual import Lpips
from manyfill.files import locked, make_folder, save_text
from manyfill.images import to_tensor
from manyfill.manifest import sha256
from manyfill.masks import MaskFolder
from manyfill.pipeline import Filler

DEFAULT_BASELINES = ("opencv,biharmonic,mean",)
SPREAD_PICTURES, SPREAD_DRAWS = 16, 8
CALIBRATION_PICTURES = 32
Progress = Callable[[Sequence[int], str], Iterator[int]]
"""`progress(numbers, what)`: the numbers one by one, shown as they go."""


@dataclass(frozen=True)
class Request:
    """What to evaluate: models by name, data, kinds of holes, and how many fills and bound samples a picture."""

    models: dict[str, Filler]
    data: tuple[Path, ...]
    masks: str | None = None
    mask_dir: Path | None = None
    samples: int = 39
    bound_samples: int = 64
    limit: int | None = None
    baselines: tuple[str, ...] = DEFAULT_BASELINES
    lpips: Path | None = None
    calibrate: bool = False
    seed: int = 0

    def __post_init__(self) -> None:
        if self.samples < 2:
            raise ConfigError(f"--samples {self.samples}: a distribution takes 2 or more; 39 gives exact intervals")
        if self.bound_samples < 1:
            raise ConfigError(f"--bound-samples {self.bound_samples}: must be 1 or more")
        channels = {name: filler.model.config.channels for name, filler in self.models.items()}
        if len(set(channels.values())) > 1:
            told = ", ".join(f"{name} has {count}" for name, count in channels.items())
            raise ConfigError(f"models of different channels cannot share a table: {told}; evaluate them apart")


@dataclass(frozen=True)
class Evaluation:
    """A request with its data and methods at hand, and the folder that its rows are kept in."""

    request: Request
    out: Path

    @cached_property
    def source(self) -> Source:
        return open_source(*self.request.data)

    @cached_property
    def calibration(self) -> list[int]:
        """The numbers of the pictures to calibrate on, spread over the data: half of a small set, none if not asked."""
        total = len(self.source)
        count = min(CALIBRATION_PICTURES, total // 2) if self.request.calibrate else 0
        return list(range(0, total, total // count))[:count] if count else []

    @cached_property
    def numbers(self) -> Sequence[int]:
        """The numbers of the pictures to evaluate: not those of the calibration."""
        kept = set(self.calibration)
        if self.request.calibrate and not kept:
            raise DataError("--calibrate: takes some pictures, and the data holds one only; give more")
        left = [number for number in range(len(self.source)) if number not in kept]
        return first(left, self.request.limit)

    @cached_property
    def kinds(self) -> list[str]:
        return kinds(self.request.masks, self.request.mask_dir)

    @cached_property
    def mask_folder(self) -> MaskFolder | None:
        return None if self.request.mask_dir is None else MaskFolder(self.request.mask_dir)

    @cached_property
    def baselines(self) -> dict[str, Method]:
        return methods(self.request.baselines)

    @cached_property
    def lpips(self) -> Lpips | None:
        return None if self.request.lpips is None else Lpips.load(self.request.lpips)

    @property
    def channels(self) -> int:
        return next(iter(self.request.models.values())).model.config.channels

    @property
    def size(self) -> int:
        """That of the largest model; smaller ones shrink the pictures, as they do for any user."""
        return max(filler.model.config.size for filler in self.request.models.values())

    def cases(
        self, kind: str, *, numbers: Sequence[int] | None = None, source: Source | None = None, size: int | None = None
    ) -> Cases:
        """The request's cases of one kind; or other pictures, or another size, under the same kind of holes."""
        numbers = self.numbers if numbers is None else numbers
        source, size = source or self.source, size or self.size
        return Cases(source, kind, size, self.channels, numbers, self.request.seed, self.mask_folder)

    def check(self) -> None:
        """Whether all that is asked for is there; raises ManyfillError. Nothing is written."""
        names = [*self.request.models, *self.baselines]
        if len({slug(name) for name in names}) < len(names):
            raise ConfigError(f"models or baselines share a name: {', '.join(names)}; rename a folder or a command")
        if self.mask_folder:
            self.mask_folder.check()
        _ = self.kinds, self.numbers, self.lpips

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Hold the folder for this process, if its rows are of this evaluation; raises ManyfillError."""
        make_folder(self.out)
        with locked(self.out):
            self._agree(self._identity(), {"commands": self._commands()})
            yield

    def run(self, progress: Progress, workers: int = 1) -> None:
        """Work out every row that is not there yet, in so many processes; raises ManyfillError."""
        digests = {name: digest(filler.model) for name, filler in self.request.models.items()}
        self._agree({}, {"models": digests})
        make_folder(self.out / "rows")
        with Crew(workers, self) as crew:
            for kind in self.kinds:
                for name in (*self.request.models, *self.baselines):
                    self._extend(name, kind, progress, crew)

    def row(self, name: str, kind: str, place: int) -> Row:
        """The figures of a method on one picture."""
        case = self.cases(kind)[place]
        if name in self.request.models:
            return self._model_row(self.request.models[name], case)
        return self._guess_row(self.baselines[name], case)

    def rows(self, name: str, kind: str) -> list[Row]:
        """A method's rows, in order of their pictures."""
        return self._stored(name, kind)[: len(self.numbers)]

    def _stored(self, name: str, kind: str) -> list[Row]:
        path = self._file(name, kind)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        # An interruption may have cut the last line short.
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def _extend(self, name: str, kind: str, progress: Progress, crew: Crew) -> None:
        found, path = self._stored(name, kind), self._file(name, kind)
        save_text(path, "".join(map(_line, found)))
        left = range(len(found), len(self.numbers))
        rows = crew.each(_row, [(name, kind, place) for place in left])
        for _ in progress(left, f"{name}, {kind}"):
            line = _line(next(rows))
            try:
                with path.open("a", encoding="utf-8") as file:
                    file.write(line)
            except OSError as error:
                raise OutputError(f"{path}: cannot be written ({error.strerror}); free space, then run again") from None

    def _model_row(self, filler: Filler, case: Case) -> Row:
        samples, bound_samples = self.request.samples, self.request.bound_samples
        completions = filler(case.pixels, case.mask, samples, case.seed, truth=case.pixels, bound_samples=bound_samples)
        row = of_fills(case, completions) | self._perceived(case, completions.mean, completions.images[0])
        if case.index in self.numbers[:SPREAD_PICTURES]:
            row["spread"] = _spread(filler, case)
        return row

    def _guess_row(self, method: Method, case: Case) -> Row:
        guess = inpaint(method, case.pixels, case.mask)
        return of_guess(case, guess) | self._perceived(case, np.rint(guess).astype(np.uint8))

    def _perceived(self, case: Case, mean: np.ndarray, one: np.ndarray | None = None) -> Row:
        if self.lpips is None:
            return {}
        guesses = {"lpips_mean": mean} | ({} if one is None else {"lpips_one": one})
        pictures = torch.stack([to_tensor(guess) for guess in guesses.values()])
        with torch.inference_mode():
            distances = self.lpips(pictures, to_tensor(case.pixels)[None].expand_as(pictures))
        return dict(zip(guesses, distances.tolist(), strict=True))

    def _file(self, name: str, kind: str) -> Path:
        return self.out / "rows" / f"{slug(name)}.{kind}.jsonl"

    def _agree(self, fixed: dict[str, Any], named: dict[str, dict[str, str]]) -> None:
        """Record what rows depend on, or refuse if it differs from what is recorded; to `named` more may be added."""
        path = self.out / "request.json"
        try:
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError):
            raise DataError(f"{path}: cannot be read; choose another --out") from None
        if not before and not (self.out / "rows").exists():
            before = dict(fixed)
        changed = [key for key in fixed if before.get(key) != fixed[key]]
        for group, wanted in named.items():
            there = before.get(group, {})
            changed += [name for name in wanted if there.get(name, wanted[name]) != wanted[name]]
            before[group] = there | wanted
        if changed:
            raise ConfigError(
                f"--out {self.out}: holds another evaluation ({', '.join(changed)} differ); choose another folder"
            )
        save_text(path, json.dumps(before, indent=2) + "\n")

    def _identity(self) -> dict[str, Any]:
        """What fixes a row, but for the model or the command."""
        request, pictures = self.request, (self.source.name(number) for number in range(len(self.source)))
        return {
            "version": __version__,
            "pictures": sha256(name.encode() for name in pictures),
            "size": self.size,
            "channels": self.channels,
            "samples": request.samples,
            "bound_samples": request.bound_samples,
            "masks": self.mask_folder and sha256(path.read_bytes() for path in self.mask_folder.paths),
            "lpips": request.lpips and sha256([request.lpips.read_bytes()]),
            "calibrate": request.calibrate,
            "seed": request.seed,
        }

    def _commands(self) -> dict[str, str]:
        return {name: item for item in self.request.baselines if item.startswith(COMMAND) for name in methods([item])}


def slug(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)


@torch.inference_mode()
def _spread(filler: Filler, case: Case) -> list[float]:
    known = filler.condition(case.pixels, case.mask)
    with autocast(filler.device):
        return [float(level) for level in spread(filler.model, known, SPREAD_DRAWS, case.seed)[:, 0]]


def _row(evaluation: Evaluation, task: tuple[str, str, int]) -> Row:
    return evaluation.row(*task)


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"
