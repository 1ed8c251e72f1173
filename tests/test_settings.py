"""Where a run's settings come from, which of them wins, and the one line for each that cannot be."""

import json
from itertools import takewhile
from pathlib import Path

import pytest
import torch
from pydantic import BaseModel

from manyfill.checkpoint import save_model
from manyfill.data import DEFAULT_MASKS
from manyfill.errors import ConfigError, ModelError
from manyfill.models.config import PRESETS, LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train.rhythm import seconds
from manyfill.train.settings import DataSettings, Settings, TrainSettings, differences, load, load_saved

CONFIGS = Path(__file__).parent.parent / "configs"


def toml(folder: Path, text: str) -> Path:
    path = folder / "run.toml"
    path.write_text(text)
    return path


def assigned(*assignments: str) -> Settings:
    return load(["pictures"], assignments=assignments)


# -------------------------------------------------------------------------------------------------- who wins


def test_the_defaults() -> None:
    settings = load(["a", "b.tar"], validation=["c"])
    assert settings.preset == "base64" and settings.model == PRESETS["base64"]
    assert settings.train == TrainSettings(minutes=30)
    assert settings.data == DataSettings(paths=("a", "b.tar"), validation=("c",))
    assert settings.data.masks == dict(DEFAULT_MASKS) and settings.seed == 0 and settings.init is None


def test_a_preset_brings_its_recipe_without_touching_the_others() -> None:
    settings = load(["pictures"], preset="tan2017", assignments=["data.masks.brush=1"])
    assert settings.train.batch_size == 64 and settings.train.schedule == "constant" and settings.train.minutes == 30
    assert settings.train.nested_weight == 0 and settings.data.masks == {"centre": 1.0, "brush": 1.0}
    assert load(["pictures"], preset="tan2017").data.masks == {"centre": 1.0}


def test_flags_beat_set_beats_toml_beats_presets(tmp_path: Path) -> None:
    recipe = toml(
        tmp_path,
        'preset = "tan2017"\nseed = 1\ndata.paths = ["x"]\n[train]\nbatch_size = 4\nworkers = 3\nlearning_rate = 0.5',
    )
    from_file = load([], config=recipe)
    assert from_file.model == PRESETS["tan2017"] and from_file.seed == 1 and from_file.data.paths == ("x",)
    assert from_file.train.batch_size == 4 and from_file.train.schedule == "constant"
    stronger = load(["y"], config=recipe, assignments=["train.batch_size=5", "seed=2"])
    assert stronger.train.batch_size == 5 and stronger.train.workers == 3 and stronger.seed == 2
    assert stronger.data.paths == ("y",)
    strongest = load([], config=recipe, preset="tiny32", assignments=["seed=2"], seed=0, strict=True)
    assert strongest.preset == "tiny32" and strongest.model == PRESETS["tiny32"] and strongest.seed == 0
    assert strongest.data.strict and strongest.train.learning_rate == 0.5


def test_a_stronger_end_replaces_a_weaker_one(tmp_path: Path) -> None:
    recipe = toml(tmp_path, "[train]\nminutes = 100")
    for settings in (load(["x"], config=recipe, assignments=["train.steps=7"]), load(["x"], config=recipe, steps=7)):
        assert settings.train.steps == 7 and settings.train.minutes is None
    assert load(["x"], config=recipe, minutes=2).train.minutes == 2
    assert load(["x"], config=recipe).train.minutes == 100


def test_masks_of_ones_own_replace_the_mixture_and_a_recipes_table_does_too(tmp_path: Path) -> None:
    recipe = toml(tmp_path, "[data.masks]\nbrush = 1")
    assert load(["x"], config=recipe).data.masks == {"brush": 1.0}
    assert load(["x"], config=recipe, assignments=["data.masks.half=2"]).data.masks == {"brush": 1.0, "half": 2.0}
    own = load(["x"], config=recipe, masks="holes")
    assert own.data.masks == {"folder": 1.0} and own.data.mask_path == "holes"
    assert assigned("data.masks.half=2").data.masks == {**DEFAULT_MASKS, "half": 2.0}
    assert assigned("data.masks={half=2}").data.masks == {"half": 2.0}


def test_one_level_is_changed_by_its_number() -> None:
    levels = assigned("model.levels.3.prior=autoregressive", "model.levels.3.latent=6").model.levels
    usual = load(["pictures"]).model.levels
    assert levels[3] == usual[3].model_copy(update={"prior": "autoregressive", "latent": 6})
    assert levels[:3] + levels[4:] == usual[:3] + usual[4:]


def test_set_understands_toml_values_and_plain_words() -> None:
    settings = assigned(
        "train.schedule=cosine", "train.betas=[0.8, 0.9]", "data.flip = false", "train.precision='auto'"
    )
    assert settings.train.schedule == "cosine" and settings.train.betas == (0.8, 0.9) and not settings.data.flip


def test_init_brings_its_own_model(tmp_path: Path) -> None:
    config = ModelConfig(
        size=8, stages=(StageSpec(size=8, width=4),), levels=(LevelSpec(size=8, width=4, latent=2),), channels=1
    )
    torch.manual_seed(0)
    save_model(tmp_path / "model", ConditionalHVAE(config), "", {})
    assert load(["x"], init=str(tmp_path / "model")).model == config
    recipe = toml(tmp_path, f'init = "{tmp_path / "model"}"')
    assert load(["x"], config=recipe).model == config
    with pytest.raises(ModelError, match="nowhere"):
        load(["x"], init="./nowhere")


# ------------------------------------------------------------------------------------------------ what cannot be

GROUPS: dict[str, type[BaseModel]] = {
    "": Settings,
    "train": TrainSettings,
    "data": DataSettings,
    "model": ModelConfig,
    "model.levels.0": LevelSpec,
}


@pytest.mark.parametrize("group", GROUPS)
def test_an_unknown_key_lists_the_valid_ones_of_its_group(group: str, tmp_path: Path) -> None:
    tables = {"": "", "model.levels.0": "[[model.levels]]\nsize = 8\nwidth = 4\nlatent = 2\n"}
    recipe = toml(tmp_path, tables.get(group, f"[{group}]\n") + "lr = 1")
    with pytest.raises(ConfigError) as refused:
        load(["x"], config=recipe)
    message = str(refused.value)
    assert f"unknown key '{group + '.' if group else ''}lr'" in message
    assert message.endswith(f"valid keys: {', '.join(GROUPS[group].model_fields)}")


@pytest.mark.parametrize(
    ("assignment", "words"),
    [
        ("train.steps", "key=value"),
        ("train.lr=1", "valid keys: steps, minutes"),
        ("train.steps=many", "train.steps"),
        ("train.steps=0", "train.steps"),
        ("train.minutes=-1", "train.minutes"),
        ("train.minutes=inf", "train.minutes"),
        ("train.learning_rate=nan", "train.learning_rate"),
        ("train.betas=[0.9, 1.0]", "train.betas"),
        ("train.schedule=steep", "'linear', 'cosine' or 'constant'"),
        ("train.batch_size=2.5", "train.batch_size"),
        ("train.accumulate=0", "train.accumulate"),
        ("train.checkpoint_every=0", "a number of steps, or a duration"),
        ("train.checkpoint_every=2.5", "a number of steps, or a duration"),
        ("train.checkpoint_every=true", "a number of steps, or a duration"),
        ("train.validate_every=0m", "a number of steps, or a duration"),
        ("train.validate_every=5 minutes", "a number of steps, or a duration"),
        ("model.channels=2", "model.channels"),
        ("data.masks.brush=lots", "data.masks.brush"),
        ("data.masks.brush=inf", "data.masks.brush"),
        ("data.guide_probability=2", "data.guide_probability"),
        ("train=5", "train is a group"),
        ("seed.x=5", "seed"),
        ("train.steps.x=5", "train.steps"),
        ("model.levels.0.size=5", "levels must run"),
        ("model.levels.99.prior=gaussian", "there is no 99; they count from 0 to"),
        ("model.levels.first.prior=gaussian", "there is no first; they count from 0 to"),
        ("model.levels.0.prior=flow", "model.levels.0.prior: Input should be 'gaussian' or 'autoregressive'"),
        ("model.levels.0.prior=autoregressive", "take levels.0.prior=gaussian at size 1"),
        ("model.levels.0=5", "levels is a list"),
        ("preset=tiny32", "--preset tiny32"),
        ("init=default", "--init default"),
        ("seed=1.5", "seed"),
        ("=1", "unknown key '"),
    ],
)
def test_an_impossible_value_names_its_key_in_one_line(assignment: str, words: str) -> None:
    with pytest.raises(ConfigError) as refused:
        assigned(assignment)
    message = str(refused.value)
    assert words in message and "--set" in message and "\n" not in message and "Value error" not in message


def test_steps_and_minutes_are_either_or(tmp_path: Path) -> None:
    recipe = toml(tmp_path, "[train]\nminutes = 1\nsteps = 5")
    for call in (
        lambda: load(["x"], minutes=1, steps=5),
        lambda: assigned("train.minutes=1", "train.steps=5"),
        lambda: load(["x"], config=recipe),
    ):
        with pytest.raises(ConfigError, match="steps or minutes, not both"):
            call()


def test_batch_norm_needs_a_batch() -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size of 2"):
        assigned("model.norm=batch", "train.batch_size=1")


@pytest.mark.parametrize("text", ["train", "[train", "[train]\nsteps = ", "x = \ufeff"])
def test_bad_toml_names_the_file(text: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"run\.toml: is no valid TOML"):
        load(["x"], config=toml(tmp_path, text))


def test_recipes_that_cannot_be_used_name_themselves(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"absent\.toml: cannot be read"):
        load(["x"], config=tmp_path / "absent.toml")
    for text, words in (
        ("[trian]\nsteps = 1", "'trian'; valid keys: model, train"),
        ("train = 5", "train is a group"),
        ("preset = 5", "--preset 5"),
        ('[data]\nmasks = "brush"', r"data\.masks"),
    ):
        with pytest.raises(ConfigError, match=words):
            load(["x"], config=toml(tmp_path, text), masks="holes" if "trian" in text else None)


def test_an_unknown_preset_lists_the_valid_ones() -> None:
    with pytest.raises(ConfigError, match=r"--preset base65: .*base64, base128, large256, tan2017"):
        load(["x"], preset="base65")


# -------------------------------------------------------------------------------------------- saved and compared


def test_saved_settings_come_back_the_same(tmp_path: Path) -> None:
    settings = load(["x"], preset="tan2017", steps=3, seed=4, assignments=["data.masks.brush=0.25"])
    path = tmp_path / "settings.json"
    path.write_text(settings.to_json())
    assert load_saved(path) == settings


def test_settings_saved_before_a_key_existed_still_load(tmp_path: Path) -> None:
    values = json.loads(load(["x"], minutes=5).to_json())
    for key in ("validate_every", "checkpoint_every", "nested_weight"):
        del values["train"][key]
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(values))
    assert differences(load_saved(path), load(["x"], minutes=5)) == ""


def test_settings_of_a_version_that_named_the_rhythm_otherwise_still_load(tmp_path: Path) -> None:
    values = json.loads(load(["x"], minutes=5).to_json())
    values["train"] |= {"checkpoint_minutes": 5.0, "checkpoint_steps": 1000, "validate_minutes": 1.0}
    path = tmp_path / "settings.json"
    path.write_text(json.dumps(values))
    assert load_saved(path) == load(["x"], minutes=5)


def test_a_rhythm_is_counted_in_steps_or_by_the_clock() -> None:
    assert [seconds(every) for every in ("90s", "5m", "1.5h", 1000)] == [90, 300, 5400, None]


def test_batch_norm_and_recomputing_exclude_each_other() -> None:
    with pytest.raises(ConfigError, match=r"model\.norm=batch .*train\.recompute"):
        assigned("model.norm=batch", "train.recompute=true")


@pytest.mark.parametrize("text", ["", "[]", "{", '{"model": 1}'])
def test_damaged_saved_settings_are_refused(text: str, tmp_path: Path) -> None:
    path = tmp_path / "settings.json"
    path.write_text(text)
    with pytest.raises(ConfigError, match=r"settings\.json"):
        load_saved(path)


def test_only_the_length_and_the_rhythm_may_change() -> None:
    first = load(["x"], minutes=5)
    free = ["train.workers=0", "train.validate_every=1h", "train.checkpoint_every=9", "data.strict=true"]
    assert differences(first, load(["x"], steps=9, assignments=free)) == ""
    changed = differences(first, load(["y"], minutes=5, seed=1, assignments=["train.batch_size=3"]))
    assert changed == "data.paths: ['x'] -> ['y'], seed: 0 -> 1, train.batch_size: 8 -> 3"
    assert len(differences(first, load([f"picture-{i}" for i in range(99)]))) < 200


# ------------------------------------------------------------------------------------------------------ recipes


@pytest.mark.parametrize("path", sorted(CONFIGS.glob("*.toml")), ids=lambda path: path.stem)
def test_every_recipe_loads_and_says_what_it_takes(path: Path) -> None:
    load(["x"], config=path)
    head = list(takewhile(lambda line: line.startswith("# "), path.read_text().splitlines()))
    for word in ("command:", "hardware:", "hours:", "expected:"):
        assert any(line.startswith(f"# {word} ") for line in head), f"{path.name} states no {word}"


@pytest.mark.parametrize("name", ["base64", "tan2017", "tiny32"])
def test_a_presets_recipe_is_that_preset(name: str) -> None:
    settings = load(["x"], config=CONFIGS / f"{name}.toml")
    assert settings == load(["x"], preset=name, minutes=settings.train.minutes)
