"""How near filling many pictures comes to the model's own batched rate, alone and on Ray.

    python benchmarks/bulk.py [--model default] [--pictures 64] [-n 8] [--sizes 64 256] [--actors 2] [--json FILE]

Pictures of scikit-image's astronaut, each another part of it, are written to a temporary folder with a drawn mask each.
The model's own rate is that of `model.fill` alone, and of reading the known part before it, on batches of the size that
fill-many uses, in the same process and threads. It is measured in rounds that take turns with fill-many, so that a
machine's moods fall on both alike; a rate is the median over its rounds. Where others use the machine too, the rates
per second of processor time are the ones to compare. Ray is measured once, with its start-up and
from its first picture to its last without it, next to as many processes by RANK and WORLD_SIZE, whose start counts too.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from common import check_writable, clock, run, write_json
from rich.console import Console
from rich.table import Table

from manyfill.benchmark import label, machine
from manyfill.bulk.fill import BulkFiller, Row, block_numbers, pictures_at_once
from manyfill.bulk.job import BATCH, WORKERS, Job
from manyfill.bulk.pictures import Pictures
from manyfill.device import autocast
from manyfill.errors import ConfigError
from manyfill.images import DEFAULT_MAX_PIXELS, resize, save_png
from manyfill.inputs import Sampling
from manyfill.likelihood import at_once
from manyfill.masks import KINDS, draw, write_mask
from manyfill.octaves import PORTION
from manyfill.pipeline import Filler
from manyfill.rng import generator, numpy_generator


def write_pictures(folder: Path, count: int, size: int) -> None:
    """`count` square parts of the astronaut at `size` in folder/in, and masks of all kinds in folder/masks."""
    whole = np.asarray(skimage.data.astronaut())
    for index in range(count):
        rng = numpy_generator(0, "benchmark", index)
        side = int(rng.integers(256, 513))
        top, left = rng.integers(0, len(whole) - side + 1, 2)
        name = f"{index:05d}.png"
        save_png(folder / "in" / name, resize(whole[top : top + side, left : left + side], size, size))
        write_mask(folder / "masks" / name, draw(KINDS[index % len(KINDS)], size, size, rng))


def own_rates(filler: Filler, job: Job) -> dict[str, Callable[[], int]]:
    """Tasks on the very batches of the job, that return how many fills they drew: with and without `encode_known`."""
    pictures, size = Pictures(job), pictures_at_once(job)
    subjects = [pictures.read(number) for number in range(len(pictures))]
    shown = [at_once(filler.model, subject.picture.pixels, subject.hole) for subject in subjects]
    inputs = [
        (torch.cat([x for x, _ in part]), torch.cat([m for _, m in part]))
        for part in (shown[start : start + size] for start in range(0, len(shown), size))
    ]
    n, seed = job.sampling.n, job.sampling.seed
    portions = [range(start, min(start + PORTION, n)) for start in range(0, n, PORTION)]
    with torch.inference_mode(), autocast(filler.device):
        known = [filler.model.encode_known(x, m) for x, m in inputs]

    @torch.inference_mode()
    def fill(encode: bool) -> int:
        with autocast(filler.device):
            for (x, m), ready in zip(inputs, known, strict=True):
                told = filler.model.encode_known(x, m) if encode else ready
                for portion in portions:
                    noise = [generator(seed, "fill", i) for _ in range(len(x)) for i in portion]
                    filler.model.fill(told, noise)
        if filler.device.type == "cuda":
            torch.cuda.synchronize()
        return len(pictures) * n

    return {"model.fill": lambda: fill(False), "model.encode_known and fill": lambda: fill(True)}


def bulk_rate(filler: Filler, job: Job) -> Callable[[], int]:
    """fill-many as a task: from files to files, each time into a new folder."""
    pictures = Pictures(job)

    def fill() -> int:
        with tempfile.TemporaryDirectory(dir=job.out.parent) as out:
            bulk = BulkFiller(replace(job, out=Path(out)), pictures, filler, Path(out, "scratch"))
            return sum(row["n"] for row in bulk.fill(block_numbers(job, len(pictures))))

    return fill


def measure(tasks: dict[str, Callable[[], int]], rounds: int) -> dict[str, tuple[float, float]]:
    """Median fills of each task per second and per second of processor time; they take turns."""
    rates: dict[str, list[np.ndarray]] = {name: [] for name in tasks}
    for each in range(rounds + 1):
        for name, task in tasks.items():
            before, count = np.array(clock()), task()
            if each:  # the first round warms up
                rates[name].append(count / (clock() - before))
    return {name: tuple(np.median(values, 0).tolist()) for name, values in rates.items()}


def elapsed(rows: Iterator[Row]) -> dict[str, float]:
    """Seconds in all, and fills per second of those that came after the first row."""
    start = time.perf_counter()
    next(rows)
    began = time.perf_counter()
    fills = sum(row["n"] for row in rows)
    end = time.perf_counter()
    return {"seconds": end - start, "fills_per_second_once_started": fills / (end - began)}


def on_ray(job: Job, actors: int) -> dict[str, float]:
    """fill-many on a Ray of its own, from its start to its last row."""
    from manyfill.bulk.cluster import Cluster

    blocks = block_numbers(job, len(Pictures(job)))
    return elapsed(Cluster(actors=actors).fill(job, blocks, job.out / "scratch"))


def in_ranks(job: Job, size: int) -> dict[str, float]:
    """The same by `size` processes of one thread each, as a launcher would start them."""
    n, batch = str(job.sampling.n), str(job.batch)
    command = [
        sys.executable,
        "-m",
        "manyfill",
        "fill-many",
        str(job.pictures),
        str(job.out),
        "--masks",
        str(job.masks),
    ]
    command += ["-n", n, "--batch", batch, "--model", job.model, "--workers", str(job.workers)]
    start = time.perf_counter()
    processes = [
        subprocess.Popen(
            command,
            env=os.environ | {"RANK": str(rank), "WORLD_SIZE": str(size), "OMP_NUM_THREADS": "1"},
            stdout=subprocess.DEVNULL,
        )
        for rank in range(size)
    ]
    codes = [process.wait() for process in processes]
    if any(codes):
        raise ConfigError("a rank failed: see its message above")
    return {"seconds": time.perf_counter() - start}


def compare(filler: Filler, job: Job, rounds: int) -> dict[str, Any]:
    """Rates of the model and of fill-many, and the shares that this benchmark is about."""
    measured = measure({**own_rates(filler, job), "fill-many": bulk_rate(filler, job)}, rounds)
    record: dict[str, Any] = {}
    for place, of in enumerate(("second", "processor_second")):
        rates = {name: both[place] for name, both in measured.items()}
        own, whole, many = rates.values()
        shares = {"share_of_model_fill": many / own, "share_of_encode_known_and_fill": many / whole}
        record[f"per_{of}"] = {"fills": rates, **shares}
    return record


def show(record: dict[str, Any]) -> None:
    table = Table("pictures", "what", "value", title=f"{record['machine']['device']}, model {record['model']}")
    for size, row in record["sizes"].items():
        for of, rates in row.items():
            what = of.replace("_", " ")
            for name, rate in rates["fills"].items():
                table.add_row(size, f"{name}, fills {what}", f"{rate:.1f}")
            for share in ("share_of_model_fill", "share_of_encode_known_and_fill"):
                table.add_row(size, f"{share.replace('_', ' ')}, {what}", f"{rates[share]:.3f}")
    for way in ("ray", "ranks"):
        for name, value in record.get(way, {}).items():
            table.add_row(next(iter(record["sizes"])), f"{way}: {name.replace('_', ' ')}", f"{value:.1f}")
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="model directory, hub id or 'default'")
    parser.add_argument("--pictures", type=int, default=64, help="how many")
    parser.add_argument("-n", type=int, default=8, help="fills of each")
    parser.add_argument("--sizes", type=int, nargs="+", default=[64, 256], help="sides of the pictures")
    parser.add_argument("--batch", type=int, default=BATCH, help="fills drawn at once")
    parser.add_argument("--workers", type=int, default=WORKERS, help="threads that read and write")
    parser.add_argument("--rounds", type=int, default=5, help="rounds, one for each task in turn")
    parser.add_argument(
        "--actors", type=int, default=0, help="compare Ray with so many actors to as many ranks; 0: do not"
    )
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if min(args.rounds, args.pictures, *args.sizes) < 1:
        raise ConfigError("--rounds, --pictures and --sizes must be 1 or more")
    check_writable(args.json)
    filler = Filler.from_pretrained(args.model)
    settings = {name: getattr(args, name) for name in ("pictures", "n", "batch", "workers", "rounds", "actors")}
    record: dict[str, Any] = {"machine": machine(), "model": label(args.model), **settings, "sizes": {}}
    for size in args.sizes:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            for part in ("in", "masks", "ray", "ranks"):
                (folder / part).mkdir()
            write_pictures(folder, args.pictures, size)
            sampling = Sampling(args.n)
            job = Job(folder / "in", folder / "out", folder / "masks", sampling, args.model, DEFAULT_MAX_PIXELS)
            job = replace(job, batch=args.batch, workers=args.workers)
            record["sizes"][f"{size}x{size}"] = compare(filler, job, args.rounds)
            if args.actors and size == args.sizes[0]:
                record["ray"] = on_ray(replace(job, out=folder / "ray"), args.actors)
                record["ranks"] = in_ranks(replace(job, out=folder / "ranks"), args.actors)
    show(record)
    write_json(args.json, record)


if __name__ == "__main__":
    run(main)
