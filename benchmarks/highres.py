"""How good are fills of large pictures, against plain enlargement of small fills and against classical methods?

    python benchmarks/highres.py FOLDER --pictures 8 --json highres.json

Square holes and brush strokes in each picture of a folder; the mean over pictures for every kind of hole. `within` is
how much of the truth lies between the lowest and the highest of n fills: (n - 1) / (n + 1) of it if they are honest.
"""

import argparse
from collections.abc import Callable
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
from common import check_writable, run, write_json

from manyfill.benchmark import label, machine
from manyfill.crop import enlarge, paste, shrink, surround
from manyfill.data import open_source
from manyfill.evaluate.baselines import inpaint, methods
from manyfill.evaluate.fidelity import psnr, seam
from manyfill.evaluate.scores import crps
from manyfill.masks import draw
from manyfill.pipeline import Filler
from manyfill.rng import numpy_generator

HOLES = ("64", "128", "256", "brush")
Fills = tuple[list[np.ndarray], np.ndarray]
"""Pictures (H, W, C), and the mean that is the best guess of any pixel."""


def hole_of(kind: str, shape: tuple[int, ...], index: int) -> np.ndarray:
    """A square of so many pixels anywhere in the picture, or brush strokes."""
    height, width = shape[:2]
    rng = numpy_generator(0, f"highres {kind}", index)
    if kind == "brush":
        return draw("brush", height, width, rng)
    mask, side = np.zeros((height, width), bool), int(kind)
    top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    mask[top : top + side, left : left + side] = True
    return mask


def refined(filler: Filler, n: int, pixels: np.ndarray, mask: np.ndarray) -> Fills:
    found = filler(pixels, mask, n=n)
    return found.images, found.mean.astype(np.float64)


def enlarged(filler: Filler, n: int, pixels: np.ndarray, mask: np.ndarray) -> Fills:
    """The same model at its own size only, brought to the picture's size by bicubic interpolation."""
    box, size = surround(mask, filler.model.config.size), filler.model.config.size
    small, hole = shrink(box.cut(pixels), box.cut(mask), size)
    found = filler(small, hole, n=n)

    def back(fill: np.ndarray) -> np.ndarray:
        image = pixels.copy()
        paste(image, box.cut(mask), box, enlarge(fill, box.side))
        return image

    return [back(fill) for fill in found.images], back(found.mean).astype(np.float64)


def classical(method: Callable[[np.ndarray, np.ndarray], np.ndarray], pixels: np.ndarray, mask: np.ndarray) -> Fills:
    """Worked out on the square around the hole: what is farther off hardly matters to it, but costs minutes."""
    box = surround(mask, 64)
    inside = box.inside(*mask.shape)
    guess = pixels.astype(np.float64)
    guess[inside] = inpaint(method, np.ascontiguousarray(pixels[inside]), mask[inside])
    return [guess], guess


def roughness(picture: np.ndarray, mask: np.ndarray) -> float:
    """Energy of the gradient within the hole."""
    values, total = picture.astype(np.float64), 0.0
    for axis in (0, 1):
        within = mask[1:] & mask[:-1] if axis == 0 else mask[:, 1:] & mask[:, :-1]
        total += np.square(np.diff(values, axis=axis)).sum(-1)[within].sum()
    return total


def figures(fills: Fills, truth: np.ndarray, mask: np.ndarray) -> dict[str, float]:
    images, mean = fills
    drawn, true = np.stack([image[mask].ravel() for image in images]), truth[mask].ravel()
    return {
        "crps": crps(drawn, true),
        "within": float(((drawn.min(0) <= true) & (true <= drawn.max(0))).mean()),
        "psnr": psnr(mean[mask], truth[mask]),
        "seam": float(np.mean([seam(image, mask) for image in images])) / seam(truth, mask),
        "sharpness": float(np.mean([roughness(image, mask) for image in images])) / roughness(truth, mask),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--model", default="default")
    parser.add_argument("--pictures", type=int, default=8)
    parser.add_argument("--fills", type=int, default=8)
    parser.add_argument("--holes", nargs="+", default=HOLES)
    parser.add_argument("--no-baselines", action="store_true")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_writable(options.json)
    filler = Filler.from_pretrained(options.model)
    ways: dict[str, Callable[[np.ndarray, np.ndarray], Fills]] = {
        "octaves": lambda pixels, mask: refined(filler, options.fills, pixels, mask),
        "enlarged": lambda pixels, mask: enlarged(filler, options.fills, pixels, mask),
    }
    if not options.no_baselines:
        for name, method in methods(["opencv,biharmonic"]).items():
            ways[name] = lambda pixels, mask, method=method: classical(method, pixels, mask)  # type: ignore[misc]
    source = open_source(options.data)
    numbers = range(0, len(source), max(1, len(source) // options.pictures))[: options.pictures]
    table: list[dict[str, Any]] = []
    print(f"{'hole':>6} {'method':>14} {'CRPS':>7} {'within':>7} {'PSNR':>7} {'seam':>6} {'sharpness':>9} {'s':>6}")
    for kind in options.holes:
        for name, way in ways.items():
            rows, began = [], perf_counter()
            for number in numbers:
                truth = source[number].pixels
                mask = hole_of(kind, truth.shape, number)
                rows.append(figures(way(np.where(mask[..., None], np.uint8(0), truth), mask), truth, mask))
            means = {key: float(np.mean([row[key] for row in rows])) for key in rows[0]}
            # Ratios: the typical picture, not the flattest one, whose true gradients are next to nothing.
            means |= {key: float(np.median([row[key] for row in rows])) for key in ("seam", "sharpness")}
            seconds = (perf_counter() - began) / len(rows)
            table.append({"hole": kind, "method": name, "seconds": seconds, **means})
            print(
                f"{kind:>6} {name:>14} {means['crps']:7.2f} {means['within']:7.3f} {means['psnr']:7.2f}"
                f" {means['seam']:6.2f} {means['sharpness']:9.2f} {seconds:6.1f}",
                flush=True,
            )
    setting = {"model": label(options.model), "pictures": len(numbers), "fills": options.fills}
    write_json(options.json, {**machine(), **setting, "rows": table})


if __name__ == "__main__":
    run(main)
