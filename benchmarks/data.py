"""How fast pictures come out of tar shards, whether memory stays flat, and what an index of a million pictures costs.

    python benchmarks/data.py [--preset base64] [--rounds 5] [--pictures 1000000] [--draws 100000] [--json FILE]

Reading with 0, 1 and 2 workers and training take turns, so that a machine's moods fall on all alike. Others may be
using the machine, so rates are also given per second of processor time, workers included, and compared in that;
training is given one thread, since several would wait for one another by spinning. The million pictures are links to
one shard of small JPEGs with captions, in a temporary folder. Linux only.
"""

import argparse
import io
import itertools
import os
import tarfile
import tempfile
import warnings
from collections.abc import Callable, Generator
from concurrent.futures import ProcessPoolExecutor
from contextlib import closing
from multiprocessing import active_children, get_context
from pathlib import Path
from typing import Any

import numpy as np
import skimage.data
import torch
from common import check_writable, clock, resident, run, watched, write_json
from PIL import Image
from rich.console import Console
from rich.progress import track
from rich.table import Table

from manyfill.benchmark import BATCH, machine, model_named, training_step
from manyfill.data import Batch, StreamConfig, TrainingSamples, batches, open_source
from manyfill.data.pack import Packer, Packing
from manyfill.data.pictures import PictureFiles
from manyfill.errors import ConfigError
from manyfill.images import resize
from manyfill.models.hvae import ConditionalHVAE
from manyfill.processors import processors

SIZE = 64
WORKERS = (0, 1, 2)
PHOTOGRAPHS = ("astronaut", "chelsea", "coffee", "rocket")
COPIES = 50  # of each photograph
STEPS = 60
PER_SHARD = 10_000
WARM_UP = 2_000
TRAINING = "training step"
Rates = dict[str, dict[str, float]]


# ---------------------------------------------------------------------------------------------------- throughput


def photographs(folder: Path) -> Path:
    """JPEGs of 300 to 512 pixels on the shorter side, with captions."""
    folder.mkdir()
    for name in PHOTOGRAPHS:
        image = Image.fromarray(getattr(skimage.data, name)())
        for copy in range(COPIES):
            image.save(folder / f"{name}{copy}.jpg", quality=90)
            (folder / f"{name}{copy}.txt").write_text(f"{name}\n")
    return folder


def stream_of(source: PictureFiles, workers: int) -> Generator[Batch, None, None]:
    """Batches as training draws them, crops, masks and guides included."""
    yield from batches(TrainingSamples(source, StreamConfig(SIZE)), BATCH, workers=workers)


def reading(source: PictureFiles, workers: int, steps: int) -> Callable[[], object]:
    """Draw `steps` batches; workers start and end within."""

    def read() -> None:
        with closing(stream_of(source, workers)) as stream:
            for _ in itertools.islice(stream, steps):
                pass

    return read


def throughput(tasks: dict[str, tuple[Callable[[], object], int]], rounds: int) -> Rates:
    """Pictures per second of each task (its call and how many pictures that takes), the median over the rounds."""
    seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in tasks}
    for _ in track(range(rounds), "rounds"):
        for name, (call, _) in tasks.items():
            before = clock()
            call()
            seconds[name].append(tuple(b - a for a, b in zip(before, clock(), strict=True)))  # type: ignore[arg-type]
    rates = {}
    for name, (_, pictures) in tasks.items():
        wall, processor = np.median(seconds[name], axis=0)
        rates[name] = {
            "pictures_per_second": pictures / wall,
            "pictures_per_processor_second": pictures / max(processor, 1e-9),
        }
    return rates


def tasks(folder: Path, model: ConditionalHVAE, steps: int) -> dict[str, tuple[Callable[[], object], int]]:
    loose = open_source(photographs(folder / "photographs"))
    for name, size in (("full", None), ("shrunk", 2 * SIZE)):
        Packer(loose, folder / name, Packing(size), workers=2).run()
    found: dict[str, tuple[Callable[[], object], int]] = {TRAINING: (training_step(model).call, BATCH)}
    for name, what in (("full", "photographs"), ("shrunk", f"packed with --size {2 * SIZE}")):
        source = open_source(folder / name)
        for workers in WORKERS:
            found[f"{what}, {workers} workers"] = (reading(source, workers, steps), steps * BATCH)
    return found


# -------------------------------------------------------------------------------------------------------- memory


def many(folder: Path, pictures: int) -> Path:
    """So many pictures of 64x64 with captions: one shard, under as many names as it takes."""
    folder.mkdir()
    first = folder / "shard-000000.tar"
    encoded = io.BytesIO()
    Image.fromarray(resize(np.asarray(skimage.data.astronaut()), SIZE, SIZE)).save(encoded, "JPEG", quality=90)
    files = {".jpg": encoded.getvalue(), ".txt": b"a caption of a usual length, some fifty letters\n"}
    with tarfile.open(first, "w", format=tarfile.USTAR_FORMAT) as tar:
        for number in range(min(PER_SHARD, pictures)):
            for suffix, content in files.items():
                member = tarfile.TarInfo(f"{number:09d}{suffix}")
                member.size = len(content)
                tar.addfile(member, io.BytesIO(content))
    for number in range(1, pictures // PER_SHARD):
        os.link(first, folder / f"shard-{number:06d}.tar")
    return folder


def indexing(folder: Path) -> tuple[PictureFiles, dict[str, Any]]:
    """Open a set whose shards have no index yet, and again now that they have one."""
    assert not any(folder.glob("*.index"))
    # In a process of its own, or the second opening would find the memory that the first gave back.
    with ProcessPoolExecutor(1, get_context("fork")) as apart:
        first = apart.submit(opening, folder).result()
    again: dict[str, float] = {}
    with watched(again):
        source = open_source(folder)
    stored = sum(path.stat().st_size for path in folder.glob("*.index"))
    return source, {"pictures": len(source), "first": first, "again": again, "stored_mib": stored / 2**20}


def opening(folder: Path) -> dict[str, float]:
    record: dict[str, float] = {}
    with watched(record):
        source = open_source(folder)
    assert len(source)
    return record


def flatness(source: PictureFiles, draws: int) -> dict[str, float]:
    """MiB of this process and of its worker after a warm-up, and after so many draws more."""

    def held() -> dict[str, float]:
        return {"loop": resident(), "worker": sum(resident(child.pid or 0) for child in active_children())}

    with closing(stream_of(source, workers=1)) as stream:
        for _ in itertools.islice(stream, WARM_UP // BATCH):
            pass
        start = held()
        for _ in track(itertools.islice(stream, draws // BATCH), "draws", total=draws // BATCH):
            pass
        end = held()
    rows = {f"{who}_{when}_mib": at[who] for who in start for when, at in (("start", start), ("end", end))}
    return {"draws": draws // BATCH * BATCH, **rows}


# ------------------------------------------------------------------------------------------------------- the rest


def show(console: Console, record: dict[str, Any]) -> None:
    title = f"{record['machine']['device']}, {record['processors']} processor(s) to use, load {record['load']:.1f}"
    rates = Table("pictures", "per second", "per processor second", title=title)
    for name, rate in record["rates"].items():
        rates.add_row(name, *(f"{value:.0f}" for value in rate.values()))
    rates.caption = f"by processor time reading is at least {record['times_training']:.1f} times as fast as training"
    memory = Table("memory and index", "value")
    index = record["index"]
    for when in ("first", "again"):
        for name, value in index[when].items():
            memory.add_row(f"{index['pictures']:,} pictures, opened {when}: {name.replace('_', ' ')}", f"{value:.1f}")
    memory.add_row("indexes on the disk, MiB", f"{index['stored_mib']:.1f}")
    for name, value in record["flatness"].items():
        memory.add_row(name.replace("_", " "), f"{value:,.1f}")
    console.print(rates, memory)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--preset", default="base64", help="whose training rate to compare with")
    parser.add_argument("--rounds", type=int, default=5, help="times that each task is measured")
    parser.add_argument("--pictures", type=int, default=1_000_000, help="how many to index, in shards of 10,000")
    parser.add_argument("--draws", type=int, default=100_000, help="over how many memory is to stay flat")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    args = parser.parse_args()
    if min(args.rounds, args.pictures, args.draws // BATCH) < 1:
        raise ConfigError(f"--rounds and --pictures must be 1 or more, --draws {BATCH} or more")
    check_writable(args.json)
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than processors: on purpose
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, index = indexing(many(folder / "many", args.pictures))
        flat = flatness(source, args.draws)
        rates = throughput(tasks(folder, model_named(args.preset), STEPS), args.rounds)
    per_processor = {task: rate["pictures_per_processor_second"] for task, rate in rates.items()}
    training = per_processor.pop(TRAINING)
    record = {
        "machine": machine(),
        "processors": processors(),
        "load": os.getloadavg()[1],  # over the last five minutes, this benchmark included
        "preset": args.preset,
        "rates": rates,
        "times_training": min(per_processor.values()) / training,
        "index": index,
        "flatness": flat,
    }
    show(Console(), record)
    write_json(args.json, record)


if __name__ == "__main__":
    run(main)
