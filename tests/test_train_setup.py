"""What a run starts from: its folder, its first weights, and data of which some is held out or cannot be used."""

import math
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from training import Micro, records, smooth, unequal

from manyfill.checkpoint import load_model
from manyfill.data import open_source
from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.images import save_png
from manyfill.masks import write_mask
from manyfill.models.config import PRESETS
from manyfill.models.multiscale import MultiscaleHead
from manyfill.train import loop
from manyfill.train.held_out import split
from manyfill.train.loop import Trainer, run
from manyfill.train.settings import differences, load
from manyfill.train.setup import initial_state

pytestmark = pytest.mark.usefixtures("one_thread")


def test_other_settings_on_resuming_are_refused_by_name(micro: Micro, tmp_path: Path) -> None:
    run(micro(), tmp_path / "run")
    with pytest.raises(
        ConfigError,
        match=r"--out .*run: .*\(seed: 0 -> 1, train\.batch_size: 2 -> 4\); choose another --out, with --fork",
    ):
        run(micro("train.batch_size=4", seed=1), tmp_path / "run")
    (tmp_path / "run" / "settings.json").unlink()
    with pytest.raises(ConfigError, match=r"settings\.json"):
        run(micro(), tmp_path / "run")


def test_fine_tuning_starts_from_the_given_weights(micro: Micro, tmp_path: Path) -> None:
    run(micro(), tmp_path / "first")
    model = str(tmp_path / "first" / "model")
    given = load_model(model).model.state_dict()
    settings = micro("train.warmup_steps=1000", init=model, steps=2)
    start = initial_state(settings, torch.device("cpu"))
    assert unequal(given, start.model.state_dict()) == unequal(given, start.ema.module.state_dict()) == []
    assert start.model.training and start.step == 0
    run(settings, tmp_path / "second")
    tuned = load_model(tmp_path / "second" / "model").model.state_dict()
    assert 0 < max((tuned[name] - given[name]).abs().max().item() for name in given) < 1e-3
    assert "fine-tuned from model" in (tmp_path / "second" / "model" / "README.md").read_text()
    with pytest.raises(ConfigError, match=r"--init .*model\.\*"):
        run(micro("model.mixtures=3", init=model), tmp_path / "third")


def test_a_plain_model_is_given_autoregressive_parts(micro: Micro, tmp_path: Path) -> None:
    run(micro(steps=2), tmp_path / "plain")
    init = str(tmp_path / "plain" / "model")
    before = load_model(init).model
    chained = ", ".join(f'{{size={size}, width=4, latent=2, prior="autoregressive"}}' for size in (4, 8))
    parts = ("model.head=multiscale", f"model.levels=[{chained}]")
    settings = micro(*parts, init=init, steps=1)
    extended = initial_state(settings, torch.device("cpu")).model
    assert isinstance(extended.head, MultiscaleHead)
    weights = extended.state_dict()
    assert unequal(before.state_dict(), {name: weights[name] for name in before.state_dict()}) == []
    run(settings, tmp_path / "extended")
    own = str(tmp_path / "extended" / "model")
    assert load([str(tmp_path)], init=own).model == settings.model, "its parts are kept whatever the preset"
    with pytest.raises(ConfigError, match="can change"):
        initial_state(micro(*parts, "model.head=pixelcnn", init=own), torch.device("cpu"))


@pytest.mark.parametrize("preset", ["pixelvae64", "multiscale64", "caption64"])
def test_presets_with_more_parts_start_from_the_shipped_model(preset: str, photos: Path) -> None:
    assert load([str(photos)], preset=preset, init="base64").model == PRESETS[preset]


# ----------------------------------------------------------------------------------------------------------- the data


def test_without_validation_pictures_some_are_held_back(photos: Path, micro: Micro, tmp_path: Path) -> None:
    source = open_source(photos)
    training, validation = split(source, seed=1)
    names = [{part.name(i) for i in range(len(part))} for part in (training, validation)]
    assert names[0].isdisjoint(names[1]) and len(names[0] | names[1]) == 6 and len(validation) == 1
    assert {training[i].name for i in range(len(training))} == names[0]
    again = split(source, seed=1)[1]
    assert [again.name(i) for i in range(len(again))] == list(names[1])
    trainer = Trainer(micro(), tmp_path / "run")
    seen = {name for batch, _ in zip(trainer.stream(), range(10), strict=False) for name in batch.names}
    assert len(seen) == 5 and trainer.validation.name(0) not in seen


def test_one_picture_is_too_few_to_hold_any_back(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    save_png(tmp_path / "one" / "0.png", smooth(0, 40))
    with pytest.raises(DataError, match=r"one picture only.*--val"):
        run(micro(data=[str(tmp_path / "one")]), tmp_path / "run")
    run(micro(data=[str(tmp_path / "one")], validation=[str(tmp_path / "one")]), tmp_path / "run")


def test_masks_of_ones_own_and_a_black_one_cannot_make_nan(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    (tmp_path / "masks").mkdir()
    write_mask(tmp_path / "masks" / "black.png", np.zeros((40, 40), bool))
    run(micro(masks=str(tmp_path / "masks"), steps=6), tmp_path / "run")
    assert all(math.isfinite(r["bits_per_dim"]) and not r.get("skipped_steps") for r in records(tmp_path / "run"))
    with pytest.raises(DataError, match="nomasks"):
        run(micro(masks=str(tmp_path / "nomasks")), tmp_path / "other")
    with pytest.raises(ConfigError, match="folder"):
        run(micro("data.masks.folder=1"), tmp_path / "other")
    with pytest.raises(ConfigError, match="unknown kind 'circle'"):
        run(micro("data.masks.circle=1"), tmp_path / "other")


@pytest.fixture
def partly_broken(tmp_path: Path) -> Path:
    folder = tmp_path / "partly"
    folder.mkdir()
    for i in range(5):
        save_png(folder / f"{i}.png", smooth(i, 40))
    (folder / "broken.png").write_bytes(b"no picture")
    (folder / "empty.jpg").write_bytes(b"")
    return folder


def test_unreadable_pictures_are_named_once_and_left_out(
    partly_broken: Path, micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = micro(data=[str(partly_broken)], validation=[str(partly_broken)], steps=8)
    run(settings, tmp_path / "run")
    lines = (tmp_path / "run" / "skipped.tsv").read_text().splitlines()
    assert [Path(line.split("\t")[0]).name for line in sorted(lines)] == ["broken.png", "empty.jpg"]
    assert all(line.count("\t") == 1 and line.split("\t")[1] for line in lines)
    assert "2 pictures left out" in capsys.readouterr().err
    run(settings.model_copy(update={"train": settings.train.model_copy(update={"steps": 12})}), tmp_path / "run")
    assert (tmp_path / "run" / "skipped.tsv").read_text().splitlines() == lines


@pytest.mark.parametrize("workers", [0, 1])
def test_strict_makes_an_unreadable_picture_an_error(
    workers: int, photos: Path, partly_broken: Path, micro: Micro, tmp_path: Path
) -> None:
    settings = micro(
        f"train.workers={workers}", data=[str(partly_broken)], validation=[str(photos)], strict=True, steps=9
    )
    with pytest.raises(PictureError, match=r"broken\.png|empty\.jpg"):
        run(settings, tmp_path / "run")


def test_data_that_cannot_be_used_is_refused_before_a_step(photos: Path, micro: Micro, tmp_path: Path) -> None:
    empty, broken = tmp_path / "empty", tmp_path / "broken"
    for folder in (empty, broken):
        folder.mkdir()
    (broken / "0.png").write_bytes(b"no picture")
    for flags, words in (
        ({"data": []}, "no data given"),
        ({"data": [str(empty)]}, "empty: no pictures"),
        ({"validation": [str(empty)]}, "empty: no pictures"),
        ({"validation": [str(broken)]}, "no validation picture can be read"),
    ):
        with pytest.raises(DataError, match=words):
            run(micro(**flags), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(DataError, match="can be read"):
        run(micro(data=[str(broken)], validation=[str(photos)]), tmp_path / "run")


# ------------------------------------------------------------------------------------------- another run from this one


def test_other_pictures_on_resuming_are_told(photos: Path, micro: Micro, tmp_path: Path) -> None:
    data = tmp_path / "pictures"
    shutil.copytree(photos, data)
    settings = {"data": [str(data)], "validation": [str(photos)]}
    run(micro(**settings), tmp_path / "run")
    (data / "0.png").rename(data / "9.png")
    with pytest.raises(ConfigError, match=r"run: holds a run with training pictures of other names; .* --fork"):
        run(micro(**settings, steps=6), tmp_path / "run")
    (data / "9.png").unlink()
    with pytest.raises(ConfigError, match=r"run: holds a run with 6 training pictures, and now there are 5; .* --fork"):
        run(micro(**settings, steps=6), tmp_path / "run")


def test_a_fork_starts_anew_from_the_weights_with_what_is_changed(micro: Micro, tmp_path: Path) -> None:
    first = micro("train.batch_size=3", "train.warmup_steps=1000", seed=7)
    run(first, tmp_path / "run")
    fork = load([], fork=tmp_path / "run", assignments=["train.batch_size=2"], steps=2)
    assert differences(first, fork).startswith("init: None -> ") and fork.seed == 7 and fork.train.steps == 2
    assert differences(fork, load([], fork=tmp_path / "run", assignments=["train.batch_size=2"], steps=9)) == ""
    given = load_model(tmp_path / "run" / "model").model.state_dict()
    assert unequal(given, initial_state(fork, torch.device("cpu")).model.state_dict()) == []
    run(fork, tmp_path / "fork")
    assert load_model(tmp_path / "fork" / "model").figures["steps"] == 2
    with pytest.raises(ConfigError, match=r"--fork .*drop --preset"):
        load([], fork=tmp_path / "run", preset="tiny32")
    with pytest.raises(ConfigError, match=r"nowhere/settings\.json"):
        load([], fork=tmp_path / "nowhere")
