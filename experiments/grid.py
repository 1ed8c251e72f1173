"""What all experiments share: pictures, a grid of training runs that goes on where it stopped, what is written.

An experiment is a list of cells, one training run each, told apart by its `factors`. A finished cell's record lies in
RUNS/EXPERIMENT/CELL.json and, once reported, in the experiment's results.json; it is never run again unless its
settings have changed.
"""

import argparse
import fcntl
import hashlib
import json
import math
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from itertools import count, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyfill.data import Source, open_source
from manyfill.data.loader import tile
from manyfill.errors import ConfigError, ManyfillError
from manyfill.files import make_folder, save_text
from manyfill.images import save_png
from manyfill.models.config import PRESETS
from manyfill.plots import write
from manyfill.train.log import Record, read
from manyfill.train.loop import run
from manyfill.train.settings import Settings, load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Factors = dict[str, Any]
Table = tuple[Sequence[str], Sequence[Sequence[str]]]
START, END = "<!-- figures -->", "<!-- /figures -->"
# The switches of the 2017 project's design, with which training is safe at all rates used here.
NORMED: dict[str, Any] = PRESETS["tan2017"].model_dump(exclude={"stages", "levels"}, exclude_defaults=True)
# The same without its batch norm, and without what was added here since to keep latents in check.
PLAIN = NORMED | {"norm": "none", "scale": "exp", "bounded": False}
VALIDATION = 256  # pictures
NEVER = 10**6  # steps
SEVEN = (1, 4, 8, 8, 16, 16, 32)  # sizes of latent levels, coarse to fine
# By size: channels, latent channels. A fifth of a million parameters or less, so that a step takes some 30 ms.
WIDTHS = {32: (12, 4), 16: (16, 4), 8: (24, 8), 4: (24, 8), 1: (32, 16)}


@dataclass(frozen=True)
class Cell:
    """One training run: what tells it from the others, its settings by their dotted names, how many pictures it has."""

    factors: Factors
    settings: dict[str, Any]
    pictures: int = 4000

    @property
    def name(self) -> str:
        return "-".join(f"{value:g}" if isinstance(value, float) else str(value) for value in self.factors.values())


@dataclass(frozen=True)
class Finished:
    """A finished run to be measured: its folder and log, and the folders of its pictures."""

    out: Path
    log: list[Record]
    training: str
    validation: str
    quick: bool

    @property
    def model(self) -> Path:
        return self.out / "model"


Measure = Callable[[Finished], dict[str, Any]]


def hierarchy(sizes: Sequence[int], **model: Any) -> dict[str, Any]:
    """Settings of a small 32x32 model with latent levels of these sizes, and `model` settings besides."""
    stages = [{"size": size, "width": width} for size, (width, _) in WIDTHS.items()]
    levels = [{"size": size, "width": WIDTHS[size][0], "latent": WIDTHS[size][1]} for size in sizes]
    return {f"model.{key}": value for key, value in {"stages": stages, "levels": levels, **model}.items()}


def steady(steps: int | None = None) -> dict[str, Any]:
    """Settings of a run whose end alone is measured, and which no divergence can stop; without `steps` it still has to
    be told how long it is."""
    end = {} if steps is None else {"train.steps": steps}
    return end | {
        "train.patience": 10**9,
        "train.validate_every": steps or NEVER,
        "train.checkpoint_every": steps or NEVER,
        "train.validation_pictures": 128,
        "train.workers": 0,
        "train.precision": "float32",
        "data.masks": {"centre": 1.0},
        "data.guide_probability": 0.0,
    }


# ---------------------------------------------------------------------------------------------------- the command line


def arguments(description: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=description.partition("\n")[0])
    parser.add_argument("--pictures", nargs="+", metavar="PATH", help="folders or shards; scikit-image's if left out")
    parser.add_argument("--validation", nargs="+", metavar="PATH", help="others to validate with; a part if left out")
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="where finished cells lie")
    parser.add_argument("--cells", type=int, metavar="N", help="stop after N more cells; the same command goes on")
    parser.add_argument(
        "--lock", type=Path, metavar="FILE", help="run each cell under FILE's lock, in turn with others"
    )
    parser.add_argument("--report", action="store_true", help="run nothing, write what is there")
    parser.add_argument("--quick", action="store_true", help="a few steps of the smallest grid, reported to RUNS")
    return parser.parse_args()


def conduct(
    script: str,
    description: str,
    cells: Callable[[bool], Iterable[Cell]],
    measure: Measure,
    table: Callable[[list[dict[str, Any]]], Table],
    plot: Callable[[list[dict[str, Any]]], "Figure"],
    size: int = 32,
) -> None:
    """A script that runs `cells` (told whether only the quick ones) on pictures of `size`, and what comes of them."""
    options, home = arguments(description), Path(script).parent

    def main() -> None:
        records = run_grid(options, home, cells(options.quick), measure, size)
        if records:
            publish(options, home, records, table(records), plot(records))

    command(main)


def command(main: Callable[[], None]) -> None:
    """Run a script's `main`: what a user can mend becomes one line and exit code 2."""
    try:
        main()
    except ManyfillError as error:
        print("error:", error, file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


# --------------------------------------------------------------------------------------------------------- its pictures


def prepared(options: argparse.Namespace, training: int, validation: int, size: int) -> tuple[str, str]:
    """Folders of the first `training` and `validation` pictures of the sources, as PNGs of `size`."""
    folder = options.runs / f"pictures-{size}-{training}-{validation}"
    wanted = {"train": training, "validation": validation}
    if not folder.exists():
        aside = make_folder(folder.with_suffix(".part"))
        rest = squares(options.pictures, size)
        others = squares(options.validation, size) if options.validation else rest
        for (part, number), pictures in zip(wanted.items(), (rest, others), strict=True):
            found = list(islice(pictures, number))
            if len(found) < number:
                raise ConfigError(f"--pictures: {part} needs {number} pictures, and there are {len(found)}; name more")
            for index, pixels in enumerate(found):
                save_png(make_folder(aside / part) / f"{index:05d}.png", pixels)
        aside.rename(folder)
    return tuple(str(folder / part) for part in wanted)  # type: ignore[return-value]


def squares(paths: Sequence[str] | None, size: int) -> Iterator[np.ndarray]:
    """The central squares of a source's pictures, or random tiles of scikit-image's without end; uint8."""
    if paths:
        source: Source = open_source(*paths)
        yield from (tile(source[index].pixels, size, None) for index in range(len(source)))
        return
    import skimage.data

    photographs = [getattr(skimage.data, name)() for name in ("astronaut", "chelsea", "coffee", "rocket")]
    for index in count():
        rng = np.random.default_rng(index)
        yield tile(photographs[index % len(photographs)], size, rng)


# ------------------------------------------------------------------------------------------------------------- the grid


def run_grid(
    options: argparse.Namespace,
    home: Path,
    cells: Iterable[Cell],
    measure: Measure,
    size: int,
) -> list[dict[str, Any]]:
    """The records of all cells finished so far, after running those that are not (see --cells).

    `measure` says which figures of a finished run are kept; the run itself is then removed.
    """
    runs, left = make_folder(options.runs / home.name), options.cells
    reported = {record["settings"]: record for record in stored(home / "results.json")}
    records, missing = [], 0
    for cell in cells:
        pictures = prepared(options, *((64, 16) if options.quick else (cell.pictures, VALIDATION)), size)
        settings = settings_of(cell, pictures)
        own, path = fingerprint(cell, settings), runs / f"{cell.name}.json"
        record = finished(path, own) or reported.get(own)
        if record is None and (options.report or left == 0):
            missing += 1
            continue
        if record is None:
            left = None if left is None else left - 1
            with turn(options.lock):
                record = finished(path, own)  # another process may have been quicker
                if record is None:
                    log = run_cell(settings, runs / cell.name)
                    run = Finished(runs / cell.name, log, *pictures, options.quick)
                    record = cell.factors | measure(run) | {"settings": own}
                    shutil.rmtree(run.out)
                    save_text(path, json.dumps([record], allow_nan=False) + "\n")
                    print(cell.name, record, flush=True)
        records.append(record)
    print(f"{home.name}: {len(records)} cells finished, {missing} left", flush=True)
    return records


def fingerprint(cell: Cell, settings: Settings) -> str:
    """What a cell's record holds for: its settings that are no defaults, so that new settings leave old records be,
    without where the pictures lie on this machine."""
    own = settings.model_dump_json(exclude={"data": {"paths", "validation"}}, exclude_defaults=True)
    return hashlib.sha256(f"{cell.name} {cell.pictures} {own}".encode()).hexdigest()[:16]


def finished(path: Path, settings: str) -> dict[str, Any] | None:
    """The record of a finished cell, if there is one of these settings."""
    return next((record for record in stored(path) if record["settings"] == settings), None)


def stored(path: Path) -> list[dict[str, Any]]:
    records: list[dict[str, Any]] = json.loads(path.read_text()) if path.exists() else []
    return records


@contextmanager
def turn(lock: Path | None) -> Iterator[None]:
    """Hold a file's lock, if one is named, and then let those have it who wait for it."""
    if lock is None:
        yield
        return
    with lock.open("a") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield
    time.sleep(1)


def settings_of(cell: Cell, pictures: tuple[str, str]) -> Settings:
    training, validation = pictures
    assignments = [f"{key}={toml(value)}" for key, value in cell.settings.items()]
    seed = cell.factors.get("seed", 0)
    return load([training], validation=[validation], preset="tiny32", assignments=assignments, seed=seed)


def toml(value: Any) -> str:
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key} = {toml(each)}" for key, each in value.items()) + "}"
    return f"[{', '.join(map(toml, value))}]" if isinstance(value, list | tuple) else json.dumps(value)


def run_cell(settings: Settings, out: Path) -> list[Record]:
    """Train; returns the log. What a run says goes to a file."""
    shutil.rmtree(out, ignore_errors=True)  # of a cell that was cut short
    with (make_folder(out.parent) / "messages.txt").open("a") as messages, redirect_stderr(messages):
        run(settings, out)
    log = read(out / "log.jsonl")
    if not log or log[-1]["kind"] != "validation":  # a run that a signal stopped ends without
        raise KeyboardInterrupt
    return log


# --------------------------------------------------------------------------------------------------- what is written


def publish(
    options: argparse.Namespace, home: Path, records: list[dict[str, Any]], table: Table, figure: "Figure"
) -> None:
    """Write results.json and the plot to the experiment's home, and both into its README; with --quick to RUNS."""
    out = make_folder(options.runs / home.name) if options.quick else home
    lines = "".join(json.dumps(record) + ",\n" for record in records).rstrip(",\n")
    save_text(out / "results.json", f"[\n{lines}\n]\n")
    write(figure, out, "plot")
    readme = (home / "README.md").read_text(encoding="utf-8")
    before, after = readme[: readme.index(START) + len(START)], readme[readme.index(END) :]
    save_text(out / "README.md", f"{before}\n{markdown(table)}\n![plot](plot.svg)\n{after}")


def markdown(table: Table) -> str:
    head, rows = table
    return "".join(f"| {' | '.join(row)} |\n" for row in (head, ["---"] * len(head), *rows))


def chosen(records: Iterable[dict[str, Any]], **factors: Any) -> list[dict[str, Any]]:
    """The records with these factors."""
    return [record for record in records if all(record[key] == value for key, value in factors.items())]


def wilson(hits: int, trials: int) -> tuple[float, float]:
    """The 95 % interval of a share (Wilson 1927)."""
    z = 1.96
    centre, spread = hits + z**2 / 2, z * math.sqrt(hits * (trials - hits) / trials + z**2 / 4)
    return (centre - spread) / (trials + z**2), (centre + spread) / (trials + z**2)
