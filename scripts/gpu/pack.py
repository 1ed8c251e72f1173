"""Pack pictures for a machine that only a small parcel can reach: a zip of train/ and val/ under a size limit.

python scripts/gpu/pack.py pack.zip --train SRC [SRC ...] --val SRC [SRC ...] [--limit-mb 48] [--seed 0]

Pictures are stored as JPEG, quality 92 without chroma subsampling, in random order fixed by the seed until the limit is
reached. Unzip it anywhere: both parts are plain folders that `manyfill train` reads.
"""

import argparse
import io
import sys
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

from manyfill.data import open_source
from manyfill.errors import ManyfillError, PictureError
from manyfill.rng import numpy_generator

MOST_VALIDATION = 512


def jpeg(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels)
    image.save(buffer, "JPEG", quality=92, subsampling=0)
    return buffer.getvalue()


def pack(archive: zipfile.ZipFile, folder: str, sources: list[str], seed: int, budget: int, most: int | None) -> int:
    """Add pictures in random order until `budget` bytes are spent; returns how many went in."""
    source = open_source(*sources)
    count = 0
    for index in numpy_generator(seed, folder).permutation(len(source))[:most]:
        try:
            content = jpeg(source[int(index)].pixels)
        except PictureError:
            continue
        budget -= len(content) + 160  # a zip entry's two headers
        if budget < 0:
            break
        archive.writestr(f"{folder}/{count:06d}.jpg", content)
        count += 1
    return count


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--train", nargs="+", required=True)
    parser.add_argument("--val", nargs="+", required=True)
    parser.add_argument("--limit-mb", type=float, default=48)
    parser.add_argument("--seed", type=int, default=0)
    flags = parser.parse_args()
    limit = int(flags.limit_mb * 2**20)
    try:
        with zipfile.ZipFile(flags.out, "w", zipfile.ZIP_STORED) as archive:
            held = pack(archive, "val", flags.val, flags.seed, limit // 8, MOST_VALIDATION)
            kept = pack(archive, "train", flags.train, flags.seed, limit - archive.fp.tell(), None)  # type: ignore[union-attr]
    except ManyfillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    print(f"{flags.out}: {kept} pictures to train on, {held} to validate, {flags.out.stat().st_size / 2**20:.1f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
