"""How much of this machine's own convolution rate training and filling reach, all measured in one run.

    python benchmarks/speed.py [--model default] [--rounds 15] [--json FILE]

Everything is timed in short bursts that take turns (A B C A B C ...), so that a machine's moods fall on all alike; a
task's time is the median over its bursts. FLOPs are those of convolutions and matrix products, two per multiply-add,
as torch.utils.flop_counter counts them.
"""

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
import torch.nn.functional as F
from common import check_writable, label, machine, model_named, run, write_json
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from manyfill.data import Example, StreamConfig, TrainingSamples, collate
from manyfill.data.loader import tile, with_channels
from manyfill.device import autocast, best_device, has_fast_bfloat16
from manyfill.errors import ConfigError
from manyfill.images import to_tensor
from manyfill.masks import draw
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler
from manyfill.rng import generator, numpy_generator
from manyfill.train.optim import averaged, optimizer
from manyfill.train.settings import TrainSettings

DEVICE = best_device()
BATCH = 256 if DEVICE.type == "cuda" else 16
FILLS = 16
CONVOLUTIONS = ((64, 32), (96, 16), (128, 16))  # (width, size)
TYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
TRAIN, PICTURES, MANY, ONE = (
    "training step",
    f"{BATCH} pictures, a fill each",
    "one picture, 16 fills",
    "one picture, 1 fill",
)


@dataclass(frozen=True)
class Task:
    """Something to time, and the FLOPs of one call."""

    call: Callable[[], object]
    flops: int


def counted(call: Callable[[], object]) -> Task:
    """A task whose FLOPs are counted by one call; that call also warms it up."""
    with FlopCounterMode(display=False) as counter:
        call()
    return Task(call, counter.get_total_flops())


def measure(tasks: dict[str, Task], rounds: int, burst: float) -> dict[str, np.ndarray]:
    """Seconds per call (rounds,) of every task: each round gives each task one burst of about `burst` seconds."""
    calls = {name: max(1, round(burst / _seconds(task, 1))) for name, task in tasks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in track(range(rounds), "rounds"):
        for name, task in tasks.items():
            task.call()  # untimed: what ran before has left its own data in the caches
            seconds[name].append(_seconds(task, calls[name]))
    return {name: np.array(values) for name, values in seconds.items()}


def _seconds(task: Task, calls: int) -> float:
    start = time.perf_counter()
    for _ in range(calls):
        task.call()
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
    return (time.perf_counter() - start) / calls


def convolution(width: int, size: int, dtype: torch.dtype, backward: bool) -> Task:
    """A 3x3 convolution of a batch in channels_last, and the gradients of its input and weights."""

    def place(t: torch.Tensor) -> torch.Tensor:
        return t.to(DEVICE, dtype, memory_format=torch.channels_last).requires_grad_(backward)

    x, weight = place(torch.randn(BATCH, width, size, size)), place(torch.randn(width, width, 3, 3))
    gradient = torch.randn_like(x)

    def forward() -> torch.Tensor:
        with torch.inference_mode():
            return F.conv2d(x, weight, padding=1)

    def both() -> object:
        return torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), gradient)

    return counted(both if backward else forward)


def convolutions() -> dict[str, Task]:
    return {
        f"{kind} {way} {width}x{size}x{size}": convolution(width, size, dtype, way == "forward+backward")
        for kind, dtype in TYPES.items()
        for way in ("forward", "forward+backward")
        for width, size in CONVOLUTIONS
    }


class OnePhotograph:
    """scikit-image's astronaut as a data set: what is learnt does not matter here, what is computed does."""

    def __init__(self) -> None:
        self.pixels = np.asarray(skimage.data.astronaut())

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        return Example(self.pixels, [], self.name(index))

    def name(self, index: int) -> str:
        return "astronaut"

    def captions(self, index: int) -> list[str]:
        return []


def training_step(model: ConditionalHVAE) -> Task:
    """Forward, backward, clipping, optimiser and moving average for one batch with mixed holes and guides."""
    model, settings = copy.deepcopy(model).train(), TrainSettings.model_validate({"learning_rate": 1e-9})
    config = model.config
    stream = StreamConfig(config.size, config.channels, guide_probability=0.5 if config.guide else 0.0)
    samples = TrainingSamples(OnePhotograph(), stream)
    batch = collate([samples[position] for position in range(BATCH)]).to(DEVICE)
    descent, average = optimizer(model, settings), averaged(model, settings.ema_decay)

    def step() -> None:
        with autocast(DEVICE):
            bound = model(batch.x, batch.m, batch.guide, batch.guide_present, generator(0, "speed", device=DEVICE))
        descent.zero_grad()
        (-bound.total.sum() / bound.dims.sum()).backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), settings.clip_norm)
        descent.step()
        average.update_parameters(model)

    return counted(step)


def photograph(model: ConditionalHVAE) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (S, S, C) at the model's size, and their centre hole bool (S, S)."""
    size = model.config.size
    pixels = with_channels(tile(OnePhotograph().pixels, size, None), model.config.channels)
    return pixels, draw("centre", size, size, numpy_generator(0, "speed"))


def filling(model: ConditionalHVAE, pictures: int, fills: int) -> Task:
    """`fills` fills of the centre hole of each of `pictures` pictures, from pixels to pixels."""
    pixels, mask = photograph(model)
    x = to_tensor(pixels).to(DEVICE).expand(pictures, -1, -1, -1)
    m = torch.from_numpy(mask).float().to(DEVICE).expand(pictures, 1, -1, -1)

    def fill() -> torch.Tensor:
        noise = [generator(0, "fill", i) for i in range(pictures * fills)]
        with autocast(DEVICE):
            return model.fill(model.encode_known(x, m), noise).x

    # Counted with gradients on: the counter cannot follow modules without.
    return Task(torch.inference_mode()(fill), counted(fill).flops)


def filler_call(model: ConditionalHVAE, fills: int) -> Task:
    """The same for one picture as a user meets it, reading, cropping and pasting included."""
    filler, (pixels, mask) = Filler(model, "speed"), photograph(model)
    return Task(partial(filler, pixels, mask, n=fills), filling(model, 1, fills).flops)


def best_rate(teraflops: dict[str, float], kind: str, way: str) -> float:
    """The machine's rate: the best of its convolutions, so the sternest to be held against."""
    return max(rate for name, rate in teraflops.items() if name.startswith(f"{kind} {way} "))


def summarise(tasks: dict[str, Task], seconds: dict[str, np.ndarray]) -> dict[str, Any]:
    """Medians, rates, and the ratios that this benchmark is about."""
    median = {name: float(np.median(values)) for name, values in seconds.items()}
    teraflops = {name: task.flops / median[name] / 1e12 for name, task in tasks.items()}
    kind = "bf16" if has_fast_bfloat16(DEVICE) else "fp32"  # what the model itself computes in
    forward, both = (best_rate(teraflops, kind, way) for way in ("forward", "forward+backward"))
    ratios = {
        "pictures_per_second": BATCH / median[TRAIN],
        "train_share_of_conv_rate": teraflops[TRAIN] / both,
        "sampling_share_of_conv_rate": teraflops[PICTURES] / forward,
        "sampling_one_picture_share_of_conv_rate": teraflops[MANY] / forward,
        "cost_of_16_fills_over_1": median[MANY] / median[ONE],
        "filler_cost_of_16_fills_over_1": median[f"Filler, {MANY}"] / median[f"Filler, {ONE}"],
    }
    rows = {
        name: {
            "ms": 1e3 * median[name],
            "ms_quartiles": [1e3 * float(value) for value in np.quantile(seconds[name], [0.25, 0.75])],
            "gflop": task.flops / 1e9,
            "tflops": teraflops[name],
        }
        for name, task in tasks.items()
    }
    memory = {"peak_gpu_gib": torch.cuda.max_memory_allocated() / 2**30} if DEVICE.type == "cuda" else {}
    return {
        "compute": kind,
        **memory,
        "conv_rate_tflops": {"forward": forward, "forward+backward": both},
        **ratios,
        "tasks": rows,
    }


def show(console: Console, record: dict[str, Any]) -> None:
    times = Table("task", "ms", "GFLOP", "TFLOP/s", title=f"{record['machine']['device']}, model {record['model']}")
    for name, row in record["tasks"].items():
        times.add_row(name, f"{row['ms']:.2f}", f"{row['gflop']:.2f}", f"{row['tflops']:.3f}")
    rates = record["conv_rate_tflops"]
    times.caption = (
        f"the machine's rate is the best {record['compute']} convolution: {rates['forward']:.3f} TFLOP/s forward, "
        f"{rates['forward+backward']:.3f} forward+backward"
    )
    ratios = Table("ratio", "value")
    for name, value in record.items():
        if isinstance(value, float):
            ratios.add_row(name.replace("_", " "), f"{value:.3f}")
    console.print(times, ratios)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--model", default="default", help="model directory, hub id, 'default', or an untrained preset")
    parser.add_argument("--rounds", type=int, default=15, help="bursts per task")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if args.rounds < 1:
        raise ConfigError("--rounds must be 1 or more")
    check_writable(args.json)
    model = model_named(args.model).to(DEVICE)
    tasks = {
        **convolutions(),
        TRAIN: training_step(model),
        PICTURES: filling(model, BATCH, 1),
        MANY: filling(model, 1, FILLS),
        ONE: filling(model, 1, 1),
        f"Filler, {MANY}": filler_call(model, FILLS),
        f"Filler, {ONE}": filler_call(model, 1),
    }
    record = {
        "machine": machine(),
        "model": label(args.model),
        **summarise(tasks, measure(tasks, args.rounds, burst=0.1)),
    }
    show(Console(), record)
    write_json(args.json, record)


if __name__ == "__main__":
    run(main)
