"""The evaluate command: from what a user asks for to a report, step by step."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track

from manyfill.checkpoint import save_temperatures
from manyfill.data import Source, open_source
from manyfill.data.loader import tile, with_channels
from manyfill.errors import ConfigError
from manyfill.evaluate import memorisation
from manyfill.evaluate.inception import Inception
from manyfill.evaluate.page import figure
from manyfill.evaluate.perceptual import Lpips
from manyfill.evaluate.publish import CLOSEST, Extras, memorised, publish
from manyfill.evaluate.report import read
from manyfill.evaluate.run import DEFAULT_BASELINES, Evaluation, Request
from manyfill.evaluate.sets import distances
from manyfill.evaluate.summary import regressions
from manyfill.evaluate.temperatures import fit
from manyfill.pipeline import Filler

CALIBRATION_PICTURES = 32
MEMORISATION_PICTURES = 100
SHOWN = 8
WORSE = 1


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
    seed: int = 0


def evaluate(options: Options, report: Callable[[str], None]) -> int:
    """Run an evaluation and tell its headline figures line by line; returns the exit code. Raises ManyfillError."""
    before = None if options.against is None else read(options.against)
    evaluation = Evaluation(_request(options), options.out)
    if options.calibrate:
        _calibrate(options, evaluation, report)
    evaluation.run(_progress)
    extras = _extras(options, evaluation)
    show = None
    if options.show:
        source = open_source(*options.show)
        count = min(SHOWN, len(source))
        show = {kind: evaluation.cases(kind, source, count=count) for kind in evaluation.kinds}
    found = publish(evaluation, extras, show)
    for line in [*_headline(found), *extras.notes]:
        report(line)
    report(f"open {options.out / 'report.html'}")
    worse = [] if before is None else regressions(found, before)
    for line in worse:
        report(f"worse: {line}")
    return WORSE if worse else 0


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
        seed=options.seed,
    )


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
    console = Console(stderr=True)
    yield from track(numbers, what, transient=True, console=console, disable=not console.is_terminal)


def _calibrate(options: Options, evaluation: Evaluation, report: Callable[[str], None]) -> None:
    total = len(evaluation.source)
    count = min(CALIBRATION_PICTURES, total)
    kinds = [evaluation.cases(kind, first=total - count, count=count) for kind in evaluation.kinds]
    for (name, filler), source in zip(evaluation.request.models.items(), options.models, strict=True):
        covered = fit(filler, kinds, options.seed)
        directory = save_temperatures(source, filler.model)
        told = ", ".join(f"{kind} {share:.3f}" for kind, share in covered.items())
        report(f"{name}: calibrated on {count} pictures; the 90 % interval covers {told}; stored in {directory}")


def _extras(options: Options, evaluation: Evaluation) -> Extras:
    filler = next(iter(evaluation.request.models.values()))
    extras = Extras()
    if options.training:
        training = open_source(*options.training)
        cases = evaluation.cases(evaluation.kinds[0], count=min(MEMORISATION_PICTURES, evaluation.count))
        picked = [cases[place] for place in range(len(cases))]
        checks = memorisation.check(filler, training, picked, options.seed)
        extras = memorised(evaluation, checks, {check.space: _closest(training, check, cases) for check in checks})
    if options.lpips is None:
        extras.recipes["LPIPS is left out: name its weights with --lpips"] = Lpips.HOW_TO_GET
    if options.inception is None:
        extras.recipes["FID and KID are left out: name the network's weights with --inception"] = Inception.HOW_TO_GET
    else:
        extras.groups["sets"] = distances(evaluation, Inception.load(options.inception))
    return extras


def _closest(training: Source, check: memorisation.Memorisation, cases: Any) -> list[Any]:
    return [
        with_channels(tile(training[one.training].pixels, cases.size, None), cases.channels)
        for one in check.closest[:CLOSEST]
    ]


def _headline(report: dict[str, Any]) -> Iterator[str]:
    """A line for each method and kind of hole."""
    shown = {
        "psnr_mean": "PSNR {} dB",
        "crps": "CRPS {}",
        "coverage.90": "90 % covers {}",
        "bits_per_dim": "{} bits/dim",
    }
    for part in ("models", "baselines"):
        for name, method in report[part].items():
            for kind, row in method["masks"].items():
                values = [(figure(row, key), words) for key, words in shown.items()]
                told = ", ".join(words.format(f"{value['mean']:.3f}") for value, words in values if value)
                yield f"{name}, {kind} holes: {told}"
