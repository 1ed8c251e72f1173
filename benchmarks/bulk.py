"""How near filling many pictures comes to the model's own batched rate, alone and on Ray.

    python benchmarks/bulk.py [--model default] [--pictures 64] [-n 8] [--sizes 64 256] [--actors 2] [--json FILE]

Pictures of scikit-image's astronaut, each another part of it, are written to a temporary folder with a drawn mask each.
The model's own rate is that of `model.fill` alone, and of reading the known part before it, on batches of the size that
fill-many uses, in the same process and threads. It is measured in rounds that take turns with fill-many, so that a
machine's moods fall on both alike; a rate is the median over its rounds. Ray is measured once, with its start-up and
from the first to the last picture without it, next to as many processes by RANK and WORLD_SIZE.
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
from common import check_writable, label, machine, run, write_json
from rich.console import Console
from rich.table import Table

from manyfill.bulk.fill import BulkFiller, Row, block_numbers, pictures_at_once
from manyfill.bulk.job import BATCH, WORKERS, Job
from manyfill.bulk.pictures import Pictures
from manyfill.device import autocast
from manyfill.errors import ConfigError
from manyfill.images import resize, save_png
from manyfill.inputs import Sampling
from manyfill.masks import KINDS, draw, write_mask
from manyfill.pipeline import AT_ONCE, Filler
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
    pictures, size = Pictures(job.pictures, job.masks, job.max_pixels), pictures_at_once(job)
    shown = [filler.show(pictures.read(number)) for number in range(len(pictures))]
    inputs = [
        (torch.cat([s.x for s in part if s]), torch.cat([s.m for s in part if s]))
        for part in (shown[start : start + size] for start in range(0, len(shown), size))
    ]
    n, seed = job.sampling.n, job.sampling.seed
    portions = [range(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]
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
    pictures = Pictures(job.pictures, job.masks, job.max_pixels)

    def fill() -> int:
        with tempfile.TemporaryDirectory(dir=job.out.parent) as out:
            bulk = BulkFiller(replace(job, out=Path(out)), pictures, filler, Path(out, "scratch"))
            return sum(row["n"] for row in bulk.fill(block_numbers(job, len(pictures))))

    return fill


def measure(tasks: dict[str, Callable[[], int]], rounds: int) -> dict[str, float]:
    """Median fills per second of each task; they take turns."""
    rates: dict[str, list[float]] = {name: [] for name in tasks}
    for each in range(rounds + 1):
        for name, task in tasks.items():
            start = time.perf_counter()
            count = task()
            if each:  # the first round warms up
                rates[name].append(count / (time.perf_counter() - start))
    return {name: float(np.median(values)) for name, values in rates.items()}


def timed(rows: Iterator[Row]) -> tuple[float, float, int]:
    """Seconds to the end, seconds from the first row on, and the fills after that row."""
    start = time.perf_counter()
    first = next(rows)
    began = time.perf_counter()
    fills = sum(row["n"] for row in rows)
    end = time.perf_counter()
    assert first["n"]
    return end - start, end - began, fills
