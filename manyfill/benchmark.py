"""How much of this machine's own convolution rate training and filling reach, all measured in one run.

Everything is timed in short bursts that take turns (A B C A B C ...), so that a machine's moods fall on all alike; a
task's time is the median over its bursts. FLOPs are those of convolutions and matrix products, two per multiply-add,
as torch.utils.flop_counter counts them.
"""

import copy
import platform
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from manyfill.checkpoint import load_model
from manyfill.data import Example, StreamConfig, TrainingSamples, collate
from manyfill.data.loader import tile, with_channels
from manyfill.device import autocast, best_device, has_fast_bfloat16
from manyfill.images import resize, to_tensor
from manyfill.locate import shipped
from manyfill.masks import draw
from manyfill.models.config import PRESETS
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
BURST = 0.1  # seconds
TRAIN, PICTURES = "training step", f"{BATCH} pictures, a fill each"
MANY, ONE = "one picture, 16 fills", "one picture, 1 fill"


@dataclass(frozen=True)
class Task:
    """Something to time, and the FLOPs of one call."""

    call: Callable[[], object]
    flops: int


def benchmark(source: str, rounds: int, follow: Callable[[range], Iterable[int]] = iter) -> dict[str, Any]:
    """The record of a whole run for a model directory, hub id, shipped name or an untrained preset; raises ModelError.

    `follow` is given the rounds and passes them on, such as rich's progress bar.
    """
    model = model_named(source).to(DEVICE)
    tasks = {
        PICTURES: filling(model, BATCH, 1),
        MANY: filling(model, 1, FILLS),
        ONE: filling(model, 1, 1),
        f"Filler, {MANY}": filler_call(model, FILLS),
        f"Filler, {ONE}": filler_call(model, 1),
    }
    memory = {"fill": peak_mib()}
    tasks[TRAIN] = training_step(model)
    memory["train"] = peak_mib()
    tasks |= convolutions()
    seconds = measure(tasks, follow(range(rounds)), BURST)
    return {"machine": machine(), "model": label(source), **summarise(tasks, seconds), "peak_memory_mib": memory}


def model_named(source: str) -> ConditionalHVAE:
    """The model of a directory, a hub id or a shipped name; another preset's name gives it freshly initialised."""
    if source in PRESETS and source not in shipped():
        torch.manual_seed(0)
        return ConditionalHVAE(PRESETS[source]).eval()
    return load_model(source).model


def label(source: str) -> str:
    """How a record names a model: where a directory lies on this machine is nobody's business."""
    return Path(source).resolve().name if Path(source).is_dir() else source


def machine() -> dict[str, Any]:
    """Date, GPU or processor, torch version and thread count."""
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else _cpu_name(),
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
    }


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


def peak_mib() -> float | None:
    """The most memory so far, in MiB: of torch's allocator on a GPU, else of the process; None where nobody tells."""
    if DEVICE.type == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / 2 ** (20 if sys.platform == "darwin" else 10)


def counted(call: Callable[[], object]) -> Task:
    """A task whose FLOPs are counted by one call; that call also warms it up."""
    with FlopCounterMode(display=False) as counter:
        call()
    return Task(call, counter.get_total_flops())


def measure(tasks: dict[str, Task], rounds: Iterable[int], burst: float) -> dict[str, np.ndarray]:
    """Seconds per call (rounds,) of every task: each round gives each task one burst of about `burst` seconds."""
    calls = {name: max(1, round(burst / _seconds(task, 1))) for name, task in tasks.items()}
    seconds: dict[str, list[float]] = {name: [] for name in tasks}
    for _ in rounds:
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
    """What the machine's rate is taken from: the best of a few, forward, and with both gradients."""
    return {
        f"{kind} {way} {width}x{size}x{size}": convolution(width, size, dtype, way == "forward+backward")
        for kind, dtype in TYPES.items()
        for way in ("forward", "forward+backward")
        for width, size in CONVOLUTIONS
    }


class OnePicture:
    """Drawn clouds as a data set: what is learnt does not matter here, what is computed does."""

    def __init__(self) -> None:
        coarse = numpy_generator(0, "benchmark").integers(0, 256, (8, 8, 3), dtype=np.uint8)
        self.pixels = resize(coarse, 512, 512)

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> Example:
        return Example(self.pixels, [], self.name(index))

    def name(self, index: int) -> str:
        return "clouds"

    def captions(self, index: int) -> list[str]:
        return []


def training_step(model: ConditionalHVAE) -> Task:
    """Forward, backward, clipping, optimiser and moving average for one batch with mixed holes and guides."""
    model, settings = copy.deepcopy(model).train(), TrainSettings.model_validate({"learning_rate": 1e-9})
    config = model.config
    stream = StreamConfig(config.size, config.channels, guide_probability=0.5 if config.guide else 0.0)
    samples = TrainingSamples(OnePicture(), stream)
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


def picture(model: ConditionalHVAE) -> tuple[np.ndarray, np.ndarray]:
    """Pixels uint8 (S, S, C) at the model's size, and their centre hole bool (S, S)."""
    size = model.config.size
    pixels = with_channels(tile(OnePicture().pixels, size, None), model.config.channels)
    return pixels, draw("centre", size, size, numpy_generator(0, "speed"))


def filling(model: ConditionalHVAE, pictures: int, fills: int) -> Task:
    """`fills` fills of the centre hole of each of `pictures` pictures, from pixels to pixels."""
    pixels, mask = picture(model)
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
    filler, (pixels, mask) = Filler(model, "speed"), picture(model)
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
    rows = {
        name: {
            "ms": 1e3 * median[name],
            "ms_quartiles": [1e3 * float(value) for value in np.quantile(seconds[name], [0.25, 0.75])],
            "gflop": task.flops / 1e9,
            "tflops": teraflops[name],
        }
        for name, task in tasks.items()
    }
    return {
        "compute": kind,
        "conv_rate_tflops": {"forward": forward, "forward+backward": both},
        "pictures_per_second": BATCH / median[TRAIN],
        "train_share_of_conv_rate": teraflops[TRAIN] / both,
        "sample_share_of_conv_rate": teraflops[PICTURES] / forward,
        "sample_one_picture_share_of_conv_rate": teraflops[MANY] / forward,
        "fill_1_ms": 1e3 * median[f"Filler, {ONE}"],
        "fill_16_ms": 1e3 * median[f"Filler, {MANY}"],
        "cost_of_16_fills_over_1": median[MANY] / median[ONE],
        "filler_cost_of_16_fills_over_1": median[f"Filler, {MANY}"] / median[f"Filler, {ONE}"],
        "tasks": rows,
    }
