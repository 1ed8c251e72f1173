"""Does learning from a picture itself help to fill it, and how long does it take?

    OMP_NUM_THREADS=1 python benchmarks/adapt.py --kodak FOLDER --pictures 3 --steps 30 120 --json adapt.json

Every picture has three square holes, of which the model sees nothing while it learns. Photographs come from a folder,
others from scikit-image and from a drawn map. CRPS in grey levels of 0 to 255; bits for each missing value at the
model's size.
"""

import argparse
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from common import check_writable, clock, run, write_json
from PIL import Image, ImageDraw

from manyfill.benchmark import label, machine
from manyfill.data import open_source
from manyfill.evaluate.scores import crps
from manyfill.pipeline import Filler
from manyfill.rng import numpy_generator
from manyfill.train.adapt import adapted

SAMPLES = ("cell", "immunohistochemistry", "moon", "brick", "grass", "gravel")  # microscopy, from space, textures
HOLES, SIDE, FILLS, BOUND_SAMPLES = 3, 64, 8, 8


def town(size: int = 512) -> np.ndarray:
    """A map, uint8 (size, size, 3): parks, a river, houses along streets, all drawn from one seed."""
    rng, image = numpy_generator(0, "map"), Image.new("RGB", (size, size), (242, 239, 233))
    pen = ImageDraw.Draw(image)
    for _ in range(12):
        at, reach = rng.integers(0, size, 2), rng.integers(20, 60)
        pen.regular_polygon((int(at[0]), int(at[1]), int(reach)), int(rng.integers(4, 8)), fill=(200, 232, 190))
    for x in range(0, size, 14):
        for y in range(0, size, 14):
            if rng.random() < 0.5:
                width, height = rng.integers(5, 10, 2)
                pen.rectangle((x, y, x + int(width), y + int(height)), fill=(217, 208, 201), outline=(190, 178, 168))
    river = [(x, round(size * 0.6 + 60 * np.sin(x / 70) + 20 * np.sin(x / 23))) for x in range(-20, size + 20, 4)]
    pen.line(river, fill=(170, 211, 223), width=26, joint="curve")
    for _ in range(26):
        ends = [tuple(map(int, rng.integers(-40, size + 40, 2))) for _ in range(2)]
        wide = int(rng.choice((5, 8, 12)))
        pen.line(ends, fill=(150, 140, 130), width=wide + 2)
        pen.line(ends, fill=(252, 214, 164) if wide == 12 else (255, 255, 255), width=wide)
    return np.asarray(image)


def pictures(kodak: Path | None, count: int) -> Iterator[tuple[str, str, np.ndarray]]:
    """Kind, name and pixels of every picture."""
    import skimage.data

    if kodak:
        source = open_source(kodak)
        for number in range(0, len(source), max(1, len(source) // count))[:count]:
            yield "photograph", Path(source.name(number)).stem, source[number].pixels
    for name in SAMPLES:
        pixels = getattr(skimage.data, name)()
        yield "other", name, pixels if pixels.ndim == 3 else pixels[..., None]
    yield "other", "drawn map", town()


def holes_of(shape: tuple[int, ...]) -> list[np.ndarray]:
    """Squares that do not touch, each a mask (H, W) of its own."""
    rng, found = numpy_generator(0, "adapt"), list[np.ndarray]()
    while len(found) < HOLES:
        top, left = (int(rng.integers(side - SIDE + 1)) for side in shape[:2])
        hole, around = np.zeros(shape[:2], bool), np.zeros(shape[:2], bool)
        hole[top : top + SIDE, left : left + SIDE] = True
        around[max(top - SIDE, 0) : top + 2 * SIDE, max(left - SIDE, 0) : left + 2 * SIDE] = True
        if not any((around & other).any() for other in found):
            found.append(hole)
    return found


def measured(filler: Filler, truth: np.ndarray, holes: list[np.ndarray]) -> dict[str, float]:
    """Means over the holes, filled one by one."""
    scores, bits = [], []
    for hole in holes:
        fills = filler(
            np.where(hole[..., None], np.uint8(0), truth), hole, FILLS, truth=truth, bound_samples=BOUND_SAMPLES
        )
        assert fills.bound
        scores.append(crps(np.stack([image[hole].ravel() for image in fills.images]), truth[hole].ravel()))
        bits.append(fills.bound.bits_per_dim)
    return {"crps": float(np.mean(scores)), "bits_per_dim": float(np.mean(bits))}


def learnt(filler: Filler, truth: np.ndarray, holes: list[np.ndarray], steps: int) -> tuple[Filler, dict[str, Any]]:
    """The filler after so many steps, and what they took; processor time, as others may use the machine too."""
    mask, before = np.any(holes, 0), clock()
    found = adapted(filler, np.where(mask[..., None], np.uint8(0), truth), mask, steps)
    wall, processor = (b - a for a, b in zip(before, clock(), strict=True))
    return found.filler, found.record() | {"seconds": wall, "processor_seconds": processor}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kodak", type=Path, help="a folder of photographs; none if left out")
    parser.add_argument("--pictures", type=int, default=3, help="how many of them")
    parser.add_argument("--only", nargs="+", help="names of pictures; all if left out")
    parser.add_argument("--model", default="default")
    parser.add_argument("--steps", nargs="+", type=int, default=[30, 120])
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_writable(options.json)
    filler, rows = Filler.from_pretrained(options.model), list[dict[str, Any]]()
    chosen = [one for one in pictures(options.kodak, options.pictures) if not options.only or one[1] in options.only]
    print(f"{'picture':>22} {'steps':>5} {'CRPS':>6} {'bits':>6} {'held-out bits':>14} {'processor s':>12}")
    for steps in (0, *options.steps):
        for kind, name, truth in chosen:
            holes, spent, own = holes_of(truth.shape), dict[str, Any](), filler
            if steps:
                own, spent = learnt(filler, truth, holes, steps)
            row = {"kind": kind, "picture": name, "steps": steps, **spent, **measured(own, truth, holes)}
            rows.append(row)
            held_out = f"{row['before']:.2f} -> {row['after']:.2f}" if steps else ""
            print(
                f"{name:>22} {steps:5} {row['crps']:6.2f} {row['bits_per_dim']:6.3f} {held_out:>14}"
                f" {row.get('processor_seconds', 0.0):12.0f}",
                flush=True,
            )
            # After every row, as many pictures take hours.
            write_json(options.json, {**machine(), "model": label(options.model), "fills": FILLS, "rows": rows})


if __name__ == "__main__":
    run(main)
