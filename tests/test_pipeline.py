"""Any picture, any hole: known pixels stay, hole pixels never matter, fills are functions of their seed."""

import json
import math

import numpy as np
import pytest
import torch
from PIL import Image

from manyfill import Filler, crop
from manyfill.checkpoint import save_model
from manyfill.crop import Box, enlarge, paste, shrink, surround
from manyfill.device import autocast
from manyfill.errors import ConfigError, ManyfillError, ModelError, OutputError, PictureError
from manyfill.images import open_picture, save_png, to_pixels, to_tensor
from manyfill.inputs import NOTHING_KNOWN_NOTE
from manyfill.masks import KINDS, draw
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE
from manyfill.octaves import PORTION
from manyfill.rng import generator

SIZE = PRESETS["tiny32"].size


def tiny(channels: int = 3) -> ConditionalHVAE:
    torch.manual_seed(0)
    return ConditionalHVAE(PRESETS["tiny32"].model_copy(update={"channels": channels}))


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler(tiny(), "test")


@pytest.fixture(scope="module")
def grey_filler() -> Filler:
    return Filler(tiny(1), "grey")


def noise_picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def box_mask(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask


# ------------------------------------------------------------------------------------------------ known pixels

SHAPES = [(1, 17), (40, 1), (5, 7), (32, 32), (33, 90), (64, 64), (100, 45), (20, 32)]


def some_hole(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    if kind == "all":
        return np.ones((height, width), bool)
    if kind == "corner":
        return box_mask(height, width, 0, 0, max(1, height // 2), max(1, width // 3))
    if kind == "far edge":
        return box_mask(height, width, height - max(1, height // 4), 0, height, width)
    if kind == "one pixel":
        return box_mask(height, width, height - 1, width - 1, height, width)
    return rng.random((height, width)) < 0.5


@pytest.mark.parametrize("kind", ["all", "corner", "far edge", "one pixel", "scattered"])
@pytest.mark.parametrize(("height", "width"), SHAPES)
def test_known_pixels_come_back_bit_for_bit(filler: Filler, kind: str, height: int, width: int) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    channels = 1 if (height + width) % 3 == 0 else 3
    picture, mask = noise_picture(height, width, channels), some_hole(kind, height, width, rng)
    mask.flat[0] |= not mask.any()
    result = filler(picture, mask, n=2)
    assert len(result.images) == 2
    for image in [*result.images, result.mean]:
        assert image.shape == picture.shape and image.dtype == np.uint8
        assert np.array_equal(image[~mask], picture[~mask])
    assert result.std.shape == mask.shape and result.std.dtype == np.float32
    assert not result.std[~mask].any()
    assert mask.sum() < 20 or not np.array_equal(result.images[0], result.images[1])


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_hole_in_a_photograph(filler: Filler, kind: str) -> None:
    from skimage import data

    picture = data.cat()[:90, :120]
    mask = draw(kind, 90, 120, np.random.default_rng(1))
    for image in filler(picture, mask, n=2).images:
        assert np.array_equal(image[~mask], picture[~mask])


@pytest.mark.parametrize(("height", "width"), [(32, 32), (90, 70), (20, 50), (101, 101)])
def test_what_lies_under_the_hole_never_matters(filler: Filler, height: int, width: int) -> None:
    mask = draw("brush", height, width, np.random.default_rng(2))
    one = noise_picture(height, width)
    other = np.where(mask[..., None], 255 - one, one)
    a, b = filler(one, mask, n=2), filler(other, mask, n=2)
    assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert all(np.array_equal(x, y) for x, y in zip(a.latents, b.latents, strict=True))
    known_changed = np.where(mask[..., None], one, 255 - one)
    assert not np.array_equal(filler(known_changed, mask, n=1).images[0][mask], a.images[0][mask])


# ------------------------------------------------------------------------------------------------------- seeds


def test_the_same_seed_gives_the_same_bytes_and_fills_differ(filler: Filler) -> None:
    picture, mask = noise_picture(50, 40), draw("centre", 50, 40, np.random.default_rng(0))
    a, b, c = filler(picture, mask, n=3, seed=5), filler(picture, mask, n=3, seed=5), filler(picture, mask, n=3, seed=6)
    assert all(np.array_equal(x, y) for x, y in zip(a.images, b.images, strict=True))
    assert a.seeds == b.seeds and not set(a.seeds) & set(c.seeds)
    assert not np.array_equal(a.images[0], c.images[0])
    assert not np.array_equal(a.images[0], a.images[1])


def test_a_fill_does_not_depend_on_how_many_are_drawn(filler: Filler) -> None:
    picture, mask = noise_picture(32, 32), draw("centre", 32, 32, np.random.default_rng(0))
    few, many = filler(picture, mask, n=2), filler(picture, mask, n=PORTION + 2)
    assert many.seeds[:2] == few.seeds
    for i in range(2):  # batches of another size may round otherwise on some processors
        gap = np.abs(few.images[i][mask].astype(int) - many.images[i][mask])
        assert np.median(gap) <= 1
    assert len({image.tobytes() for image in many.images}) == len(many.images)
    unrelated = np.abs(few.images[0][mask].astype(int) - many.images[1][mask])
    assert np.median(unrelated) > 10


def test_temperature_widens_the_latents(filler: Filler) -> None:
    picture, mask = noise_picture(32, 32), draw("centre", 32, 32, np.random.default_rng(0))
    cold, warm = (filler(picture, mask, n=8, temperature=t).latents[0] for t in (0.0, 1.0))
    assert cold.std(0).max() < 1e-6
    assert warm.std(0).mean() > 0.1


# ---------------------------------------------------------------------------------------------------- geometry


def test_the_box_holds_the_hole_and_stays_inside_where_it_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 200, 2)
        top, left = rng.integers(height), rng.integers(width)
        mask = box_mask(height, width, top, left, rng.integers(top, height) + 1, rng.integers(left, width) + 1)
        box = surround(mask, SIZE)
        rows, columns = box.inside(height, width)
        assert mask[rows, columns].sum() == mask.sum()
        assert box.side >= SIZE and box.cut(mask).shape == (box.side, box.side)
        for start, length in ((box.top, height), (box.left, width)):
            assert 0 <= start <= length - box.side if box.side <= length else start <= 0 and start + box.side >= length


def test_the_context_is_as_wide_as_the_hole() -> None:
    assert surround(box_mask(300, 400, 100, 100, 150, 160), SIZE) == Box(65, 70, 120)
    assert surround(box_mask(32, 32, 8, 8, 24, 24), SIZE) == Box(0, 0, 32)
    assert surround(box_mask(400, 100, 150, 10, 250, 90), SIZE).side == 200  # too tall for the inside: goes beyond


def test_a_picture_of_the_models_size_is_never_resampled(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "_resample", None)
    picture, mask = noise_picture(SIZE, SIZE), draw("brush", SIZE, SIZE, np.random.default_rng(0))
    assert filler(picture, mask, n=1).crop == Box(0, 0, SIZE)
    strip = filler(picture[:9], np.ones((9, SIZE), bool), n=1)
    assert strip.crop == Box(-12, 0, SIZE)


@pytest.mark.parametrize("side", [33, 40, 64, 77, 150])
def test_shrinking_never_lets_the_hole_bleed(side: int) -> None:
    hole = draw("scratches", side, side, np.random.default_rng(side))
    pixels = np.where(hole[..., None], noise_picture(side, side), np.uint8(93))
    small, small_hole = shrink(pixels, hole, SIZE)
    assert (small[~small_hole] == 93).all() and (~small_hole).any()
    # Missing exactly where a cell has a missing pixel, told by each pixel's centre.
    cells = np.ceil((np.arange(side) + 0.5) * SIZE / side).astype(int) - 1
    expected = np.zeros((SIZE, SIZE), bool)
    rows, columns = hole.nonzero()
    expected[cells[rows], cells[columns]] = True
    assert np.array_equal(small_hole, expected)


def test_shrinking_and_enlarging_keep_a_smooth_picture() -> None:
    ramp = np.linspace(20, 230, 96)
    pixels = np.repeat((ramp[:, None] * 0.6 + ramp[None] * 0.4)[..., None], 3, 2).round().astype(np.uint8)
    hole = box_mask(96, 96, 30, 30, 60, 60)
    small, _ = shrink(pixels, np.zeros_like(hole), SIZE)
    back = np.where(hole[..., None], np.uint8(0), pixels)
    paste(back, hole, Box(0, 0, 96), enlarge(small, 96))
    assert np.abs(back.astype(int) - pixels).max() <= 2


# ------------------------------------------------------------------------------------------------------ inputs


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


# ------------------------------------------------------------------------------------------------------ results


def test_mean_and_spread_are_what_they_say(filler: Filler) -> None:
    picture, mask = noise_picture(60, 45), draw("boxes", 60, 45, np.random.default_rng(1))
    result = filler(picture, mask, n=5)
    fills = np.stack(result.images).astype(np.float64)
    assert np.allclose(result.std, fills.std(0).mean(-1), atol=1e-4)
    assert [len(z) for z in result.latents] == [5] * len(filler.model.config.levels)
    assert not filler(picture, mask, n=1).std.any()


def test_the_mean_is_the_distributions_own(filler: Filler) -> None:
    picture, mask = noise_picture(SIZE, SIZE), draw("centre", SIZE, SIZE, np.random.default_rng(0))
    with torch.no_grad(), autocast(filler.device):
        known = filler.model.encode_known(to_tensor(picture)[None], torch.from_numpy(mask).float()[None, None])
        mean = filler.model.fill(known, [generator(4, "fill", 0)], temperature=0.0).mean[0]
    n = PORTION + 3
    gap = np.abs(filler(picture, mask, n=n, temperature=0.0).mean.astype(int) - to_pixels(mean))
    assert gap.max() <= 2
    many = filler(picture, mask, n=64)
    apart = (np.stack(many.images).mean(0) - many.mean)[mask] / (np.stack(many.images).std(0)[mask] + 1)
    assert np.sqrt((apart**2).mean()) < 3 / math.sqrt(64)


def test_the_bound_is_the_models_own_on_the_hole_only(filler: Filler) -> None:
    picture, mask = noise_picture(SIZE, SIZE), draw("centre", SIZE, SIZE, np.random.default_rng(0))
    truth = np.where(mask[..., None], np.uint8(128), picture)
    bound = filler(picture, mask, n=1, truth=truth).bound
    assert bound is not None and bound.dims == 3 * mask.sum()
    assert bound.bits_per_dim == pytest.approx(-bound.nats / math.log(2) / bound.dims)
    with torch.no_grad():
        x = to_tensor(truth).repeat(64, 1, 1, 1)
        direct = filler.model(x, torch.from_numpy(mask).float().expand(64, 1, -1, -1)).total
    assert bound.nats == pytest.approx(float(direct.mean()), abs=6 * float(direct.std()) / math.sqrt(16))
    elsewhere = np.where(mask[..., None], truth, 255 - truth)
    again = filler(picture, mask, n=1, truth=elsewhere).bound
    assert again is not None and again.nats == bound.nats  # the truth's known pixels are not read
    other = filler(picture, mask, n=1, truth=picture).bound
    assert other is not None and other.nats != bound.nats
    assert filler(picture, mask, n=1).bound is None


def test_results_are_saved_whole(filler: Filler, tmp_path) -> None:
    picture, mask = noise_picture(50, 70), draw("centre", 50, 70, np.random.default_rng(0))
    result = filler(picture, mask, n=5, truth=picture)
    files = result.save(tmp_path / "new" / "folder")
    names = [f"fill-{i:02d}.png" for i in range(5)] + ["mean.png", "q05.png", "q50.png", "q95.png"]
    names += ["std.png", "sheet.png"]
    assert [file.name for file in files] == names
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
    for file, image in zip(files, [*result.images, result.mean], strict=False):
        assert np.array_equal(open_picture(file).pixels, image)
    assert open_picture(files[9]).pixels.shape == (50, 70, 3)
    assert "sheet.png" not in {file.name for file in result.save(tmp_path / "plain", sheet=False)}
    record = json.loads(json.dumps(result.record()))
    assert (
        record["hole_pixels"] == mask.sum() and record["n"] == len(record["seeds"]) == 5 and record["model"] == "test"
    )


@pytest.mark.parametrize(("height", "width"), [(1, 40), (300, 2), (16, 16), (500, 400)])
def test_sheets_can_be_looked_at(filler: Filler, height: int, width: int) -> None:
    mask = box_mask(height, width, 0, 0, max(1, height // 2), max(1, width // 2))
    sheet = filler(noise_picture(height, width), mask, n=9).sheet()
    assert sheet.dtype == np.uint8 and max(sheet.shape) < 2500
    assert sheet.shape[1] > 4 * min(150, 150 * width // height)


def test_a_place_that_cannot_be_written_is_named(filler: Filler, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = filler(PICTURE, MASK, n=1)
    with pytest.raises(OutputError, match="file"):
        result.save(tmp_path / "file")
    with pytest.raises(OutputError, match="file/sub"):
        result.save(tmp_path / "file" / "sub")


def test_from_pretrained_fills_as_the_model_that_was_saved(tmp_path) -> None:
    save_model(tmp_path / "model", tiny(), "# card", {})
    loaded = Filler.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.id == str(tmp_path / "model")
    kept = Filler(tiny(), "kept")(PICTURE, MASK, n=1).images[0]
    assert np.array_equal(loaded(PICTURE, MASK, n=1).images[0], kept)
    with pytest.raises(ModelError):
        Filler.from_pretrained(tmp_path / "nothing")
