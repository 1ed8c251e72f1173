"""How long fills of a large photograph take, and how much memory: does it grow with the hole or with the photograph?

    python benchmarks/megapixels.py [--model default] [--fills 4] [--json FILE]

Square holes in the middle of scikit-image's astronaut, enlarged: 256 pixels in 1 and in 12 megapixels, 512 in 12. Each
in a process of its own, whose model a small fill has warmed up; memory is all that this process ever held. Linux only.
"""

import argparse
from pathlib import Path

import numpy as np
import skimage.data
from common import apart, check_writable, resident, run, watched, write_json

from manyfill.benchmark import label, machine
from manyfill.images import resize
from manyfill.pipeline import Filler

CASES = ((1000, 1000, 256), (3000, 4000, 256), (3000, 4000, 512))
"""Height and width of the photograph, side of the hole."""


def photograph(height: int, width: int) -> np.ndarray:
    return resize(np.ascontiguousarray(skimage.data.astronaut()[: 512 * height // width]), height, width)


def hole_of(height: int, width: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = True
    return mask


def measure(model: str, fills: int, height: int, width: int, side: int) -> dict[str, float]:
    """Seconds of a fill by the clock and of the processors, and MiB."""
    filler = Filler.from_pretrained(model)
    filler(photograph(64, 64), hole_of(64, 64, 32), n=fills)
    picture, mask, record = photograph(height, width), hole_of(height, width, side), dict[str, float]()
    with watched(record):
        filler(picture, mask, n=fills)
    seconds = {name: record[name] for name in ("seconds", "processor_seconds")}
    return {"height": height, "width": width, "hole": side, **seconds, "process_mib": resident(what="VmHWM")}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="default")
    parser.add_argument("--fills", type=int, default=4)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    check_writable(options.json)
    table = []
    print(f"{'photograph':>10} {'hole':>5} {'s':>7} {'processor s':>11} {'MiB':>6}")
    for case in CASES:
        row = apart(measure, options.model, options.fills, *case)
        table.append(row)
        print(
            f"{f'{case[1]}x{case[0]}':>10} {case[2]:5} {row['seconds']:7.1f} {row['processor_seconds']:11.1f}"
            f" {row['process_mib']:6.0f}",
            flush=True,
        )
    first, second = (row["processor_seconds"] for row in table[:2])
    print(f"256 pixels in 12 megapixels cost {second / first:.2f} of what they cost in 1")
    write_json(options.json, {**machine(), "model": label(options.model), "fills": options.fills, "rows": table})


if __name__ == "__main__":
    run(main)
