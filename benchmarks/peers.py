"""Training pictures/s, fills/s and quality per minute of training against others' code, on this machine in one run.

    python benchmarks/peers.py --pictures TRAIN --validation VAL --vdvae DIR --ipa DIR --vaeac DIR

DIR is a checkout of github.com/openai/vdvae, plai-group/ipa or tigvarts/vaeac; one left out is not compared. All have
the parameters of the preset, as nearly as their widths allow, and see the same pictures and holes in the same order.
They take turns every few seconds, so that a machine's moods fall on all alike. Writes peers.json, peers.md and
peers.png.
"""

import argparse
import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import clock, run, write_json
from contenders import report
from contenders.contender import HOLE, WHOLE, Contender
from contenders.ours import Manyfill
from contenders.vaeac import VAEAC
from contenders.vdvae import IPA, VDVAE
from torch import Tensor

from manyfill.benchmark import machine
from manyfill.data import fixed_batches, open_source
from manyfill.errors import ConfigError
from manyfill.evaluate.scores import crps
from manyfill.files import make_folder
from manyfill.images import to_levels
from manyfill.masks import draw
from manyfill.models.bound import bits_per_dim
from manyfill.models.config import PRESETS
from manyfill.rng import numpy_generator

Maker = partial[Any]  # of a contender; its kind and settings can be read off
BURST, TURN, AT_ONCE = 1.0, 5.0, 16  # seconds of timing, seconds of learning, pictures measured at once
FIRST_PICTURES = 8192  # more than any contender sees in minutes on a processor


def contenders(args: argparse.Namespace) -> list[Maker]:
    """What makes each of those asked for, all with the parameters of the preset; ConfigError."""
    size, wanted = PRESETS[args.preset].size, Manyfill(HOLE, args.preset).parameters
    makers: list[Maker] = []
    if args.ipa or args.vaeac:
        makers.append(partial(Manyfill, HOLE, args.preset, args.precision))
    if args.vdvae:
        makers.append(partial(Manyfill, WHOLE, args.preset, args.precision))
        makers += [partial(VDVAE, args.vdvae, wanted, size, share) for share in args.blocks]
    if args.ipa:
        makers += [partial(IPA, args.ipa, wanted, size, share) for share in args.blocks]
    if args.vaeac:
        makers.append(partial(VAEAC, args.vaeac, wanted, size))
    return makers


class Pictures:
    """Training pictures and holes: the same batch for everyone who asks for the same place and number."""

    def __init__(self, paths: list[Path], size: int) -> None:
        source = open_source(*paths)
        kept = fixed_batches(source, size, 3, 0, "centre", AT_ONCE, min(len(source), FIRST_PICTURES))
        self.x = torch.cat([batch.x for batch in kept])
        self.holes = {
            task: torch.from_numpy(draw(kind, size, size, numpy_generator(0, "peers"))).float()
            for task, kind in ((HOLE, "centre"), (WHOLE, "all"))
        }

    def hole(self, task: str, n: int) -> Tensor:
        return self.holes[task].expand(n, 1, -1, -1)

    def batch(self, task: str, first: int, n: int) -> tuple[Tensor, Tensor]:
        """Pictures `first` onwards of an endless row, half of them mirrored, and the task's holes."""
        epochs, places = np.divmod(np.arange(first, first + n), len(self.x))
        orders = {epoch: numpy_generator(0, "peers", int(epoch)).permutation(len(self.x)) for epoch in set(epochs)}
        x = self.x[[int(orders[epoch][place]) for epoch, place in zip(epochs, places, strict=True)]]
        mirrored = torch.from_numpy(numpy_generator(1, "peers", first).random(n) < 0.5)
        return torch.where(mirrored[:, None, None, None], x.flip(-1), x), self.hole(task, n)


def take_turns(tasks: dict[str, Callable[[], int]], rounds: int) -> dict[str, np.ndarray]:
    """Pictures per second on the wall and of the processor (rounds, 2); a task's turn lasts about BURST seconds."""
    rates: dict[str, list[np.ndarray]] = {name: [] for name in tasks}
    for each in range(rounds + 1):
        for name, task in tasks.items():
            before, pictures = np.array(clock()), 0
            while pictures == 0 or clock()[0] - before[0] < BURST:
                pictures += task()
            if each:  # the first round warms up
                rates[name].append(pictures / np.maximum(clock() - before, 1e-9))
    return {name: np.array(values) for name, values in rates.items()}


def speed(makers: list[Maker], pictures: Pictures, batch: int, rounds: int) -> dict[str, Any]:
    """What each does in a second of training and of drawing, and how many times that manyfill does, turn by turn."""
    competing: list[Contender] = [make() for make in makers]
    tasks: dict[str, Callable[[], int]] = {}
    for one in competing:
        x, m = pictures.batch(one.task, 0, batch)
        one.prepare(pictures.x[:AT_ONCE])
        tasks[f"train {one.name}"] = partial(done, one.step, x, m, 0.0)
        tasks[f"fill {one.name}"] = partial(done, one.fill, x, m, one.modes[0])
    rates, record = take_turns(tasks, rounds), dict[str, Any]()
    ours = {one.task: one.name for one in competing if isinstance(one, Manyfill)}
    for one in competing:
        row = record[one.name] = {
            **{"task": one.task, "parameters": one.parameters, "precision": one.precision, **one.origin}
        }
        for what in ("train", "fill"):
            own = rates[f"{what} {one.name}"]
            times = rates[f"{what} {ours[one.task]}"] / own
            row[what] = {
                "pictures_per_second": float(np.median(own[:, 0])),
                "pictures_per_processor_second": float(np.median(own[:, 1])),
                "quartiles": np.quantile(own[:, 0], [0.25, 0.75]).tolist(),
                "manyfill_times": float(np.median(times[:, 0])),
                "manyfill_times_by_processor": float(np.median(times[:, 1])),
            }
    return record


def done(work: Callable[..., object], x: Tensor, *rest: object) -> int:
    work(x, *rest)
    return len(x)


class Learner:
    """A contender in training: what it has taken so far, on the wall and of the processor."""

    def __init__(self, contender: Contender, pictures: Pictures, seconds: float) -> None:
        self.contender, self.pictures, self.seconds = contender, pictures, seconds
        self.taken, self.seen = np.zeros(2), 0
        before = np.array(clock())
        contender.prepare(pictures.x)  # counts as time of learning
        self.taken += clock() - before

    def turn(self) -> bool:
        """Learn for a while; whether time is left."""
        one, end = self.contender, min(self.seconds, self.taken[0] + TURN)
        while self.taken[0] < end:
            x, m = self.pictures.batch(one.task, self.seen, one.batch)
            before = np.array(clock())
            one.step(x, m, min(1.0, self.taken[0] / self.seconds))
            self.taken += clock() - before
            self.seen += len(x)
        return bool(self.taken[0] < self.seconds)

    def figures(self, validation: Tensor, fills: int) -> dict[str, Any]:
        """What was learnt, used in the way that the first pictures show to be the best."""
        one = self.contender
        first = {mode: bits_of(one, validation[:AT_ONCE], self.pictures, mode) for mode in one.modes}
        best = min(first, key=lambda mode: first[mode])
        score = score_of(one, validation, self.pictures, best, fills) if one.task == HOLE else None
        return {
            **{"task": one.task, "parameters": one.parameters, "precision": one.precision, **one.origin},
            **{"seconds": float(self.taken[0]), "processor_seconds": float(self.taken[1])},
            **{"batch": one.batch, "pictures_seen": self.seen, "steps_refused": one.refused},
            **{"used": best, "bits_per_dim": bits_of(one, validation, self.pictures, best), "crps": score},
        }


def bits_of(one: Contender, validation: Tensor, pictures: Pictures, mode: str) -> float:
    """Bits per hole value of all validation pictures."""
    parts = [(x, pictures.hole(one.task, len(x))) for x in validation.split(AT_ONCE)]
    dims = sum(float(m.sum()) * x.shape[1] for x, m in parts)
    return bits_per_dim(sum(one.nats(x, m, mode) for x, m in parts), dims)


def score_of(one: Contender, validation: Tensor, pictures: Pictures, mode: str, fills: int) -> float:
    """CRPS of the hole in grey levels, a mean over pictures."""
    found = []
    for x in validation.split(AT_ONCE):
        m = pictures.hole(one.task, len(x))
        drawn = np.stack([levels(one.fill(x, m, mode)) for _ in range(fills)], 1)
        inside = m[0, 0].numpy() > 0
        pairs = zip(drawn, levels(x), strict=True)
        found += [crps(own[:, inside].reshape(fills, -1), truth[inside].reshape(-1)) for own, truth in pairs]
    return float(np.mean(found))


def levels(x: Tensor) -> np.ndarray:
    """Pictures in [-1, 1] as the grey levels 0 to 255 that they would be stored as."""
    return np.rint(to_levels(x.numpy()))


def quickest(makers: list[Maker], speed: dict[str, Any]) -> list[Maker]:
    """Of each peer the layout that trains the most pictures per second, so that it learns the most in the time."""
    best: dict[tuple[object, str], tuple[float, Maker]] = {}
    for make, row in zip(makers, speed.values(), strict=True):
        key, rate = (make.func, row["task"]), row["train"]["pictures_per_second"]
        if key not in best or rate > best[key][0]:
            best[key] = rate, make
    return [make for _, make in best.values()]


def quality(makers: list[Maker], pictures: Pictures, args: argparse.Namespace) -> dict[str, Any]:
    """Each after as many minutes of training from scratch, and how much lower manyfill's bits are."""
    learners = [Learner(make(), pictures, 60 * args.minutes) for make in makers]
    learning = list(learners)
    while learning:
        learning = [learner for learner in learning if learner.turn()]
    source, size = open_source(*args.validation), PRESETS[args.preset].size
    kept = fixed_batches(source, size, 3, 0, "centre", AT_ONCE, args.scored)
    validation = torch.cat([batch.x for batch in kept])
    record = {learner.contender.name: learner.figures(validation, args.fills) for learner in learners}
    ours = {one.contender.task: one.contender.name for one in learners if isinstance(one.contender, Manyfill)}
    for row in record.values():
        row["manyfill_lower_by"] = 1 - record[ours[row["task"]]]["bits_per_dim"] / row["bits_per_dim"]
    return record


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--pictures", type=Path, nargs="+", required=True, help="folders or tar shards to learn from")
    parser.add_argument("--validation", type=Path, nargs="+", help="likewise, to measure on")
    for peer in ("vdvae", "ipa", "vaeac"):
        parser.add_argument(f"--{peer}", type=Path, metavar="DIR", help="a checkout; not compared without")
    parser.add_argument("--minutes", type=float, default=5, help="of training, each")
    part = parser.add_mutually_exclusive_group()
    part.add_argument("--speed-only", action="store_true", help="measure no quality")
    part.add_argument("--quality-only", action="store_true", help="go on from the speed in the peers.json of --out")
    parser.add_argument("--preset", default="base64", help="manyfill's own")
    parser.add_argument("--precision", default="auto", choices=("auto", "float32"), help="manyfill's own")
    parser.add_argument("--blocks", type=float, nargs="+", default=[1, 0.25], help="shares of VDVAE's and IPA's blocks")
    parser.add_argument("--batch", type=int, default=8, help="pictures at once where speed is measured")
    parser.add_argument("--rounds", type=int, default=5, help="turns where speed is measured")
    parser.add_argument("--scored", type=int, default=128, help="validation pictures")
    parser.add_argument("--fills", type=int, default=4, help="of each, to be scored")
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results"), help="folder of the results")
    args = parser.parse_args()
    if not (args.vdvae or args.ipa or args.vaeac):
        raise ConfigError("no peer to compare with; name a checkout by --vdvae, --ipa or --vaeac")
    if not (args.speed_only or args.validation):
        raise ConfigError("--validation: name pictures to measure quality on, or give --speed-only")
    if min(args.batch, args.rounds, args.scored, args.fills) < 1 or args.minutes <= 0:
        raise ConfigError("--batch, --rounds, --scored and --fills must be 1 or more, --minutes more than 0")
    if not all(0 < share <= 1 for share in args.blocks):
        raise ConfigError("--blocks: shares must lie above 0 and at most at 1")
    if args.preset not in PRESETS:
        raise ConfigError(f"--preset {args.preset}: no such preset; valid presets: {', '.join(PRESETS)}")
    return args


def measured_before(file: Path, rows: int) -> dict[str, Any]:
    """The record of an earlier run with as many contenders; ConfigError."""
    try:
        record: dict[str, Any] = json.loads(file.read_text())
        found = len(record["speed"])
    except (OSError, ValueError, KeyError):
        raise ConfigError(f"--quality-only: {file} holds no speed; run with --speed-only first") from None
    if found != rows:
        raise ConfigError(f"--quality-only: {file} is of {found} contenders, not {rows}; run with --speed-only first")
    return record


def main() -> None:
    args = parsed()
    makers, size = contenders(args), PRESETS[args.preset].size
    for make in makers:
        make()  # what is no checkout is better found out now
    out, pictures = make_folder(args.out), Pictures(args.pictures, size)
    settings = {"preset": args.preset, "size": size, "batch": args.batch, "rounds": args.rounds}
    record: dict[str, Any] = {"machine": machine(), **settings}
    if args.quality_only:
        record = measured_before(out / "peers.json", len(makers))
    else:
        record["speed"] = speed(makers, pictures, args.batch, args.rounds)
        print(report.markdown(record), flush=True)
        write_json(out / "peers.json", record)
    if not args.speed_only:
        record |= {"minutes": args.minutes, "scored": args.scored, "fills": args.fills, "quality_machine": machine()}
        record["quality"] = quality(quickest(makers, record["speed"]), pictures, args)
        print(report.markdown(record))
        write_json(out / "peers.json", record)
    report.write(record, out)


if __name__ == "__main__":
    run(main)
