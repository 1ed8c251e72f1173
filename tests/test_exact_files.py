"""Every kind of file comes back as it was, but for its hole."""

import io
import math

import numpy as np
import pytest
import stored
import tifffile
import torch
from stored import KINDS, UPRIGHT, Kind

from manyfill import Filler
from manyfill.encode import Encoding
from manyfill.errors import ManyfillError
from manyfill.images import open_picture
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

LARGEST = (3000, 4000)
SHAPES = ("box", "everything", "border", "one pixel", "scattered", "nothing", "stripe")


@pytest.fixture(scope="module")
def filler(one_thread: None) -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "test")


def some_mask(shape: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    top, left = rng.integers(height), rng.integers(width)
    match shape:
        case "box":
            mask[top : top + max(1, height // 3), left : left + max(1, width // 3)] = True
        case "everything":
            mask[:] = True
        case "border":
            mask[[0, -1]], mask[:, [0, -1]] = True, True
        case "one pixel":
            mask[top, left] = True
        case "scattered":
            mask[:] = rng.random((height, width)) < 0.3
        case "stripe":
            mask[top] = True
    return mask


def check(filler: Filler, kind: Kind, height: int, width: int, orientation: int, shape: str, seed: int) -> None:
    """Fill a file of this kind and size once, and hold the result against it."""
    rng = np.random.default_rng(seed)
    orientation = orientation if kind.turns else 1
    content = stored.write(kind, stored.random_values(kind, height, width, rng), orientation, rng)
    before = UPRIGHT[orientation](stored.read(kind, content))
    mask = some_mask(shape, *before.shape[:2], rng)
    result = filler(open_picture(content), mask, n=1)
    name, filled = next(result.files(Encoding()))
    assert name == f"fill-00.{kind.format}"
    if kind.lossless:
        compare(UPRIGHT[orientation](stored.read(kind, filled)), before, mask, kind)
    else:  # what is encoded, not what comes out
        read = open_picture(content).original
        assert read is not None
        values = read.upright(read.filled(result.images[0], mask))
        compare(values, read.upright(read.values), mask, kind)
        assert stored.read(kind, filled).shape == stored.read(kind, content).shape
    if opens_with_pil(kind):
        was, found = stored.facts(content), stored.facts(filled)
        assert was == found
        assert not kind.turns or was["orientation"] == orientation
    elif kind.format == "tif":
        tags = [tifffile.TiffFile(io.BytesIO(file)).pages.first.tags for file in (content, filled)]
        for name, default in {"Orientation": 1, "XResolution": None, "ResolutionUnit": None}.items():
            was, found = (tag[name].value if name in tag else default for tag in tags)
            assert was == found


def opens_with_pil(kind: Kind) -> bool:
    odd = kind.dtype in ("float16", "float64") or (kind.mode, kind.dtype) == ("LA", "uint16")
    return kind.format != "npy" and not (kind.format == "tif" and odd)


def compare(after: np.ndarray, before: np.ndarray, mask: np.ndarray, kind: Kind) -> None:
    assert after.shape == before.shape and after.dtype == before.dtype
    assert np.array_equal(after[~mask], before[~mask])
    if kind.mode in ("LA", "RGBA"):
        assert (after[mask][:, -1] == np.iinfo(kind.dtype).max).all()
    if mask.sum() > 50 and kind.mode != "1":
        assert not np.array_equal(after[mask], before[mask])


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_every_kind_of_file_comes_back_but_for_its_hole(filler: Filler, kind: Kind) -> None:
    for orientation in (1, 6, 2) if kind.turns else (1,):
        check(filler, kind, 23, 37, orientation, "box", orientation)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", [Kind("tif", "RGB"), Kind("png", "RGB", "uint16"), Kind("jpg", "RGB")], ids=str)
def test_every_orientation(filler: Filler, kind: Kind, orientation: int) -> None:
    check(filler, kind, 23, 37, orientation, "box", 0)


@pytest.mark.parametrize("kind", KINDS, ids=str)
def test_damaged_files_never_raise_anything_else(kind: Kind) -> None:
    rng = np.random.default_rng(0)
    whole = stored.write(kind, stored.random_values(kind, 9, 7, rng), 1, rng)
    for _ in range(25):
        damaged = np.frombuffer(whole, np.uint8).copy()
        damaged[rng.integers(0, min(len(whole), 500), 4)] = rng.integers(0, 256, 4)
        cut = damaged[: rng.integers(len(whole) // 2, len(whole) + 1)].tobytes()
        try:
            picture = open_picture(cut)
            Encoding().encode(picture.original, picture.pixels, np.ones(picture.pixels.shape[:2], bool))
        except ManyfillError as error:
            assert "\n" not in str(error)


def random_case(seed: int, largest: tuple[int, int]) -> tuple[Kind, int, int, int, str, int]:
    """A kind, a size from 1x1 to the largest, an orientation and a shape of the mask."""
    rng = np.random.default_rng([seed, 8])
    height, width = (round(math.exp(rng.uniform(0, math.log(side)))) for side in largest)
    height, width = {0: (1, 1), 1: largest}.get(seed, (height, width))
    kind, shape = KINDS[rng.integers(len(KINDS))], SHAPES[rng.integers(len(SHAPES))]
    return kind, height, width, int(rng.integers(1, 9)), shape, seed


@pytest.mark.parametrize("seed", range(40))
def test_random_cases(filler: Filler, seed: int) -> None:
    check(filler, *random_case(seed, (90, 120)))


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(500))
def test_random_cases_up_to_the_largest_size(filler: Filler, seed: int) -> None:
    check(filler, *random_case(seed, LARGEST))
