"""What is read: measurements of any range, masks of any depth, holes of any shape."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import stored
import torch
from PIL import Image
from stored import GREY, MASK, RGB, Kind, encoded, saved

from manyfill import Filler
from manyfill.completions import Completions
from manyfill.encode import Encoding
from manyfill.errors import PictureError
from manyfill.images import open_picture
from manyfill.inputs import NOTHING_KNOWN_NOTE, read
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE


@pytest.fixture(scope="module")
def filler(one_thread: None) -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "test")


# ------------------------------------------------------------------------------------------------------- measurements


def own(result: Completions) -> bytes:
    """The first fill as a file of the picture's own format."""
    return next(result.files(Encoding()))[1]


def test_measurements_are_shown_in_the_range_of_what_is_known_of_them(filler: Filler) -> None:
    values = 1000 + GREY * 0.25
    values[0, 0] = 1e9  # a hot pixel
    hidden = np.where(MASK, -1e30, values)
    result, other = (filler(open_picture(saved(array)), MASK, n=2) for array in (values, hidden))
    assert all(np.array_equal(a, b) for a, b in zip(result.images, other.images, strict=True))
    assert np.corrcoef(result.picture[~MASK][1:, 0], values[~MASK][1:])[0, 1] > 0.999
    files = dict(result.files(Encoding()))
    after, std = (np.load(io.BytesIO(files[name])) for name in ("fill-00.npy", "std.npy"))
    assert after.dtype == np.float64 and np.array_equal(after[~MASK], values[~MASK])
    assert after[MASK].min() >= 1000 and after[MASK].max() <= 1064
    low, high = result.original.span
    assert 1000 <= low < high <= 1064
    np.testing.assert_allclose(std, result.std * (high - low) / 255, rtol=1e-5)
    spread = np.stack([np.load(io.BytesIO(files[f"fill-0{i}.npy"])) for i in range(2)]).std(0)
    np.testing.assert_allclose(std, spread, atol=1e-3 * spread.max())


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_values_that_are_no_number_are_the_hole(filler: Filler, dtype: str) -> None:
    values = np.where(MASK, np.nan, GREY).astype(dtype)
    after = np.load(io.BytesIO(own(filler(open_picture(saved(values)), n=1))))
    assert np.isfinite(after).all() and np.array_equal(after[~MASK], values[~MASK])
    assert filler(values, n=1).mask.sum() == MASK.sum(), "an array is as good as a file"
    with pytest.raises(PictureError, match="240 values outside the mask are not finite"):
        filler(values, ~MASK, n=1)
    with pytest.raises(PictureError, match="--mask"):
        filler(GREY.astype(dtype), n=1)


@pytest.mark.parametrize("value", [0.0, 7.5])
def test_a_constant_picture_is_filled_with_its_value(filler: Filler, value: float) -> None:
    after = np.load(io.BytesIO(own(filler(np.full((40, 60), value), MASK, n=1))))
    assert (after == value).all()


def test_the_truth_of_measurements_is_shown_alike(filler: Filler) -> None:
    values = GREY.astype(np.uint16) * 13
    subject = read(values, MASK, np.where(MASK, 9, values).astype(np.uint16))
    assert np.array_equal(subject.whole[~MASK], subject.picture.pixels[~MASK])
    assert filler(values, MASK, n=1, truth=values).bound is not None


def overlong() -> bytes:
    return saved(np.zeros((2, 2))).replace(b"(2, 2)", b"(9, 2)")


def vast() -> bytes:
    return saved(np.zeros((2, 2))).replace(b"(2, 2), }" + b" " * 8, b"(90000, 90000), }")


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (vast, "--max-pixels"),
        (overlong, "damaged or truncated"),
        (lambda: saved(np.zeros((3, 4, 5))), "float64 .3, 4, 5."),
        (lambda: saved(np.zeros((3, 4, 3))), "uint8 or uint16"),
        (lambda: saved(np.zeros((3, 4), complex)), "complex"),
        (lambda: saved(np.array([[{}]])), "object"),
        (lambda: saved(np.zeros((0, 4))), "0, 4"),
        (lambda: b"\x93NUMPY\x09\x00", "version"),
    ],
)
def test_arrays_that_are_no_pictures_are_refused_in_one_line(make: Callable[[], bytes], words: str) -> None:
    with pytest.raises(PictureError, match=words) as caught:
        open_picture(make(), name="x.npy")
    assert "\n" not in str(caught.value) and str(caught.value).startswith("x.npy: ")


# ---------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_masks_are_read_at_any_depth(dtype: str) -> None:
    white = {"uint8": 255, "uint16": 65535, "float32": 1}[dtype]
    for hole in (MASK, np.ones_like(MASK), np.zeros_like(MASK)):
        image = Image.fromarray((hole * np.array(white)).astype(dtype))
        subject = read(RGB, open_picture(encoded(image, "TIFF")))
        assert np.array_equal(subject.hole, hole)
        assert subject.picture.notes == ((NOTHING_KNOWN_NOTE,) if hole.all() else ())
    for array in (MASK, MASK.astype(np.uint8), MASK.astype(np.float32)):
        assert np.array_equal(read(RGB, open_picture(saved(array))).hole, MASK)


@pytest.mark.parametrize("values", [MASK * 200.0, np.dstack([MASK * np.uint8(255)] * 3)], ids=["unscaled", "colour"])
def test_an_array_that_is_no_mask_is_refused_by_its_name(values: np.ndarray, tmp_path: Path) -> None:
    np.save(tmp_path / "odd.npy", values)
    with pytest.raises(PictureError, match=r"odd\.npy: "):
        read(RGB, tmp_path / "odd.npy")


def test_soft_edges_are_told_once_and_what_jpeg_adds_is_none() -> None:
    soft = Image.fromarray(MASK).convert("L").resize((30, 20), Image.Resampling.BILINEAR).resize((60, 40))
    notes = read(RGB, soft).picture.notes
    assert len(notes) == 1 and "soft edges: values over 127" in notes[0]
    assert np.array_equal(read(RGB, soft).hole, np.asarray(soft) > 127)
    crisp = encoded(Image.fromarray(MASK.repeat(8, 0).repeat(8, 1)).convert("L"), "JPEG", quality=95)
    assert read(RGB.repeat(8, 0).repeat(8, 1), open_picture(crisp)).picture.notes == ()
    faded = Image.fromarray(np.dstack([RGB, np.asarray(soft)]))
    assert any("half opacity" in note for note in read(faded).picture.notes)


@pytest.mark.parametrize("shape", [(41, 60), (40, 59), (60, 40)])
def test_masks_off_by_a_pixel_or_turned_are_refused(shape: tuple[int, int]) -> None:
    with pytest.raises(PictureError, match=rf"the mask is {shape[1]}x{shape[0]} but the picture is 60x40") as caught:
        read(RGB, np.ones(shape, bool))
    assert "\n" not in str(caught.value)
    turned = stored.write(Kind("png", "RGB"), RGB, 6, np.random.default_rng(0))
    with pytest.raises(PictureError, match=r"60x40 but the picture is 40x60; turn it as the picture's EXIF"):
        read(open_picture(turned), MASK)


def test_a_hole_along_every_border_and_nothing_known_are_filled(filler: Filler) -> None:
    frame = np.ones((90, 70), bool)
    frame[30:50, 30:40] = False
    picture = np.random.default_rng(0).integers(0, 256, (90, 70, 3), dtype=np.uint8)
    result = filler(picture, frame, n=2)
    assert np.array_equal(result.images[1][~frame], picture[~frame]) and result.std[frame].mean() > 0
    assert len(filler(picture, np.ones_like(frame), n=1).notes) == 1
