"""How much memory a step of training takes, and how much less with `train.recompute`.

    python benchmarks/memory.py [--preset large256] [--batch 4] [--precision auto] [--json FILE]

One step from the start of a run, gradient and optimiser, in a process of its own each. On a CPU the peak is that of the
process beyond what it held before the step, on a GPU that of torch's allocator; both hold the gradients and the
optimiser's moments too. Linux only.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from common import apart, check_writable, run, watched, write_json
from rich.console import Console
from rich.table import Table

from manyfill.benchmark import DEVICE, OnePicture, machine
from manyfill.data import collate
from manyfill.errors import ConfigError
from manyfill.train.distributed import ALONE
from manyfill.train.engine import Engine
from manyfill.train.settings import Settings, load
from manyfill.train.setup import initial_state, training_samples


def settings_of(args: argparse.Namespace, recompute: bool) -> Settings:
    chosen = {"batch_size": args.batch, "precision": args.precision, "recompute": str(recompute).lower()}
    return load(["astronaut"], preset=args.preset, assignments=[f"train.{k}={v}" for k, v in chosen.items()])


def step(settings: Settings) -> dict[str, float]:
    """MiB and seconds of one step, and its loss."""
    samples = training_samples(settings, OnePicture())
    state = initial_state(settings, DEVICE)
    batch = collate([samples[position] for position in range(settings.train.batch_size)])
    engine, record = Engine(state.model, settings, ALONE, DEVICE), dict[str, float]()
    cuda = DEVICE.type == "cuda"
    before = torch.cuda.memory_allocated() if cuda else 0
    with watched(record):
        loss, _ = engine.gradient(batch, 0, kl_weight=1.0)
        state.optimizer.step()
        if cuda:
            torch.cuda.synchronize()
    if cuda:
        record["peak_mib"] = (torch.cuda.max_memory_allocated() - before) / 2**20
    names = ("peak_mib", "seconds", "processor_seconds")
    return {"loss": loss, **{name: record[name] for name in names}}


def compare(args: argparse.Namespace) -> dict[str, Any]:
    """Both ways, and the shares that this benchmark is about."""
    plain, recomputed = (apart(step, settings_of(args, recompute)) for recompute in (False, True))
    shares = {f"{name}_share": recomputed[name] / plain[name] for name in ("peak_mib", "processor_seconds")}
    return {"plain": plain, "recomputed": recomputed, **shares}


def show(record: dict[str, Any]) -> None:
    title = f"{record['machine']['device']}, {record['preset']}, batch {record['batch']}, {record['precision']}"
    table = Table("a step", "plain", "recomputed", title=title)
    for name, value in record["plain"].items():
        table.add_row(name.replace("_", " "), f"{value:,.2f}", f"{record['recomputed'][name]:,.2f}")
    table.caption = f"{1 - record['peak_mib_share']:.0%} less memory"
    Console().print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="large256")
    parser.add_argument("--batch", type=int, default=4, help="pictures")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32", "bfloat16"))
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if args.batch < 1:
        raise ConfigError("--batch must be 1 or more")
    check_writable(args.json)
    asked = {name: getattr(args, name) for name in ("preset", "batch", "precision")}
    record = {"machine": machine(), **asked, **compare(args)}
    show(record)
    write_json(args.json, record)


if __name__ == "__main__":
    run(main)
