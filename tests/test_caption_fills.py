"""Fills under a caption: what they are told once, what guidance does, and what a record of them holds."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from captions import CAPTIONS, SMALL, tiny
from pictures import patches
from torch import Tensor

from manyfill.caption import Caption
from manyfill.checkpoint import save_model
from manyfill.cli import main
from manyfill.distributions import Gaussian
from manyfill.errors import ConfigError, PictureError
from manyfill.images import save_png
from manyfill.inputs import Sampling, read
from manyfill.masks import write_mask
from manyfill.models.config import PRESETS
from manyfill.models.guidance import Guidance
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.topdown import Step
from manyfill.pipeline import Filler
from manyfill.recipe import Fill
from manyfill.rng import generator

pytestmark = pytest.mark.usefixtures("one_thread")

PHOTO = patches(1)[0]
HOLE = np.zeros(PHOTO.shape[:2], bool)
HOLE[3:-3, 3:-3] = True


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler(tiny(), "tiny")


def latents(filler: Filler, **told: object) -> list[Tensor]:
    found = filler(PHOTO, HOLE, n=2, seed=3, **told).latents  # type: ignore[arg-type]
    return [torch.from_numpy(z) for z in found]


# ------------------------------------------------------------------------------------------------------- guidance


@pytest.mark.parametrize(
    ("weight", "mean", "std"), [(0.0, 1.0, 2.0), (1.0, 3.0, 4.0), (2.0, 5.0, 8.0), (0.5, 2.0, 8**0.5)]
)
def test_guidance_is_linear_in_means_and_logarithms_of_scales(weight: float, mean: float, std: float) -> None:
    guidance = Guidance(weight)
    both = Gaussian(torch.tensor([3.0, 1.0]), torch.tensor([4.0, 2.0]))
    found = both if guidance.off else guidance.gaussian(both)
    assert found.mean[0].item() == pytest.approx(mean) and found.std[0].item() == pytest.approx(std)


def steps(model: ConditionalHVAE, caption: str | None, weight: float) -> tuple[Tensor, list[Step]]:
    x = torch.rand(2, 3, 32, 32, generator=generator(0, "x")) * 2 - 1
    m = torch.zeros(2, 1, 32, 32)
    m[:, :, 3:29, 3:29] = 1
    told = model.tell(model.tokens([caption, None])) if caption else None
    seen = model.encode(x, m, told=told, guidance=Guidance(weight))
    return model.infer(seen, generator(0, "noise"))


@torch.inference_mode()
def test_a_guided_walk_mixes_those_with_and_without_the_caption(filler: Filler) -> None:
    _, plain = steps(filler.model, None, 1)
    pixels, told = steps(filler.model, "snow", 1)
    again, guided = steps(filler.model, "snow", 3)
    walks = plain, told, guided
    # Before anything is drawn the canvases are alike, so both of the first level's distributions are known.
    for a, b, c in ((walk[0].prior for walk in walks), (walk[0].posterior for walk in walks)):
        assert a and b and c and not torch.equal(a.mean, b.mean)
        torch.testing.assert_close(c.mean, a.mean + 3 * (b.mean - a.mean))
        torch.testing.assert_close(c.std, a.std * (b.std / a.std) ** 3)
    assert not torch.equal(guided[-1].canvas[0], told[-1].canvas[0]) and pixels.shape == again.shape == (2,)
    # The second picture has no caption to follow.
    for one, other in zip(plain, guided, strict=True):
        torch.testing.assert_close(one.prior.mean[1], other.prior.mean[1])
        torch.testing.assert_close(one.canvas[1], other.canvas[1])


def test_guidance_of_0_draws_the_latents_of_no_caption(filler: Filler) -> None:
    plain, told, unguided = (
        latents(filler, **of) for of in ({}, {"caption": "snow"}, {"caption": "snow", "guidance": 0})
    )
    for a, b, c in zip(plain, told, unguided, strict=True):
        torch.testing.assert_close(a, c)
        assert not torch.equal(a, b)


def test_the_bound_is_that_of_what_fills_are_drawn_from(filler: Filler) -> None:
    bounds = [
        filler(PHOTO, HOLE, n=1, truth=PHOTO, **told).bound  # type: ignore[arg-type]
        for told in ({}, {"caption": "snow"}, {"caption": "snow", "guidance": 4.0})
    ]
    assert len({bound.nats for bound in bounds if bound}) == 3


# ---------------------------------------------------------------------------------------------------------- fills


def test_guidance_takes_the_memory_of_two_walks(filler: Filler) -> None:
    efforts = {}
    for guidance in (1.0, 2.0):
        said = {"caption": "snow", "guidance": guidance}
        filler(PHOTO, HOLE, n=1, progress=lambda effort, _, g=guidance: efforts.update({g: effort.memory}), **said)
    assert efforts[2.0] > efforts[1.0]


def test_a_caption_is_read_once_and_tells_every_fill(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[Tensor] = []
    tell = ConditionalHVAE.tell
    monkeypatch.setattr(ConditionalHVAE, "tell", lambda self, tokens: asked.append(tokens) or tell(self, tokens))
    wide = np.tile(PHOTO, (3, 3, 1))
    hole = np.zeros(wide.shape[:2], bool)
    hole[10:-10, 10:-10] = True
    told = filler(wide, hole, n=3, seed=1, caption="a red car")
    assert len(asked) == 1
    again = filler(wide, hole, n=3, seed=1, caption="a red car")
    plain = filler(wide, hole, n=3, seed=1)
    for a, b, c in zip(told.images, again.images, plain.images, strict=True):
        assert np.array_equal(a, b) and (a[hole] != c[hole]).any() and np.array_equal(a[~hole], c[~hole])


def test_fills_do_not_depend_on_what_is_drawn_with_them(filler: Filler) -> None:
    """One picture with a caption and one without in a common batch."""
    subjects = [read(PHOTO, HOLE, caption=Caption("the sea")), read(PHOTO[::-1].copy(), HOLE)]
    shown = [filler.show(subject) for subject in subjects]
    assert shown[0] and shown[1]
    together = filler.draw([shown[0], shown[1]], Sampling(3))
    for alone, common in zip(shown, together, strict=True):
        assert alone
        (drawn,) = filler.draw([alone], Sampling(3))
        assert np.array_equal(drawn.fills[0], common.fills[0])


def test_a_fill_remembers_its_caption_to_be_rerolled_and_blended(filler: Filler, tmp_path: Path) -> None:
    drawn = filler(PHOTO, HOLE, n=2, seed=5, caption="two dogs", guidance=1.5)
    drawn.fills[0].save(tmp_path / "fill.safetensors")
    kept = Fill.load(tmp_path / "fill.safetensors")
    assert kept.caption == drawn.fills[0].caption == drawn.caption
    same = filler.reroll(PHOTO, HOLE, kept, keep="all", n=1)
    assert np.array_equal(same.images[0], drawn.images[0]) and same.record()["caption"] == "two dogs"
    steps = filler.blend(PHOTO, HOLE, kept, drawn.fills[1], steps=3)
    assert np.array_equal(steps.images[0], drawn.images[0]) and np.array_equal(steps.images[2], drawn.images[1])
    other = filler(PHOTO, HOLE, n=1, seed=5, caption="two dogs")
    with pytest.raises(PictureError, match="another caption"):
        filler.blend(PHOTO, HOLE, kept, other.fills[0])
    assert "caption" not in filler(PHOTO, HOLE, n=1).record()


# ------------------------------------------------------------------------------------------------ the command line


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder at hand: a photo, its mask, a model with captions and one without."""
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), PHOTO)
    write_mask(Path("mask.png"), HOLE)
    save_model(Path("reads"), tiny(), "# card", {})
    save_model(Path("plain"), tiny(None), "# card", {})
    return tmp_path


FILL = ["fill", "photo.png", "--mask", "mask.png", "-n", "2", "--out", "fills"]


def test_the_command_tells_a_caption_and_records_it(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILL, "--model", "reads", "--caption", "a red car", "--guidance", "2", "--json", "--latents"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["caption"], record["guidance"]) == ("a red car", 2.0)
    assert (
        main(["reroll", "fills/fill-00.safetensors", "--keep-levels", "1-2", "-n", "1", "--model", "reads", "--json"])
        == 0
    )
    assert json.loads(capsys.readouterr().out)["caption"] == "a red car"
    assert main([*FILL, "--model", "reads", "--caption", " ".join(CAPTIONS)]) == 0
    assert "longer than the 6 tokens" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("told", "words"),
    [
        (["--model", "plain", "--caption", "a dog"], "--caption: this model reads none; take one"),
        (["--model", "reads", "--caption", " "], "--caption: is empty"),
        (["--model", "reads", "--caption", "gr\udcf6\udcdfer"], "--caption: is no UTF-8 text"),
        (["--model", "reads", "--caption", "a", "--guidance=-1"], "--guidance -1.0: must be from 0 to 100"),
        (["--model", "reads", "--caption", "a", "--guidance", "nan"], "--guidance nan: must be from 0 to 100"),
        (["--model", "reads", "--guidance", "2"], "--guidance 2.0: goes with a --caption"),
    ],
)
def test_what_cannot_be_told_is_refused_in_a_line(
    files: Path, capsys: pytest.CaptureFixture[str], told: list[str], words: str
) -> None:
    assert main([*FILL, *told]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}") and error.count("\n") == 1 and not Path("fills").exists()


def test_draws_one_after_the_other_are_not_guided() -> None:
    base = PRESETS["tiny32"]
    levels = tuple(
        level.model_copy(update={"prior": "autoregressive" if level.size == 4 else "gaussian"}) for level in base.levels
    )
    model = ConditionalHVAE(base.model_copy(update={"levels": levels, "captions": SMALL}))
    model.vocabulary = tiny().vocabulary
    filler = Filler(model, "chained")
    assert filler(PHOTO, HOLE, n=1, caption="a dog").images
    with pytest.raises(ConfigError, match="this model draws latents one after the other"):
        filler(PHOTO, HOLE, n=1, caption="a dog", guidance=2)
