"""Keeping, redrawing and blending the levels of a fill, on the default model and photographs."""

import math
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

from manyfill import Fill, Filler
from manyfill.cli import main
from manyfill.data.loader import tile
from manyfill.errors import ConfigError, ManyfillError, PictureError
from manyfill.images import save_png
from manyfill.inputs import Sampling, parse_temperature
from manyfill.masks import draw, write_mask
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE
from manyfill.recipe import Layer, Recipe, parse_levels
from manyfill.rng import TorchDraws

MASK = draw("centre", 64, 64, np.random.default_rng(0))
HOLE = slice(16, 48)


def photograph(name: str) -> np.ndarray:
    return tile(np.asarray(getattr(skimage.data, name)()), 64, None)


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler.from_pretrained(device="cpu")


@pytest.fixture(scope="module")
def tiny() -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "tiny")


def cells(picture: np.ndarray) -> np.ndarray:
    """The hole's averages over 8x8 pixels, a row for each channel."""
    return picture[HOLE, HOLE].astype(np.float64).reshape(4, 8, 4, 8, 3).mean((1, 3)).reshape(-1, 3).T


def grain(picture: np.ndarray) -> np.ndarray:
    """What is finer than that."""
    hole = picture[HOLE, HOLE].astype(np.float64)
    return hole - np.kron(hole.reshape(4, 8, 4, 8, 3).mean((1, 3)), np.ones((8, 8, 1)))


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a.ravel(), b.ravel())[0, 1])


# --------------------------------------------------------------------------------------------------------- reroll


@pytest.mark.parametrize("name", ["astronaut", "coffee"])
def test_the_coarse_levels_are_the_composition_and_the_fine_ones_the_texture(filler: Filler, name: str) -> None:
    picture = photograph(name)
    drawn = filler(picture, MASK, n=4)
    origin = drawn.images[2]
    for keep, low, high in (
        ("1-4", (0.9, 1), (-0.2, 0.5)),
        ("1-7", (0.98, 1), (0.5, 0.9)),
        ("7-", (-1, 0.9), (0.5, 1)),
    ):
        rerolled = filler.reroll(picture, MASK, drawn.fills[2], keep, n=4, seed=1).images
        assert low[0] < np.mean([correlation(cells(image), cells(origin)) for image in rerolled]) < low[1], keep
        assert high[0] < np.mean([correlation(grain(image), grain(origin)) for image in rerolled]) < high[1], keep
        assert len({image.tobytes() for image in rerolled}) == 4
        assert all(np.array_equal(image[~MASK], picture[~MASK]) for image in rerolled)


def test_keeping_all_levels_gives_the_same_bytes_also_from_a_file_and_of_a_reroll(filler: Filler, tmp_path) -> None:
    picture = photograph("rocket")
    drawn = filler(picture, MASK, n=3, temperature=(0.5, 1.2))
    drawn.fills[1].save(tmp_path / "fill.safetensors")
    once = filler.reroll(picture, MASK, Fill.load(tmp_path / "fill.safetensors"), range(1, 10), n=2, seed=4)
    assert all(np.array_equal(image, drawn.images[1]) for image in once.images)
    other = filler.reroll(picture, MASK, drawn.fills[1], "3-5", n=2, seed=4)
    again = filler.reroll(picture, MASK, other.fills[1], "all", n=1)
    assert np.array_equal(again.images[0], other.images[1]) and not np.array_equal(*other.images)


def test_kept_levels_keep_their_latents_and_the_others_do_not(filler: Filler) -> None:
    picture = photograph("coffee")
    fill = filler(picture, MASK, n=1).fills[0]
    rerolled = filler.reroll(picture, MASK, fill, "1-4", n=2, seed=3).fills
    for level, (mine, *others) in enumerate(zip(fill.latents, *(f.latents for f in rerolled), strict=True)):
        assert all(np.array_equal(mine, other) == (level < 4) for other in others)
    assert [len(f.recipe.keys) for f in (fill, *rerolled)] == [1, 2, 2]


def test_the_same_seed_rerolls_the_same_and_never_the_fill_itself(filler: Filler) -> None:
    picture = photograph("coffee")
    fills = filler(picture, MASK, n=1, seed=5)
    a, b, c = (filler.reroll(picture, MASK, fills.fills[0], "none", n=1, seed=s).images[0] for s in (5, 5, 6))
    assert np.array_equal(a, b) and not np.array_equal(a, c) and not np.array_equal(a, fills.images[0])


# ---------------------------------------------------------------------------------------------------------- blend


def test_a_blend_leads_from_one_to_the_other_and_every_step_is_as_rough(filler: Filler) -> None:
    picture = photograph("astronaut")
    drawn = filler(picture, MASK, n=2)
    steps = filler.blend(picture, MASK, *drawn.fills, steps=5)
    assert np.array_equal(steps.images[0], drawn.images[0]) and np.array_equal(steps.images[-1], drawn.images[1])
    apart = [np.abs(cells(a) - cells(b)).mean() for a, b in zip(steps.images, steps.images[1:], strict=False)]
    assert max(apart) < 0.7 * np.abs(cells(drawn.images[0]) - cells(drawn.images[1])).mean()
    rough = [grain(image).std() for image in steps.images]
    assert min(rough) > 0.85 * min(rough[0], rough[-1])
    assert steps.seed is None and steps.record()["temperature"] is None


def test_blended_noise_stays_standard_normal() -> None:
    a, b = (Recipe((Layer(((key, 1.0),), warmth),)) for key, warmth in ((1, 0.5), (2, 1.5)))
    middle = a.blend(b, 0.5)
    once_more = middle.blend(a, 0.3).layers[0]
    assert middle.layers[0].temperature == 1.0
    assert dict(middle.layers[0].sources) == pytest.approx({1: math.sqrt(0.5), 2: math.sqrt(0.5)})
    assert sum(weight**2 for _, weight in once_more.sources) == pytest.approx(1)
    assert a.blend(b, 0.0) == a and a.blend(b, 1.0) == b and a.blend(a, 0.4) == a
    noise = once_more.normal(TorchDraws(), (200, 200), 3)
    assert float(noise.std()) == pytest.approx(1, abs=0.02)
    first = a.layers[0].normal(TorchDraws(), (200, 200), 3)
    assert correlation(noise, first) == pytest.approx(dict(once_more.sources)[1], abs=0.02)


# -------------------------------------------------------------------------------------------- temperature by level


def test_a_temperature_for_each_level(filler: Filler) -> None:
    picture = photograph("coffee")
    drawn = filler(picture, MASK, n=6, temperature=(0.0, 0.0, 0.0, 0.0, 1.0))
    spread = [float(z.std(0).mean()) for z in drawn.latents]
    assert max(spread[:4]) < 1e-6 < 1e-2 < min(spread[4:])
    warm = filler(picture, MASK, n=6)
    among = [np.std([cells(image) for image in images], 0).mean() for images in (drawn.images, warm.images)]
    assert among[0] < 0.5 * among[1]
    assert parse_temperature("0.5,1") == (0.5, 1.0) and parse_temperature("2") == 2.0
    assert [layer.temperature for layer in Sampling(1, 0, (0.5, 1)).recipes(3)[0].layers] == [0.5, 1, 1]


# -------------------------------------------------------------------------------------------------------- refusals


def test_levels_are_named_as_people_do() -> None:
    assert parse_levels("1-3", 9) == {0, 1, 2} and parse_levels("8-", 9) == {7, 8} and parse_levels("2, 5", 9) == {1, 4}
    assert parse_levels("all", 2) == {0, 1} and parse_levels("none", 2) == parse_levels([], 2) == frozenset()
    for wrong in ("0", "1-10", "x", "4--", [10]):
        with pytest.raises(ConfigError, match="--keep-levels"):
            parse_levels(wrong, 9)


def test_a_fill_of_another_model_or_picture_is_refused(filler: Filler, tiny: Filler) -> None:
    picture, other = photograph("coffee"), photograph("rocket")
    fill = filler(picture, MASK, n=1).fills[0]
    with pytest.raises(PictureError, match="another picture or mask"):
        filler.reroll(other, MASK, fill, "all")
    with pytest.raises(PictureError, match="another picture or mask"):
        filler.blend(picture, ~MASK, fill, fill)
    with pytest.raises(PictureError, match="another model"):
        tiny.reroll(picture, MASK, fill, "all")
    with pytest.raises(ConfigError, match="--steps"):
        filler.blend(picture, MASK, fill, fill, steps=1)


def test_what_is_no_fill_is_named(tmp_path) -> None:
    from manyfill.locate import DEFAULT_MODEL

    (tmp_path / "text").write_text("no tensors")
    for path, words in ((tmp_path / "none", "no such file"), (tmp_path / "text", "is no file of a fill")):
        with pytest.raises(ManyfillError, match=words):
            Fill.load(path)
    with pytest.raises(ManyfillError, match="is no file of a fill"):
        Fill.load(DEFAULT_MODEL / "model.safetensors")


# ---------------------------------------------------------------------------------------------------- command line


def test_reroll_and_blend_from_the_command_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    monkeypatch.chdir(tmp_path)
    Path("in").mkdir()
    save_png(Path("in/photo.png"), photograph("coffee"))
    write_mask(Path("in/mask.png"), MASK)
    assert main(["fill", "in/photo.png", "--mask", "in/mask.png", "-n", "2", "--out", "out", "--latents"]) == 0
    Path("elsewhere").mkdir()
    for folder in ("in", "out"):  # together, so that each still knows the other
        Path(folder).rename(Path("elsewhere", folder))
    fills = [f"elsewhere/out/fill-0{i}.safetensors" for i in range(2)]
    assert main(["reroll", fills[1], "--keep-levels", "all", "-n", "1", "--out", "same"]) == 0
    assert Path("same/fill-00.png").read_bytes() == Path("elsewhere/out/fill-01.png").read_bytes()
    assert main(["blend", *fills, "--steps", "3"]) == 0
    ends = [Path(f"fill-00-blended/fill-0{i}.png").read_bytes() for i in (0, 2)]
    assert ends == [Path(f"elsewhere/out/fill-0{i}.png").read_bytes() for i in range(2)]
    capsys.readouterr()
    Path("elsewhere/in/photo.png").rename("moved.png")
    assert main(["reroll", fills[0], "--keep-levels", "1-4", "-n", "1"]) == 2
    assert "--photo" in capsys.readouterr().err
    assert main(["reroll", fills[0], "--keep-levels", "1-4", "-n", "1", "--photo", "moved.png"]) == 0
    assert main(["reroll", "moved.png", "--keep-levels", "1-4"]) == 2
    assert main(["reroll", fills[0], "--keep-levels", "12", "--photo", "moved.png"]) == 2
    assert main(["fill", "moved.png", "--mask", "elsewhere/in/mask.png", "--temperature", "warm"]) == 2
    told = capsys.readouterr().err.strip().splitlines()
    assert [line.startswith("error: ") for line in told] == [True] * 3 and not Path("moved-fills").exists()
