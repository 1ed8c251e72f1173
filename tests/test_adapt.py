"""Learning from a picture's known part: that it helps, that it never reads the hole, and what it says."""

import itertools
import json
import signal
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from manyfill import Filler
from manyfill.checkpoint import digest, save_model
from manyfill.cli import main
from manyfill.crop import Box
from manyfill.data.squares import Squares
from manyfill.errors import ConfigError, OutputError, PictureError
from manyfill.images import open_picture, save_png
from manyfill.inputs import read
from manyfill.masks import write_mask
from manyfill.models.config import LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train import adapt
from manyfill.train.adapt import adapted
from manyfill.train.engine import Engine
from manyfill.train.held_out import apart

pytestmark = pytest.mark.usefixtures("one_thread")

MASK = np.zeros((48, 56), bool)
MASK[20:32, 24:36] = True


def checks(height: int = 48, width: int = 56) -> np.ndarray:
    """A texture of little noise: what it teaches is easily learnt."""
    rows, columns = np.mgrid[:height, :width]
    noise = np.random.default_rng(0).integers(0, 8, (height, width, 1))
    return (np.where((rows // 2 + columns // 2) % 2, 200, 60)[..., None] + noise).repeat(3, 2).astype(np.uint8)


def micro(seed: int = 0) -> ConditionalHVAE:
    stages = (StageSpec(size=8, width=8), StageSpec(size=4, width=8))
    levels = (LevelSpec(size=4, width=8, latent=2), LevelSpec(size=8, width=8, latent=2))
    torch.manual_seed(seed)
    return ConditionalHVAE(ModelConfig(size=8, mixtures=2, stages=stages, levels=levels))


@pytest.fixture
def filler() -> Filler:
    return Filler(micro(), "micro")


# ------------------------------------------------------------------------------------------------------ squares


def test_squares_show_nothing_of_the_hole_at_any_size() -> None:
    hole = np.random.default_rng(1).random((60, 80)) < 0.003
    squares = Squares(checks(60, 80), hole, [8, 11, 16, 64, 99], 0, "x")
    boxes = [squares.box(index) for index in range(300)]
    assert not any(box.cut(hole).any() for box in boxes)
    assert {box.side for box in boxes} == set(squares.places) and {8, 11} <= set(squares.places)
    assert all(box.inside(60, 80) == Box(*box).inside(10**6, 10**6) for box in boxes), "none reaches beyond the edges"
    assert boxes == [Squares(checks(60, 80), hole, [8, 11, 16], 0, "x").box(i) for i in range(300)]
    assert squares[5].pixels.shape == (boxes[5].side, boxes[5].side, 3)


def test_every_place_may_come() -> None:
    hole = np.zeros((6, 7), bool)
    hole[0, 0] = hole[3, 5] = True
    squares = Squares(np.zeros((6, 7, 1), np.uint8), hole, [3], 0, "x")
    free = {(t, s) for t in range(4) for s in range(5) if not hole[t : t + 3, s : s + 3].any()}
    assert {squares.box(index)[:2] for index in range(500)} == free


@pytest.mark.parametrize("sides", [[8], [8, 11, 16]])
def test_held_out_squares_share_no_pixel_with_those_to_learn_from(sides: list[int]) -> None:
    training, held_out = apart(checks(), MASK, sides, 3, "x")
    judged = np.zeros_like(MASK)
    for index in held_out.indices:
        box = held_out.source.box(index)  # type: ignore[attr-defined]
        assert not box.cut(MASK).any()
        judged[box.inside(*MASK.shape)] = True
    assert 0 < judged.sum() <= (~MASK).sum() / 8
    assert not any(training.box(index).cut(judged | MASK).any() for index in range(500))


def test_where_just_two_squares_find_room_one_is_held_out() -> None:
    hole = np.ones((20, 30), bool)
    hole[3:11, 2:10] = hole[7:15, 15:23] = False
    training, held_out = apart(checks(20, 30), hole, [8, 11], 0, "x")
    places = {training.box(0)[:2], held_out.source.box(held_out.indices[0])[:2]}  # type: ignore[attr-defined]
    assert places == {(3, 2), (7, 15)} and len(held_out) >= 1
    hole[3, 2] = True
    with pytest.raises(PictureError, match=r"leaves no two squares of 8x8 known pixels .* drop --adapt"):
        apart(checks(20, 30), hole, [8, 11], 0, "x")


# ----------------------------------------------------------------------------------------------------- learning


def test_learning_from_a_texture_helps_and_leaves_the_model_given_as_it_was(filler: Filler) -> None:
    before = filler.digest
    shares: list[float] = []
    found = adapted(filler, checks(), MASK, 40, tell=shares.append)
    assert found.helped and found.after < found.before - 0.3, found
    assert digest(filler.model) == before and found.filler.digest != before
    assert shares == pytest.approx([(step + 1) / 40 for step in range(40)])
    record = found.record()
    assert record["steps"] == 40 and record["before"] == found.before and record["held_out_squares"] > 1
    assert "which helped" in str(found) and "after 40 steps" in str(found)
    fills = found.filler(checks(), MASK, n=2)
    assert all(np.array_equal(image[~MASK], checks()[~MASK]) for image in fills.images)


def test_the_hole_is_never_read_and_the_same_seed_learns_the_same(filler: Filler) -> None:
    one, other = checks(), checks()
    other[MASK] = np.random.default_rng(5).integers(0, 256, other[MASK].shape)
    a, b = adapted(filler, one, MASK, 6), adapted(filler, other, MASK, 6)
    assert a.filler.digest == b.filler.digest and (a.before, a.after) == (b.before, b.after)
    assert adapted(filler, one, MASK, 6, seed=1).filler.digest != a.filler.digest
    other[5, 5] ^= 255
    assert adapted(filler, other, MASK, 6).filler.digest != a.filler.digest, "what is known does count"


def test_the_same_held_out_squares_holes_and_noise_before_and_after(
    filler: Filler, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "update", lambda self, state, *_: setattr(state, "step", state.step + 1))
    found = adapted(filler, checks(), MASK, 3)
    assert found.before == found.after and not found.helped and found.filler is filler
    assert "did not help: the model as it was drew the fills" in str(found)


def test_what_got_worse_is_not_used(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    better = adapted(filler, checks(), MASK, 40).filler
    monkeypatch.setitem(adapt.RECIPE, "learning_rate", 1.0)
    monkeypatch.setitem(adapt.RECIPE, "warmup_steps", 0)
    found = adapted(better, checks(), MASK, 3)
    assert not found.helped and found.filler is better


def test_time_and_a_signal_end_it(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    now = itertools.count()  # a second passes each time that the clock is looked at: before a step, in it and after it
    with monkeypatch.context() as patch:
        patch.setattr(adapt, "time", SimpleNamespace(monotonic=lambda: next(now)))
        found = adapted(filler, checks(), MASK, "30s").record()
    assert (found["steps"], found["training_seconds"]) == (10, 32)
    told = 0

    def interrupt(_: float) -> None:
        nonlocal told
        told += 1
        if told == 4:
            signal.raise_signal(signal.SIGINT)

    assert adapted(filler, checks(), MASK, 100, tell=interrupt).record()["steps"] == 4


@pytest.mark.parametrize("kind", ["grey", "scratch", "large"])
def test_other_pictures_and_holes(filler: Filler, kind: str) -> None:
    picture, mask = checks(), MASK.copy()
    if kind == "grey":
        picture = picture[..., :1]
    if kind == "scratch":
        mask[:] = False
        mask[4, 3:40] = True
    if kind == "large":
        mask[12:40, 20:48] = True
    assert np.isfinite(adapted(filler, picture, mask, 4).after)


@pytest.mark.parametrize("width, sides", [(3, [8]), (24, [8, 11, 16, 23, 32, 45])])
def test_squares_are_of_the_scales_that_the_fill_meets(filler: Filler, width: int, sides: list[int]) -> None:
    mask = np.zeros((400, 400), bool)
    mask[100:103, 50:90] = True
    if width > 3:
        mask[200:224, 200:224] = True
    shown = filler.show(read(checks(400, 400), mask))
    assert shown and adapt._sides(shown, filler) == sides


# -------------------------------------------------------------------------------------------- what is refused


def test_what_cannot_be_is_one_line(filler: Filler) -> None:
    for span in ("0", "2x", "soon", -3, "0s"):
        with pytest.raises(ConfigError, match=r"--adapt .*: write a number of steps, or a duration"):
            adapted(filler, checks(), MASK, span)
    with pytest.raises(PictureError, match=r"the mask is empty.*drop --adapt"):
        adapted(filler, checks(), np.zeros_like(MASK), 1)
    with pytest.raises(PictureError, match="leaves no two squares of 8x8"):
        adapted(filler, checks(), np.ones_like(MASK), 1)
    grey = Filler(ConditionalHVAE(micro().config.model_copy(update={"channels": 1})), "grey")
    with pytest.raises(PictureError, match="is in colour but the model is grey"):
        adapted(grey, checks(), MASK, 1)


# --------------------------------------------------------------------------------------------- the command line


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), checks())
    write_mask(Path("mask.png"), MASK)
    save_model(Path("micro"), micro(), "a card", {})
    return tmp_path


FILL = ["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", "micro", "--out", "out"]


def test_the_command_keeps_what_it_learnt_for_the_next_fill(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILL, "--adapt", "30", "--latents", "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["model"] == "out/model" and record["adaptation"]["helped"]
    assert record["adaptation"]["after"] < record["adaptation"]["before"]
    assert any("which helped" in note for note in record["notes"])
    card = Path("out/model/README.md").read_text()
    assert "fine-tuned from micro" in card and "`photo.png`" in card and str(here) not in card
    again = [*FILL[:-4], "--model", "out/model", "--out", "next"]
    assert main(again) == 0
    assert Path("next/fill-00.png").read_bytes() == Path("out/fill-00.png").read_bytes()
    assert main(["reroll", "out/fill-00.safetensors", "--keep-levels", "all", "--model", "out/model", "-n", "1"]) == 0
    # To learn on from there, into the same place.
    assert main([*FILL[:-4], "--model", "out/model", "--out", "out", "--adapt", "20"]) == 0
    assert "learnt from the picture's known part" in capsys.readouterr().out


def test_where_it_does_not_help_the_model_as_it_was_fills(
    here: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Engine, "update", lambda self, state, *_: setattr(state, "step", state.step + 1))
    assert main([*FILL, "--adapt", "2"]) == 0
    assert "did not help" in capsys.readouterr().out and not Path("out/model").exists()
    adapted_not, plain = Path("out/fill-00.png").read_bytes(), [*FILL[:-1], "plain"]
    assert main(plain) == 0
    assert Path("plain/fill-00.png").read_bytes() == adapted_not


def test_another_model_in_its_place_is_not_lost(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_model(Path("out/model"), micro(1), "of a run", {"steps": 12000})
    before = Path("out/model/model.safetensors").read_bytes()
    assert main([*FILL, "--adapt", "2"]) == 2
    assert "out/model: is in the way of the adapted model; choose another --out" in capsys.readouterr().err
    assert Path("out/model/model.safetensors").read_bytes() == before
    with pytest.raises(OutputError, match="is no folder"):
        adapt.check_place(Path("photo.png/sub/model"))


def test_too_little_memory_is_said_before_anything_is_learnt(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*FILL, "--adapt", "2", "--max-memory", "1M"]) == 2
    assert "error: --max-memory: these fills take about" in capsys.readouterr().err and not Path("out").exists()


def test_bad_words_are_one_line(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for flags in (["--adapt", "2 minutes"], ["--adapt", "-1s"]):
        assert main([*FILL, *flags]) == 2
        shown = capsys.readouterr().err
        assert shown.startswith("error: ") and shown.count("\n") == 1 and "Traceback" not in shown
    assert not Path("out").exists() and open_picture("photo.png").pixels.shape == (48, 56, 3)
