"""Whether saying what is missing helps, and by how much.

python experiments/captions/run.py --model MODEL --pictures VAL --training TRAIN
"""

import argparse
import json
import math
import re
import shutil
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from caption_bounds import Row, guided, measured, shown
from grid import Table, command, publish, stored, wilson

from manyfill.data import open_source
from manyfill.errors import ConfigError
from manyfill.evaluate.scores import Estimate, estimate
from manyfill.files import make_folder, save_text
from manyfill.images import contact_sheet, resize, save_png
from manyfill.manifest import sha256
from manyfill.pipeline import Filler
from manyfill.plots import panels
from manyfill.train.log import read
from manyfill.train.loop import run
from manyfill.train.settings import load

if TYPE_CHECKING:
    from matplotlib.figure import Figure

WEIGHTS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0)  # of guidance
STRONG, GUIDED = 3.0, 100  # a weight to look at; pictures
SEEDS = 3
CLASSES = {
    "colours": "black white brown red blue green yellow orange pink purple grey gray tan blond blonde",
    "animals": "dog dogs puppy puppies cat cats horse horses bird birds animal animals",
    "people": "man men woman women boy boys girl girls child children kid kids baby people person player players crowd",
    "water": "water ocean sea lake pool river beach wave waves surfer surfers swimming",
    "snow": "snow snowy ski skis skier skiers snowboarder snowboarders ice",
    "grass and ground": "grass grassy field sand dirt park lawn",
    "streets and rooms": "street building city room wall sidewalk road store restaurant table",
    "rocks and sky": "rock rocks mountain cliff sky air hill climbing",
}
SAYINGS = (None, "a dog on green grass", "a dog in the snow", "a red shirt", "the blue sea", "a dark street")


# --------------------------------------------------------------------------------------------------- what is measured


def rows_of(options: argparse.Namespace, model: Any, sides: Sequence[int], out: Path) -> list[Row]:
    """A row for each picture, from where an earlier call with the same model, pictures and options stopped."""
    source = open_source(*options.pictures)
    names = sha256(source.name(number).encode() for number in range(len(source)))
    path = out / f"rows-{options.fingerprint}-{names[:12]}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    done = [json.loads(line) for line in lines if line.endswith("\n")]  # an interruption may have cut the last one
    save_text(path, "".join(lines[: len(done)]))
    with path.open("a") as file:
        for place, picture in enumerate(shown(source, model, options.limit, options.seed)):
            if place < len(done):
                continue
            row = measured(model, picture, sides, options.samples, options.seed)
            if place < GUIDED:
                row["guided"] = guided(model, picture, sides[-2], WEIGHTS, options.samples, options.seed)
            done.append(row)
            file.write(json.dumps(row) + "\n")
            file.flush()
            print(f"{place + 1} pictures", end="\r", file=sys.stderr)
    return done[: options.limit]


def of_hole(rows: Sequence[Row], side: int, size: int, channels: int, **factors: Any) -> dict[str, Any]:
    """Gains in bits of a whole hole, paired by picture, and how often the true caption has the highest bound."""
    nats = np.array([row["nats"][str(side)] for row in rows])
    without, true, others = nats[:, 0], nats[:, 1], nats[:, 2:]
    dims = channels * side**2
    ranks = (others >= true[:, None]).sum(1)
    return {
        **factors,
        "hole": "all" if side == size else side,
        "pictures": len(rows),
        "bits_per_dim": {
            name: float(-values.mean() / math.log(2) / dims)
            for name, values in (("none", without), ("true", true), ("another's", others[:, 0]))
        },
        "over_none": interval((true - without) / math.log(2)),
        "over_anothers": interval((true - others[:, 0]) / math.log(2)),
        "found": int((ranks == 0).sum()),
        "mean_rank": float(ranks.mean() + 1),
    }


def interval(values: np.ndarray) -> list[float]:
    """A mean over pictures with its 95 % interval."""
    found: Estimate = estimate(values, of=lambda mean: mean)
    return [round(v, 6) for v in (found.mean, found.low, found.high)]


def by_class(rows: Sequence[Row], side: int, size: int, channels: int) -> Iterator[dict[str, Any]]:
    for name, words in CLASSES.items():
        own = [row for row in rows if set(words.split()) & set(re.findall(r"\w+", row["caption"].lower()))]
        if len(own) > 1:
            yield of_hole(own, side, size, channels, kind="class", words=name)


def parity(options: argparse.Namespace, out: Path) -> Iterator[dict[str, Any]]:
    """Small models trained with and without captions on the same pictures, holes and steps, and measured without."""
    for seed in range(1 if options.quick else SEEDS):
        found = {}
        for name, captions in (("with", True), ("without", False)):
            folder = out / f"parity-{seed}-{name}"
            settings = load(
                options.training,
                validation=options.pictures,
                preset="tiny32",
                steps=options.parity_steps,
                captions=captions,
                seed=seed,
                assignments=[f"train.validate_every={options.parity_steps}", "train.workers=0", "data.masks.large=0.3"],
            )
            run(settings, folder)
            found[name] = next(
                r["bits_per_dim"] for r in reversed(read(folder / "log.jsonl")) if r["kind"] == "validation"
            )
            shutil.rmtree(folder)
        yield {"kind": "parity", "seed": seed, "steps": options.parity_steps, **found}


def sheet(filler: Filler) -> np.ndarray:
    """One hole of scikit-image's cat filled under several captions; a column for each, the lower rows guided."""
    import skimage.data

    size = filler.model.config.size
    photo = resize(np.ascontiguousarray(skimage.data.chelsea()[:300, 75:375]), size, size)
    hole = np.zeros((size, size), bool)
    hole[size // 8 : -(size // 8), size // 8 : -(size // 8)] = True
    columns = []
    for saying in SAYINGS:
        drawn = [
            filler(photo, hole, n=3, caption=saying, guidance=weight if saying else 1.0) for weight in (1.0, STRONG)
        ]
        columns.append([image for fills in drawn for image in fills.images])
    known = np.where(hole[..., None], 128, photo).astype(np.uint8)
    rows = [[photo, known, *(column[row] for column in columns)] for row in range(6)]
    labels = [["photo", "hole", *(saying or "nothing said" for saying in SAYINGS)]] + [[""] * 8] * 5
    return contact_sheet(rows, labels, tile=128)


# --------------------------------------------------------------------------------------------------- what is reported


def table(records: list[dict[str, Any]]) -> Table:
    rows = []
    for r in records:
        if r["kind"] in ("hole", "class"):
            bits, low_high = r["bits_per_dim"], wilson(r["found"], r["pictures"])
            what = f"{r['hole']}" if r["kind"] == "hole" else f"{r['hole']}, {r['words']}"
            told = [f"{bits[name]:.4f}" for name in ("none", "true", "another's")]
            gains = [f"{m:.2f} [{low:.2f}, {high:.2f}]" for m, low, high in (r["over_none"], r["over_anothers"])]
            share = f"{r['found'] / r['pictures']:.1%} [{low_high[0]:.1%}, {low_high[1]:.1%}]"
            rows.append([what, f"{r['pictures']}", *told, *gains, share])
        elif r["kind"] == "parity":
            change = r["with"] / r["without"] - 1
            rows.append(
                [
                    f"32x32 model, {r['steps']} steps, seed {r['seed']}",
                    "",
                    f"{r['with']:.4f} (trained without: {r['without']:.4f}, {change:+.2%})",
                    "",
                    "",
                    "",
                    "",
                    "",
                ]
            )
    head = [
        "hole",
        "pictures",
        "no caption, bits/dim",
        "true caption",
        "another's",
        "gain over none, bits a picture",
        "gain over another's",
        "found among 16 (chance 6.25 %)",
    ]
    return head, rows


def plot(records: list[dict[str, Any]]) -> "Figure":
    """Gains and retrieval by hole, gains by class of words, and what guidance does to the bound."""
    figure, places = panels(4, height=2.8)
    holes = [r for r in records if r["kind"] == "hole"]
    gains, found, classes, weights = places
    names = [str(r["hole"]) for r in holes]
    for key, label in (("over_none", "none"), ("over_anothers", "another's")):
        mean, low, high = np.array([r[key] for r in holes]).T
        gains.errorbar(names, mean, [mean - low, high - mean], capsize=2, marker=".", label=f"over {label}")
    gains.axhline(0, color="0.7", linewidth=0.8)
    gains.set_ylabel("gain of the true caption, bits a picture", fontsize=7)
    gains.legend(fontsize=6)
    found.plot(names, [100 * r["found"] / r["pictures"] for r in holes], marker=".")
    found.axhline(6.25, color="0.7", linewidth=0.8)
    found.set_ylabel("true caption found among 16, %", fontsize=7)
    for panel in (gains, found):
        panel.set_xlabel("hole", fontsize=7)
    kinds = [r for r in records if r["kind"] == "class"]
    mean, low, high = np.array([r["over_none"] for r in kinds]).reshape(-1, 3).T
    classes.errorbar(mean, [r["words"] for r in kinds], xerr=[mean - low, high - mean], fmt=".", capsize=2)
    classes.axvline(0, color="0.7", linewidth=0.8)
    classes.tick_params(axis="y", labelsize=6)
    classes.set_xlabel("gain over none, bits a picture", fontsize=7)
    (guidance,) = (r for r in records if r["kind"] == "guidance")
    mean, low, high = np.array(guidance["over_weight_1"]).T
    weights.errorbar(guidance["weights"], mean, [mean - low, high - mean], capsize=2, marker=".")
    weights.set_xlabel("weight of guidance", fontsize=7)
    weights.set_ylabel("bound less that of weight 1, bits a picture", fontsize=7)
    return figure


# ---------------------------------------------------------------------------------------------------- the command line


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", type=Path, help="a model with captions")
    parser.add_argument(
        "--pictures", nargs="+", metavar="PATH", help="pictures with captions that it has not learnt from"
    )
    parser.add_argument("--training", nargs="+", metavar="PATH", help="pictures with captions, for small trainings")
    parser.add_argument("--parity-steps", type=int, default=1500, help="of each small training; 0 leaves them out")
    parser.add_argument("--limit", type=int, default=10**9, help="pictures to measure")
    parser.add_argument("--samples", type=int, default=4, help="of the bound, for each caption")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--runs", type=Path, default=Path("runs/experiments"), help="where finished rows lie")
    parser.add_argument(
        "--quick", action="store_true", help="a model of a few steps and a few pictures, reported to RUNS"
    )
    return parser.parse_args()


def quick(options: argparse.Namespace, out: Path) -> None:
    """Tiles of scikit-image's photographs, captioned by what they show, and a model trained on them for a few steps."""
    import skimage.data

    from manyfill.data.loader import tile

    shows = {
        "astronaut": "a woman in an orange suit",
        "chelsea": "a brown cat",
        "coffee": "a red cup on a table",
        "rocket": "a white rocket",
    }
    for part in ("train", "validation"):
        for index in range(20):
            name = list(shows)[index % 4]
            pixels = tile(getattr(skimage.data, name)(), 32, np.random.default_rng([index, len(part)]))
            save_png(make_folder(out / part) / f"{index}.png", pixels)
            (out / part / f"{index}.txt").write_text(f"{shows[name]}\n")
    options.training, options.pictures = [str(out / "train")], [str(out / "validation")]
    options.limit, options.samples, options.parity_steps = 4, 1, 2
    settings = load(options.training, preset="tiny32", captions=True, steps=4, assignments=["train.workers=0"])
    run(settings, out / "run")
    options.model = out / "run" / "model"


def main() -> None:
    options, home = arguments(), Path(__file__).parent
    out = make_folder(options.runs / home.name)
    if options.quick:
        quick(options, out)
    if not options.model or not options.pictures or (options.parity_steps and not options.training):
        raise ConfigError("--model, --pictures and --training are needed (--training not with --parity-steps 0)")
    filler = Filler.from_pretrained(options.model)
    config = filler.model.config
    if config.captions is None:
        raise ConfigError(f"--model {options.model}: reads no captions; take one that was trained with --captions")
    options.fingerprint = f"{filler.digest[:12]}-{options.samples}-{options.seed}"
    sides = [config.size // 4, config.size // 2, 3 * config.size // 4, config.size]
    rows = rows_of(options, filler.model, sides, out)
    records = [of_hole(rows, side, config.size, config.channels, kind="hole") for side in sides]
    records += by_class(rows, sides[-2], config.size, config.channels)
    guided_nats = np.array([row["guided"] for row in rows if "guided" in row])
    changes = (guided_nats - guided_nats[:, WEIGHTS.index(1.0), None]) / math.log(2)
    over = [interval(change) for change in changes.T]
    records.append({"kind": "guidance", "weights": WEIGHTS, "pictures": len(changes), "over_weight_1": over})
    if options.parity_steps:
        done = [] if options.quick else stored(home / "results.json")
        same = [r for r in done if r["kind"] == "parity" and r["steps"] == options.parity_steps]
        records += same or parity(options, out)
    save_png((out if options.quick else home) / "fills.png", sheet(filler))
    publish(options, home, records, table(records), plot(records))


if __name__ == "__main__":
    command(main)
