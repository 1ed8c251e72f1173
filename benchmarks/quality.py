"""How good fills are: classical methods, and our model, on validation pictures; hole pixels only.

    python benchmarks/quality.py DATA... [--model default] [--limit 100] [--samples 16] [--masks centre,brush]
                                 [--json FILE]

Every figure is a mean over pictures of that picture's own figure, with a bootstrap 95 % interval over pictures.
Legend: B pictures, N fills each, D hole values of one picture, S the model's size.
"""

import argparse
import math
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from baselines import METHODS, inpaint
from common import check_writable, label, machine, model_named, run, write_json
from rich.console import Console
from rich.progress import track
from rich.table import Table
from scores import Estimate, crps, estimate, mae, pairwise, psnr, rmse
from torch import Tensor

from manyfill.data import Source, open_source
from manyfill.data.loader import tile, with_channels
from manyfill.device import autocast
from manyfill.distributions import Gaussian
from manyfill.errors import ConfigError
from manyfill.images import to_tensor
from manyfill.masks import KINDS, draw
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.models.topdown import Choose
from manyfill.rng import generator, numpy_generator

SEED = 0
TOGETHER = 4  # pictures per pass through the model
BOUND_SAMPLES, SPREAD_DRAWS = 4, 8
OURS = "manyfill"

Row = dict[tuple[str, str], float]
"""The figures of one picture: (method, score) -> value."""


@dataclass(frozen=True)
class Case:
    """One picture uint8 (S, S, C) with its hole bool (S, S), and its number in the source."""

    index: int
    pixels: np.ndarray
    mask: np.ndarray

    def hole(self, values: np.ndarray) -> np.ndarray:
        """The hole's values (D,) of (S, S, C), as float64."""
        return values[self.mask].astype(np.float64).ravel()


def cases(source: Source, kind: str, size: int, channels: int, limit: int) -> list[Case]:
    """The first `limit` pictures, cropped centrally to the model's size, each with the hole that its number fixes."""
    found = []
    for index in range(min(limit, len(source))):
        pixels = with_channels(tile(source[index].pixels, size, None), channels)
        found.append(Case(index, pixels, draw(kind, size, size, numpy_generator(SEED, "quality", index))))
    return found


def classical(case: Case) -> Row:
    """PSNR and mean absolute error of every classical method."""
    row: Row = {}
    truth = case.hole(case.pixels)
    for method in METHODS:
        guess = case.hole(inpaint(method, case.pixels, case.mask))
        row[method, "psnr"], row[method, "mae"] = psnr(guess, truth), mae(guess, truth)
    return row


def ours(model: ConditionalHVAE, group: Sequence[Case], samples: int) -> Iterator[Row]:
    """The model's figures for a few pictures at once, in order."""
    x = torch.stack([to_tensor(case.pixels) for case in group])
    m = torch.stack([torch.from_numpy(case.mask)[None].float() for case in group])
    with torch.inference_mode(), autocast(torch.device("cpu")):
        known = model.encode_known(x, m)
        drawn = levels(model.fill(known, _generators(len(group), samples)).x)
        bits = bits_per_dim(model, x, m, group[0].index)
        moved = spread(model, known, group)
    for b, case in enumerate(group):
        truth = case.hole(case.pixels)
        fills = np.stack([case.hole(fill) for fill in drawn[b * samples : (b + 1) * samples]])
        yield {
            (OURS, "psnr"): psnr(fills.mean(0), truth),
            (OURS, "mae"): mae(fills.mean(0), truth),
            (OURS, "psnr of one fill"): float(np.mean([psnr(fill, truth) for fill in fills])),
            (OURS, "crps"): crps(fills, truth),
            (OURS, "bits/dim"): float(bits[b]),
            (OURS, "pairwise"): pairwise(fills),
            **{(OURS, f"spread {level}"): values[b] for level, values in enumerate(moved, 1)},
        }


def levels(x: Tensor) -> np.ndarray:
    """Pictures (B, C, S, S) in [-1, 1] as float64 grey levels (B, S, S, C), not rounded."""
    return (x.double().permute(0, 2, 3, 1).numpy() + 1) * 127.5


def bits_per_dim(model: ConditionalHVAE, x: Tensor, m: Tensor, index: int) -> Tensor:
    """Bits per hole value (B,) by the evidence lower bound, averaged over samples of the posterior."""
    bounds = [model(x, m, generator=generator(SEED, "bound", index, k)) for k in range(BOUND_SAMPLES)]
    return -torch.stack([bound.total for bound in bounds]).mean(0) / (math.log(2) * bounds[0].dims)


def spread(model: ConditionalHVAE, known: Known, group: Sequence[Case]) -> list[list[float]]:
    """How far each level alone moves a picture's expected pixels: grey levels by level and picture.

    Root mean square over draws and hole values of the difference from the fill with every level at its prior mean.
    """

    def means(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        return prior.mean

    still = levels(model.decode(known, means, _generators(len(group), 1)).mean)
    many, moved = known.repeat(SPREAD_DRAWS), []
    for level in range(len(model.config.levels)):
        noise = _generators(len(group), SPREAD_DRAWS)
        drawn = levels(model.decode(many, _only(level, noise), noise).mean)
        drawn = drawn.reshape(len(group), SPREAD_DRAWS, *drawn.shape[1:])
        moved.append([_movement(case, draws, base) for case, draws, base in zip(group, drawn, still, strict=True)])
    return moved


def _only(chosen: int, noise: Sequence[torch.Generator]) -> Choose:
    def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        if level != chosen:
            return prior.mean
        return prior.sample(torch.stack([torch.randn(prior.mean.shape[1:], generator=g) for g in noise]))

    return choose


def _movement(case: Case, draws: np.ndarray, still: np.ndarray) -> float:
    return rmse(np.stack([case.hole(picture) for picture in draws]), case.hole(still))


def _generators(pictures: int, samples: int) -> list[torch.Generator]:
    """The generators of fills 0 to N - 1, anew for every picture: as if each had been filled on its own."""
    return [generator(SEED, "fill", i) for _ in range(pictures) for i in range(samples)]


def measure(model: ConditionalHVAE, found: Sequence[Case], samples: int, kind: str) -> dict[str, Any]:
    """All figures for one kind of hole."""
    groups = [found[i : i + TOGETHER] for i in range(0, len(found), TOGETHER)]
    rows: list[Row] = []
    for group in track(groups, f"{kind} holes"):
        rows += [classical(case) | row for case, row in zip(group, ours(model, group, samples), strict=True)]
    columns = {key: np.array([row[key] for row in rows]) for key in rows[0]}
    figures: dict[str, Any] = {}
    for (method, score), column in columns.items():
        figures.setdefault(method, {})[score] = estimate(column)
    best_psnr = max(METHODS, key=lambda method: figures[method]["psnr"].value)
    best_mae = min(METHODS, key=lambda method: figures[method]["mae"].value)
    figures["against"] = {
        f"psnr gain over {best_psnr}": estimate(columns[OURS, "psnr"], columns[best_psnr, "psnr"], of=np.subtract),
        f"crps / mae of {best_mae}": estimate(columns[OURS, "crps"], columns[best_mae, "mae"], of=np.divide),
    }
    return figures


def show(console: Console, kind: str, figures: dict[str, Any], sizes: Sequence[int], samples: int, count: int) -> None:
    """Print one kind of hole: the methods, then what only the model has."""
    table = Table("method", "PSNR, dB", "mean abs. error, grey levels", title=f"{kind} holes, {count} pictures")
    for method in (*METHODS, OURS):
        name = f"{OURS}, mean of {samples} fills" if method == OURS else method
        table.add_row(name, str(figures[method]["psnr"]), str(figures[method]["mae"]))
    table.caption = "hole pixels only; mean over pictures of each picture's figure; [95 % bootstrap interval]"
    own = Table("figure", "value", title=f"{kind} holes, {OURS}")
    own.add_row("PSNR of one fill, dB", str(figures[OURS]["psnr of one fill"]))
    own.add_row("CRPS, grey levels", str(figures[OURS]["crps"]))
    own.add_row("bound, bits/dim", str(figures[OURS]["bits/dim"]))
    own.add_row("distance between two fills, RMSE, grey levels", str(figures[OURS]["pairwise"]))
    for level, size in enumerate(sizes, 1):
        own.add_row(f"spread of level {level} ({size}x{size}), grey levels", str(figures[OURS][f"spread {level}"]))
    for name, value in figures["against"].items():
        own.add_row(name, str(value))
    console.print(table, own)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("data", nargs="+", type=Path, metavar="DATA", help="folders of pictures or .tar shards")
    parser.add_argument("--model", default="default", help="model directory, hub id, 'default', or an untrained preset")
    parser.add_argument("--limit", type=int, default=100, help="how many pictures, from the first")
    parser.add_argument("--samples", type=int, default=16, help="fills per picture")
    parser.add_argument("--masks", default="centre,brush", help=f"comma-separated, from {', '.join(KINDS)}")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if args.limit < 1 or args.samples < 2:
        raise ConfigError("--limit must be 1 or more and --samples 2 or more")
    check_writable(args.json)
    model, source, console = model_named(args.model), open_source(*args.data), Console()
    sizes = [spec.size for spec in model.config.levels]
    record: dict[str, Any] = {
        "machine": machine(),
        "model": label(args.model),
        "data": [path.name for path in args.data],
    }
    record |= {"limit": args.limit, "samples": args.samples, "level sizes": sizes, "masks": {}}
    for kind in dict.fromkeys(args.masks.split(",")):
        found = cases(source, kind, model.config.size, model.config.channels, args.limit)
        figures = measure(model, found, args.samples, kind)
        show(console, kind, figures, sizes, args.samples, len(found))
        record["masks"][kind] = {"pictures": len(found), **_plain(figures)}
    write_json(args.json, record)


def _plain(figures: dict[str, dict[str, Estimate]]) -> dict[str, Any]:
    return {method: {name: asdict(value) for name, value in scores.items()} for method, scores in figures.items()}


if __name__ == "__main__":
    run(main)
