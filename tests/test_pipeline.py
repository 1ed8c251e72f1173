"""Any picture, any hole: known pixels stay, hole pixels never matter, fills are functions of their seed."""

import numpy as np
import pytest
import torch
from untrained import box_mask, noise_picture, tiny

from manyfill import Filler
from manyfill.checkpoint import save_model
from manyfill.errors import ModelError
from manyfill.masks import KINDS, draw
from manyfill.octaves import PORTION
from manyfill.runtime import network

# --------------------------------------------------------------------------------------------------------- known pixels
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


# ---------------------------------------------------------------------------------------------------------------- seeds


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


@pytest.mark.parametrize("side", [1, 2, 3, 20])
def test_a_single_fill_is_bit_for_bit_the_first_of_several(filler: Filler, side: int, one_thread: None) -> None:
    """However few its pixels are: of products of few rows some processors make others."""
    picture, mask = noise_picture(32, 32), box_mask(32, 32, 8, 8, 8 + side, 8 + side)
    for model in (filler, Filler.from_pretrained()):
        one, several = model(picture, mask, n=1), model(picture, mask, n=3)
        assert np.array_equal(one.images[0], several.images[0])
        assert all(np.array_equal(a[:1], b[:1]) for a, b in zip(one.latents, several.latents, strict=True))


def test_weights_rounded_once_fill_as_those_rounded_at_every_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(network, "autocast", lambda device: torch.autocast(device.type, torch.bfloat16))
    picture, mask = noise_picture(32, 32), box_mask(32, 32, 8, 8, 24, 24)
    filler = Filler(tiny(), "tiny")
    once = filler(picture, mask, n=2)
    assert filler.runtime.rounded() is filler.model  # outside of autocast
    with monkeypatch.context() as patch:
        patch.setattr(network.Network, "rounded", lambda self: self.model)
        assert all(map(np.array_equal, once.images, filler(picture, mask, n=2).images))
    with torch.no_grad():
        filler.model.topdown.start.add_(1.0)
    assert not np.array_equal(once.images[0], filler(picture, mask, n=2).images[0])


def test_temperature_widens_the_latents(filler: Filler) -> None:
    picture, mask = noise_picture(32, 32), draw("centre", 32, 32, np.random.default_rng(0))
    cold, warm = (filler(picture, mask, n=8, temperature=t).latents[0] for t in (0.0, 1.0))
    assert cold.std(0).max() < 1e-6
    assert warm.std(0).mean() > 0.1


def test_from_pretrained_fills_as_the_model_that_was_saved(tmp_path) -> None:
    save_model(tmp_path / "model", tiny(), "# card", {})
    picture, mask = noise_picture(8, 9), box_mask(8, 9, 2, 2, 5, 5)
    loaded = Filler.from_pretrained(tmp_path / "model", device="cpu")
    assert loaded.id == str(tmp_path / "model")
    kept = Filler(tiny(), "kept")(picture, mask, n=1).images[0]
    assert np.array_equal(loaded(picture, mask, n=1).images[0], kept)
    with pytest.raises(ModelError):
        Filler.from_pretrained(tmp_path / "nothing")
