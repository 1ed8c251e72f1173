"""What a Filler takes: pictures and masks of many forms, and one line on what is neither."""

import math

import numpy as np
import pytest
import torch
from PIL import Image
from untrained import box_mask, noise_picture, tiny

from manyfill import Filler
from manyfill.errors import ConfigError, ManyfillError, PictureError
from manyfill.images import open_picture, save_png, to_tensor
from manyfill.inputs import NOTHING_KNOWN_NOTE
from manyfill.masks import draw


@pytest.fixture(scope="module")
def grey_filler() -> Filler:
    return Filler(tiny(1), "grey")


def test_all_forms_of_a_picture_and_a_mask_agree(filler: Filler, tmp_path) -> None:
    picture, mask = noise_picture(40, 50), draw("boxes", 40, 50, np.random.default_rng(0))
    save_png(tmp_path / "photo.png", picture)
    save_png(tmp_path / "mask.png", mask.astype(np.uint8)[..., None] * 255)
    expected = filler(picture, mask, n=1).images[0]
    pictures = [tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(picture), to_tensor(picture)]
    masks = [
        tmp_path / "mask.png",
        Image.fromarray(mask),
        Image.fromarray(mask).convert("RGB"),
        mask[..., None],
        mask.astype(np.uint8),
        mask.astype(np.uint8) * 255,
        np.where(mask, 128, 127),
        Image.fromarray(np.where(mask, 128, 127).astype(np.uint8)),
        mask.astype(np.float64),
        torch.from_numpy(mask),
        torch.from_numpy(mask)[None].to(torch.bfloat16),
    ]
    for form in pictures:
        assert np.array_equal(filler(form, mask, n=1).images[0], expected)
    for form in masks:
        result = filler(picture, form, n=1)
        assert np.array_equal(result.mask, mask) and np.array_equal(result.images[0], expected)


def test_a_grey_picture_stays_grey(filler: Filler, grey_filler: Filler) -> None:
    picture, mask = noise_picture(40, 40, 1), draw("centre", 40, 40, np.random.default_rng(0))
    for model in (filler, grey_filler):
        result = model(picture[..., 0], mask, n=2, truth=picture)
        assert result.images[0].shape == (40, 40, 1) and np.array_equal(result.images[1][~mask], picture[~mask])
    with pytest.raises(PictureError, match="model is grey"):
        grey_filler(noise_picture(40, 40), mask)


def test_transparent_pixels_are_the_mask(filler: Filler, tmp_path) -> None:
    rgba = noise_picture(40, 40, 4)
    picture, mask = rgba[..., :3], rgba[..., 3] < 128
    result = filler(Image.fromarray(rgba), n=1)
    assert np.array_equal(result.mask, mask)
    assert np.array_equal(result.images[0], filler(picture, mask, n=1).images[0])
    result.save(tmp_path)
    saved = open_picture(tmp_path / "fill-00.png")
    assert saved.alpha is not None
    assert np.array_equal(saved.alpha, np.where(mask, 255, rgba[..., 3])) and np.array_equal(
        saved.pixels[~mask], picture[~mask]
    )
    with pytest.raises(PictureError, match="--mask"):
        filler(picture)


def test_an_empty_hole_asks_nothing_of_the_network(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(filler.model, "encode_known", None)
    picture = noise_picture(20, 30)
    result = filler(picture, np.zeros((20, 30), bool), n=3, truth=picture)
    assert all(np.array_equal(image, picture) for image in [*result.images, result.mean]) and len(result.images) == 3
    assert result.bound is None and result.crop is None and not result.std.any()
    assert any("empty" in note for note in result.notes)
    assert result.sheet().shape[2] == 3


def test_nothing_known_is_told(filler: Filler) -> None:
    assert filler(noise_picture(128, 128), np.ones((128, 128), bool), n=1).notes == (NOTHING_KNOWN_NOTE,)


PICTURE, MASK = noise_picture(8, 9), box_mask(8, 9, 2, 2, 5, 5)


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"image": PICTURE / 255.0}, PictureError, "uint8"),
        ({"image": noise_picture(8, 9, 4)}, PictureError, "uint8"),
        ({"image": PICTURE[:0]}, PictureError, "uint8"),
        ({"image": torch.zeros(8, 9, 3)}, PictureError, "float"),
        ({"image": torch.full((3, 8, 9), 200.0)}, PictureError, "outside"),
        ({"image": torch.full((3, 8, 9), math.nan)}, PictureError, "outside"),
        ({"image": PICTURE, "max_pixels": 10, "mask": Image.fromarray(MASK)}, PictureError, "--max-pixels"),
        ({"mask": MASK[:5]}, PictureError, "mask is 9x5 but the picture is 9x8"),
        ({"mask": MASK * 255.0}, PictureError, r"\[0, 1\]"),
        ({"mask": np.zeros((8, 9, 3), bool)}, PictureError, "shape"),
        ({"truth": PICTURE[:5]}, PictureError, "truth is 9x5"),
        ({"truth": PICTURE[..., :1]}, PictureError, "grey"),
        ({"n": 0}, ConfigError, "-n 0"),
        ({"temperature": -1.0}, ConfigError, "--temperature"),
        ({"temperature": math.nan}, ConfigError, "--temperature"),
    ],
)
def test_bad_input_is_refused_in_one_line(
    filler: Filler, arguments: dict, error: type[ManyfillError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        filler(**{"image": PICTURE, "mask": MASK, **arguments})
    assert "\n" not in str(caught.value)
