"""An evaluation from its request to its rows: every method on every picture under every kind of hole, resumable.

A row is written as soon as a picture is done, so that an interrupted evaluation goes on where it stopped and memory
does not grow with the number of pictures.
"""

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyfill.data import Source, open_source
from manyfill.device import autocast
from manyfill.diagnostics import spread
from manyfill.errors import ConfigError, DataError, OutputError
from manyfill.evaluate.baselines import Method, inpaint, methods
from manyfill.evaluate.cases import FOLDER, Case, Cases, kinds, number
from manyfill.evaluate.figures import Row, of_fills, of_guess
from manyfill.evaluate.perceptual import Lpips
from manyfill.files import locked, make_folder, save_text
from manyfill.images import to_tensor
from manyfill.masks import MaskFolder
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler

DEFAULT_BASELINES = ("opencv,biharmonic,mean",)
SPREAD_PICTURES, SPREAD_DRAWS = 16, 8
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
    def count(self) -> int:
        return number(self.source, self.request.limit)

    @cached_property
    def kinds(self) -> list[str]:
        return kinds(self.request.masks, self.request.mask_dir)

    @cached_property
    def baselines(self) -> dict[str, Method]:
        return methods(self.request.baselines)

    @cached_property
    def lpips(self) -> Lpips | None:
        return None if self.request.lpips is None else Lpips.load(self.request.lpips)

    def cases(self, kind: str, source: Source | None = None, first: int = 0, count: int | None = None) -> Cases:
        """The request's cases of one kind, or of another source and stretch under the same kind of holes."""
        configs = [filler.model.config for filler in self.request.models.values()]
        folder = MaskFolder(self.request.mask_dir) if kind == FOLDER and self.request.mask_dir else None
        size, channels = max(config.size for config in configs), configs[0].channels
        count = self.count if count is None else count
        return Cases(source or self.source, kind, size, channels, count, self.request.seed, folder, first)

    def run(self, progress: Progress) -> None:
        """Work out every row that is not there yet; raises ManyfillError."""
        self._check()
        with locked(self.out):
            self._work(progress)

    def _work(self, progress: Progress) -> None:
        for kind in self.kinds:
            cases = self.cases(kind)
            for name, filler in self.request.models.items():
                self._extend(name, cases, progress, lambda case, filler=filler: self._model_row(filler, case))
            for name, method in self.baselines.items():
                self._extend(name, cases, progress, lambda case, method=method: self._guess_row(method, case))

    def rows(self, name: str, kind: str) -> list[Row]:
        """What is there already of a method's rows, in order of their pictures."""
        path = self._file(name, kind)
        lines = path.read_text(encoding="utf-8").splitlines(keepends=True) if path.is_file() else []
        # An interruption may have cut the last line short.
        return [json.loads(line) for line in lines if line.endswith("\n")][: self.count]

    def _extend(self, name: str, cases: Cases, progress: Progress, row: Callable[[Case], Row]) -> None:
        found = self.rows(name, cases.kind)
        path = self._file(name, cases.kind)
        try:
            save_text(path, "".join(map(_line, found)))
            with path.open("a", encoding="utf-8") as file:
                for index in progress(range(len(found), len(cases)), f"{name}, {cases.kind}"):
                    file.write(_line(row(cases[index])))
                    file.flush()
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); free space, then run again") from None

    def _model_row(self, filler: Filler, case: Case) -> Row:
        request = self.request
        completions = filler(
            case.pixels,
            case.mask,
            request.samples,
            request.seed,
            truth=case.pixels,
            bound_samples=request.bound_samples,
        )
        row = of_fills(case, completions) | self._perceived(case, completions.mean, completions.images[0])
        if case.index < SPREAD_PICTURES:
            row["spread"] = _spread(filler, case, request.seed)
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
        return self.out / "rows" / f"{_slug(name)}.{kind}.jsonl"

    def _check(self) -> None:
        """Whether everything asked for is there, and the folder's rows, if any, are of this evaluation."""
        names = [*self.request.models, *self.baselines]
        if len({_slug(name) for name in names}) < len(names):
            raise ConfigError(f"models or baselines share a name: {', '.join(names)}; rename a folder or a command")
        path, wanted, _ = self.out / "request.json", self._identity(), self.lpips
        if FOLDER in self.kinds:
            assert self.request.mask_dir is not None
            MaskFolder(self.request.mask_dir).check()
        make_folder(self.out / "rows")
        try:
            before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        except (OSError, ValueError):
            raise DataError(f"{path}: cannot be read; choose another --out") from None
        if not before and not any((self.out / "rows").iterdir()):
            before = wanted
        changed = [key for key in wanted if key != "models" and before.get(key) != wanted[key]]
        models = before.get("models", {})
        changed += [name for name, digest in wanted["models"].items() if models.get(name, digest) != digest]
        if changed:
            raise ConfigError(
                f"--out {self.out}: holds another evaluation ({', '.join(changed)} differ); choose another folder"
            )
        save_text(path, json.dumps(wanted | {"models": models | wanted["models"]}, indent=2) + "\n")

    def _identity(self) -> dict[str, Any]:
        """What fixes a row. More kinds of holes, baselines and models may join the same folder."""
        request = self.request
        return {
            "data": [path.name for path in request.data],
            "pictures": len(self.source),
            "size": self.cases(self.kinds[0]).size,
            "samples": request.samples,
            "bound_samples": request.bound_samples,
            "mask_dir": request.mask_dir and request.mask_dir.name,
            "lpips": request.lpips and request.lpips.name,
            "seed": request.seed,
            "models": {name: digest(filler.model) for name, filler in request.models.items()},
        }


def digest(model: ConditionalHVAE) -> str:
    """A model's fingerprint: SHA-256 of its config and weights."""
    found = hashlib.sha256(model.config.to_json().encode())
    for name, tensor in sorted(model.state_dict().items()):
        found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
    return found.hexdigest()


@torch.inference_mode()
def _spread(filler: Filler, case: Case, seed: int) -> list[float]:
    with autocast(filler.device):
        known = filler.condition(case.pixels, case.mask)
        return [float(level) for level in spread(filler.model, known, SPREAD_DRAWS, seed)[:, 0]]


def _line(row: Row) -> str:
    return json.dumps(row, allow_nan=False) + "\n"


def _slug(name: str) -> str:
    return "".join(letter if letter.isalnum() or letter in "-_" else "-" for letter in name)
