"""Exported models against torch: size, agreement, time of fills, time from the command line to the file.

    python benchmarks/export.py [--model default] [--exports DIR] [--rounds 9] [--json FILE]

Fills take turns in one process, so that a machine's moods fall on all alike; a time is the median over its rounds, on
the wall and of the processors. DIR keeps the exported models for the next run.
"""

import argparse
import contextlib
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import skimage.data
import torch
from common import check_writable, clock, run, write_json
from rich.console import Console
from rich.table import Table

from manyfill.benchmark import label, machine
from manyfill.data.loader import tile, with_channels
from manyfill.errors import ConfigError
from manyfill.export import export_model
from manyfill.images import save_png, to_planes
from manyfill.masks import KINDS, draw, write_mask
from manyfill.pipeline import Filler
from manyfill.rng import key, numpy_generator
from manyfill.runtime import Masked, Noise, Runtime, network
from manyfill.runtime.exported import PRECISIONS, read_exported
from manyfill.runtime.graphs import Graphs, Told

PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
COUNTS = (1, 16)
TORCH, TORCH_FP32 = "torch", "torch, fp32"


@contextlib.contextmanager
def single_precision() -> Iterator[None]:
    """Torch without bfloat16, where a processor is quick at that."""
    before = network.autocast
    network.autocast = lambda *_: contextlib.nullcontext()
    try:
        yield
    finally:
        network.autocast = before


def photographs(filler: Filler) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """The kind of hole, pixels uint8 (S, S, C) and hole bool (S, S) of each photograph with each kind."""
    size, channels = filler.config.size, filler.config.channels
    for name in PHOTOGRAPHS:
        pixels = with_channels(tile(np.asarray(getattr(skimage.data, name)()), size, None), channels)
        for number, kind in enumerate(KINDS):
            yield kind, pixels, draw(kind, size, size, numpy_generator(0, "export", number))


def fills_agree(reference: Filler, filler: Filler) -> dict[str, dict[str, float]]:
    """By kind of hole, how far fills with one seed lie from torch's in single precision, in grey levels."""
    gaps: dict[str, list[np.ndarray]] = {kind: [] for kind in KINDS}
    for kind, pixels, hole in photographs(reference):
        with single_precision():
            theirs = np.stack(reference(pixels, hole, n=4).images).astype(int)
        gaps[kind].append(np.abs(np.stack(filler(pixels, hole, n=4).images) - theirs)[:, hole].ravel())
    return {
        kind: {"mean": float(all_.mean()), "share_over_1": float((all_ > 1).mean()), "largest": float(all_.max())}
        for kind, all_ in ((kind, np.concatenate(each)) for kind, each in gaps.items())
    }


def networks_agree(reference: Filler, graphs: Graphs) -> float:
    """The largest difference of any mean or latent when both are given the same completed pictures and noise."""
    worst, config = 0.0, reference.config
    for number, (_, pixels, hole) in enumerate(photographs(reference)):
        x, m = to_planes(pixels)[None], hole[None, None].astype(np.float32)
        draws = graphs.draws
        levels = [
            draws.normal(key(number, "export", i), (1, z.latent, z.size, z.size)) for i, z in enumerate(config.levels)
        ]
        noise = Noise(levels, 0, draws.uniform(key(number, "export"), (int(hole.sum()), config.pixel_noise)))
        with single_precision(), torch.inference_mode():
            theirs = reference.runtime.draw(reference.runtime.tell(Masked(x, m)), 1, noise)
            zeros, none = torch.zeros(1, *x.shape[1:]), torch.zeros(1)
            known, holes = torch.from_numpy(x * (1 - m)), torch.from_numpy(m)
            completed = known
            if reference.model.expectation is not None:
                completed = reference.model.expectation(known, holes, zeros, none)
        inputs = {"completed": completed.numpy(), "m": m, "guide": zeros.numpy(), "present": none.numpy()}
        ours = graphs.draw(Told(m, {"x": x * (1 - m), **graphs.run("encoder", inputs)}), 1, noise)
        pairs = zip([ours.mean, *ours.latents], [theirs.mean, *theirs.latents], strict=True)
        worst = max(worst, *(float(np.abs(a - b).max()) for a, b in pairs))
    return worst


def timed(tasks: dict[str, Callable[[], object]], rounds: int) -> dict[str, dict[str, float]]:
    """Median milliseconds of each task, on the wall and of the processors."""
    spent: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for turn in range(rounds + 1):  # of which the first warms up
        for name, task in tasks.items():
            before = time.perf_counter(), time.process_time()
            task()
            if turn:
                spent[name].append((time.perf_counter() - before[0], time.process_time() - before[1]))
    medians = {name: 1e3 * np.median(times, 0) for name, times in spent.items()}
    return {name: {"ms": float(wall), "processor_ms": float(used)} for name, (wall, used) in medians.items()}


def fill_times(fillers: dict[str, Filler], rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """By number of fills, of one photograph with a centre hole, and by what draws them."""
    _, pixels, hole = next(photographs(fillers[TORCH]))

    def task(filler: Filler, n: int, plain: bool) -> Callable[[], object]:
        def call() -> None:
            with single_precision() if plain else contextlib.nullcontext():
                filler(pixels, hole, n=n)

        return call

    found = {}
    for n in COUNTS:
        tasks = {name: task(filler, n, False) for name, filler in fillers.items()}
        tasks[TORCH_FP32] = task(fillers[TORCH], n, True)
        times = timed(tasks, rounds)
        for each in times.values():
            each["processor_over_torch"] = each["processor_ms"] / times[TORCH]["processor_ms"]
            each["processor_over_torch_fp32"] = each["processor_ms"] / times[TORCH_FP32]["processor_ms"]
        found[str(n)] = times
    return found


def cold(models: dict[str, str], rounds: int) -> dict[str, dict[str, float]]:
    """Seconds from the start of `manyfill fill` to its end, and of `manyfill --help`, in processes of their own."""
    root = Path(__file__).parents[1]
    with tempfile.TemporaryDirectory() as folder:
        photo, mask = Path(folder, "photo.png"), Path(folder, "mask.png")
        save_png(photo, tile(np.asarray(skimage.data.astronaut()), 64, None))
        write_mask(mask, draw("centre", 64, 64, numpy_generator(0, "export")))
        fill = ["fill", str(photo), "--mask", str(mask), "--out", str(Path(folder, "out")), "-n", "1", "--model"]
        commands = {f"fill, {name}": [*fill, model] for name, model in models.items()} | {"--help": ["--help"]}
        found = {}
        for name, command in commands.items():
            spent = []
            for turn in range(rounds + 1):  # of which the first reads from the disk
                before = clock()
                subprocess.run(
                    [sys.executable, "-m", "manyfill", *command],
                    check=True,
                    capture_output=True,
                    env={**os.environ, "PYTHONPATH": str(root)},
                )
                if turn:
                    spent.append(np.subtract(clock(), before))
            wall, used = np.median(spent, 0)
            found[name] = {"seconds": float(wall), "processor_seconds": float(used)}
    return found


def variants(model: str, folder: Path) -> dict[str, Path]:
    """The exported models in a folder, made where they are not there yet."""
    for precision in PRECISIONS:
        if not (folder / precision).exists():
            export_model(model, folder / precision, precision)
    return {precision: folder / precision for precision in PRECISIONS}


def measure(model: str, folder: Path, rounds: int) -> dict[str, Any]:
    """All of it."""
    found = variants(model, folder)
    reference = Filler.from_pretrained(model, device="cpu")
    runtimes: dict[str, Runtime] = {name: Graphs(read_exported(directory)) for name, directory in found.items()}
    fillers = {TORCH: reference} | {f"onnx, {name}": Filler(each, name) for name, each in runtimes.items()}
    sizes = {
        name: sum(len(g) for g in each.exported.graphs.values()) / 1e6
        for name, each in runtimes.items()
        if isinstance(each, Graphs)
    }
    agreement = {
        name: {
            "networks_largest": networks_agree(reference, each),
            "fills": fills_agree(reference, fillers[f"onnx, {name}"]),
        }
        for name, each in runtimes.items()
        if isinstance(each, Graphs)
    }
    return {
        "machine": machine() | {"onnxruntime": onnxruntime.__version__},
        "model": label(model),
        "megabytes": sizes,
        "agreement": agreement | {TORCH: {"fills": fills_agree(reference, reference)}},
        "fills": fill_times(fillers, rounds),
        "cold": cold({"torch": model, "onnx, fp32": str(found["fp32"])}, max(2, rounds // 3)),
    }


def show(console: Console, record: dict[str, Any]) -> None:
    """Tables of what there is to compare."""
    table = Table("", "MB", "networks, largest", "fills, grey levels: centre", "brush", "pixels", title=record["model"])
    for name, each in record["agreement"].items():
        gaps = [f"{each['fills'][kind]['mean']:.3f}" for kind in ("centre", "brush", "pixels")]
        size, most = record["megabytes"].get(name), each.get("networks_largest")
        table.add_row(name, f"{size:.1f}" if size else "", f"{most:.1e}" if most else "", *gaps)
    console.print(table)
    for n, times in record["fills"].items():
        table = Table(f"fills: {n}", "ms", "processor ms", "over torch", "over torch fp32")
        for name, each in times.items():
            table.add_row(name, *(f"{value:.2f}" for value in each.values()))
        console.print(table)
    table = Table("from start to end", "s", "processor s")
    for name, each in record["cold"].items():
        table.add_row(name, *(f"{value:.2f}" for value in each.values()))
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="model directory, hub id or 'default'")
    parser.add_argument("--exports", type=Path, help="a folder to keep the exported models in")
    parser.add_argument("--rounds", type=int, default=9, help="how often each task is timed")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if args.rounds < 1:
        raise ConfigError("--rounds must be 1 or more")
    check_writable(args.json)
    with tempfile.TemporaryDirectory() as folder:
        record = measure(args.model, args.exports or Path(folder), args.rounds)
    show(Console(), record)
    write_json(args.json, record)


if __name__ == "__main__":
    run(main)
