"""The evaluate command: from what a user asks for to a report, step by step."""

import importlib.util
import json
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from time import monotonic
from typing import Any

from rich.console import Console
from rich.progress import track

from manyfill.checkpoint import digest, save_temperatures
from manyfill.data import Source, open_source
from manyfill.errors import ConfigError, DataError, ManyfillError
from manyfill.evaluate import memorisation
from manyfill.evaluate.crew import usual_size
from manyfill.evaluate.inception import Inception
from manyfill.evaluate.page import estimate_of
from manyfill.evaluate.perceptual import Lpips
from manyfill.evaluate.publish import Extras, publish
from manyfill.evaluate.report import read
from manyfill.evaluate.run import DEFAULT_BASELINES, Evaluation, Request
from manyfill.evaluate.sets import distances
from manyfill.evaluate.summary import regressions
from manyfill.evaluate.temperatures import fit
from manyfill.files import save_text
from manyfill.locate import stored_at
from manyfill.pipeline import Filler

MEMORISATION_PICTURES = 100
SHOWN = 8
SECONDS_BETWEEN_LINES = 30.0
WORSE = 1
NEEDED = {"skimage": "scikit-image", "cv2": "OpenCV", "matplotlib": "matplotlib"}
HEADLINE = {
    "psnr_mean": "PSNR {} dB",
    "crps": "CRPS {}",
    "coverage.90": "90 % covers {}",
    "bits_per_dim": "{} bits/dim",
}


@dataclass(frozen=True)
class Options:
    """What the command line was given, models and data as written there."""

    models: tuple[str, ...]
    data: tuple[Path, ...]
    out: Path
    masks: str | None = None
    mask_dir: Path | None = None
    samples: int = 39
    bound_samples: int = 64
    limit: int | None = None
    baselines: tuple[str, ...] = DEFAULT_BASELINES
    calibrate: bool = False
    training: tuple[Path, ...] = ()
    show: tuple[Path, ...] = ()
    lpips: Path | None = None
    inception: Path | None = None
    against: Path | None = None
    workers: int | None = None
    seed: int = 0


def evaluate(options: Options, report: Callable[[str], None]) -> int:
    """Run an evaluation and tell its headline figures line by line; returns the exit code. Raises ManyfillError."""
    _check_packages()
    before = None if options.against is None else read(options.against)
    evaluation = Evaluation(_request(options), options.out)
    workers = _workers(options, evaluation)
    # All that may be missing is asked for before the work begins.
    evaluation.check()
    homes = [stored_at(source) for source in options.models] if options.calibrate else []
    training = open_source(*options.training) if options.training else None
    show = open_source(*options.show) if options.show else None
    inception = None if options.inception is None else Inception.load(options.inception)
    if inception and len(evaluation.numbers) < 2:
        raise DataError("--inception: FID and KID are of sets; evaluate two or more pictures")
    with evaluation.claimed():
        for filler, home in zip(evaluation.request.models.values(), homes, strict=False):
            report(_calibrated(evaluation, filler, home, workers))
        evaluation.run(_progress, workers)
        found = publish(evaluation, _extras(evaluation, training, show, inception))
    for line in _headline(found):
        report(line)
    report(f"open {options.out / 'report.html'}")
    worse = [] if before is None else regressions(found, before)
    for line in worse:
        report(f"worse: {line}")
    return WORSE if worse else 0


def _check_packages() -> None:
    missing = [name for module, name in NEEDED.items() if importlib.util.find_spec(module) is None]
    if missing:
        raise ManyfillError(f"evaluate needs {', '.join(missing)}: pip install 'manyfill[evaluate]'")


def _request(options: Options) -> Request:
    if not options.models:
        raise ConfigError("no model given; name one before the data: default, a model directory or a hub id")
    return Request(
        models={name: Filler.from_pretrained(source) for name, source in _named(options.models).items()},
        data=options.data,
        masks=options.masks,
        mask_dir=options.mask_dir,
        samples=options.samples,
        bound_samples=options.bound_samples,
        limit=options.limit,
        baselines=options.baselines,
        lpips=options.lpips,
        calibrate=options.calibrate,
        seed=options.seed,
    )


def _workers(options: Options, evaluation: Evaluation) -> int:
    if options.workers is not None and options.workers < 1:
        raise ConfigError(f"--workers {options.workers}: must be 1 or more")
    return options.workers or usual_size(next(iter(evaluation.request.models.values())).device)


def _named(sources: Sequence[str]) -> dict[str, str]:
    """Models by a short name: where a directory lies on this machine is nobody's business."""
    names: dict[str, str] = {}
    for source in sources:
        path = Path(source).resolve()
        short = path.parent.name if path.name == "model" else path.name
        name = short if Path(source).is_dir() else source
        if name in names:
            raise ConfigError(f"{source}: another model here is called {name} too; rename one of the folders")
        names[name] = source
    return names


def _progress(numbers: Sequence[int], what: str) -> Iterator[int]:
    """A bar on a terminal, elsewhere a line at the start and now and then."""
    console = Console(stderr=True)
    if console.is_terminal:
        yield from track(numbers, what, transient=True, console=console)
        return
    told = -math.inf
    for done, number in enumerate(numbers):
        if monotonic() - told >= SECONDS_BETWEEN_LINES:
            told = monotonic()
            print(f"{what}: {done} of {len(numbers)} pictures", file=sys.stderr, flush=True)
        yield number


def _calibrated(evaluation: Evaluation, filler: Filler, home: Path, workers: int) -> str:
    """Calibrate a model and store it, unless this folder's evaluation has done so already; returns what to tell."""
    record = evaluation.out / "calibration.json"
    done = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
    now = digest(filler.model)
    if now not in done:
        size, numbers = filler.model.config.size, evaluation.calibration
        kinds = [evaluation.cases(kind, numbers=numbers, size=size) for kind in evaluation.kinds]
        covered = fit(filler, kinds, evaluation.request.seed, workers)
        save_temperatures(home, filler.model)
        now = digest(filler.model)
        done[now] = {"coverage": covered, "temperatures": filler.model.temperatures.tolist()}
        save_text(record, json.dumps(done, indent=2) + "\n")
    told = ", ".join(f"{kind} {share:.3f}" for kind, share in done[now]["coverage"].items())
    return f"{filler.id}: calibrated on {len(evaluation.calibration)} pictures; the 90 % interval covers there: {told}"


def _extras(
    evaluation: Evaluation, training: Source | None, show: Source | None, inception: Inception | None
) -> Extras:
    filler = next(iter(evaluation.request.models.values()))
    kind, size = evaluation.kinds[0], filler.model.config.size
    recipes = {}
    if evaluation.lpips is None:
        recipes["LPIPS is left out: name its weights with --lpips"] = Lpips.HOW_TO_GET
    if inception is None:
        recipes["FID and KID are left out: name the network's weights with --inception"] = Inception.HOW_TO_GET
    shown = range(min(SHOWN, len(show))) if show else range(0)
    some = evaluation.cases(kind, numbers=evaluation.numbers[:MEMORISATION_PICTURES], size=size)
    return Extras(
        memorisation=memorisation.check(filler, training, some) if training else (),
        sets=distances(evaluation, inception) if inception else {},
        recipes=recipes,
        show=[evaluation.cases(kind, numbers=shown, source=show) for kind in evaluation.kinds] if show else (),
    )


def _headline(report: dict[str, Any]) -> Iterator[str]:
    """A line for each method and kind of hole, and for each memorisation check."""
    for part in ("models", "baselines"):
        for name, method in report[part].items():
            for kind, row in method["masks"].items():
                values = [(estimate_of(row, key), words) for key, words in HEADLINE.items()]
                told = ", ".join(words.format(f"{value['mean']:.3f}") for value, words in values if value)
                yield f"{name}, {kind} holes: {told}"
    for space, check in report.get("memorisation", {}).items():
        yield f"memorisation in {space}: {check['verdict']}, {check['copied']:.1%} of the fills look like copies"
