"""A model's configuration: what it refuses, in which words, and that it survives its JSON."""

import json
from typing import Any

import pytest
import torch
from pydantic import BaseModel, ValidationError

from manyfill.errors import ConfigError
from manyfill.models.config import PRESETS, ModelConfig, parse
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train.settings import Settings

TINY = PRESETS["tiny32"]
STAGES = [{"size": 8, "width": 4}, {"size": 4, "width": 4}]
LEVELS = [{"size": 4, "width": 4, "latent": 2}, {"size": 8, "width": 4, "latent": 2}]
GOOD: dict[str, Any] = {"size": 8, "stages": STAGES, "levels": LEVELS}


def large(size: int, key: str, value: str) -> dict[str, Any]:
    """A model of one level at its full size, with this prior or head."""
    level = {"size": size, "width": 4, "latent": 2} | ({key: value} if key == "prior" else {})
    return {"size": size, "stages": [{"size": size, "width": 4}], "levels": [level], "head": "mixture"} | (
        {key: value} if key == "head" else {}
    )


def single(key: str, value: str) -> dict[str, Any]:
    return large(1, key, value)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"size": 16}, "stages must start at size 16"),
    ({"size": "wide"}, "size: "),
    ({"channels": 2}, "channels: "),
    ({"norm": "layer"}, "norm: .*'batch'.*'group'.*'none'"),
    ({"posterior": "joint"}, "posterior: "),
    ({"canvas": "perhaps"}, "canvas: "),
    ({"mixtures": 0}, "mixtures: "),
    ({"stages": []}, "stages: "),
    ({"levels": []}, "levels: "),
    ({"stages": STAGES[:1] * 2}, "stages must .* strictly coarser"),
    ({"stages": [*STAGES, {"size": 3, "width": 4}]}, "each stage size must divide the one before"),
    ({"stages": [*STAGES, {"size": 2, "width": 4}]}, "levels must start at the coarsest stage, size 2"),
    ({"stages": [STAGES[0], {"size": 4, "width": 0}]}, r"stages\.1\.width: "),
    ({"stages": [STAGES[0], {"size": 4}]}, r"stages\.1\.width: "),
    ({"levels": LEVELS[::-1]}, "levels must run from coarse to fine"),
    ({"levels": LEVELS[:1]}, "levels must .* end at size 8"),
    ({"levels": [{"size": 2, "width": 4, "latent": 2}, LEVELS[1]]}, "every level needs a stage of its size"),
    ({"levels": [*LEVELS, {"size": 8, "width": 6, "latent": 2}]}, "levels of size 8 must share one width"),
    ({"levels": [{**LEVELS[0], "latent": 0}, LEVELS[1]]}, r"levels\.0\.latent: "),
    ({"levels": [{**LEVELS[0], "depth": -1}, LEVELS[1]]}, r"levels\.0\.depth: "),
    ({"head": "wavenet"}, "head: .*'mixture', 'pixelcnn' or 'multiscale'"),
    ({"levels": [{**LEVELS[0], "prior": "flow"}, LEVELS[1]]}, r"levels\.0\.prior: .*'gaussian' or 'autoregressive'"),
    (single("prior", "autoregressive"), r"levels\.0\.prior=autoregressive needs more .*levels\.0\.prior=gaussian"),
    (single("head", "pixelcnn"), "head=pixelcnn needs more than a single position; take head=mixture"),
    (large(2048, "prior", "autoregressive"), r"levels\.0\.prior=autoregressive at 2048x2048 .* 126 s .* 1000 or less"),
    (
        large(1024, "head", "pixelcnn"),
        "head=pixelcnn at 1024x1024 would take about 84 s .* 612 or less, or head=mixture",
    ),
    (large(1024, "head", "multiscale"), "head=multiscale at 1024x1024 would take about 115 s"),
]


@pytest.mark.parametrize("preset", PRESETS)
def test_config_survives_json(preset: str) -> None:
    config = PRESETS[preset]
    assert parse(ModelConfig, json.loads(config.to_json()), "config.json") == config


@pytest.mark.parametrize(("change", "words"), WRONG)
def test_wrong_configs_are_refused_by_key(change: dict[str, Any], words: str) -> None:
    assert parse(ModelConfig, GOOD, "config.json").size == 8
    with pytest.raises(ConfigError, match=f"^config.json: .*{words}") as refused:
        parse(ModelConfig, GOOD | change, "config.json")
    assert "\n" not in str(refused.value)
    with pytest.raises(ValidationError):
        ModelConfig(**(GOOD | change))


@pytest.mark.parametrize(
    ("kind", "values", "key", "valid"),
    [
        (ModelConfig, GOOD | {"nrom": "batch"}, "nrom", ModelConfig.model_fields),
        (
            ModelConfig,
            GOOD | {"stages": [{**STAGES[0], "widht": 3}, STAGES[1]]},
            "stages.0.widht",
            STAGES[0],
        ),
        (ModelConfig, GOOD | {"levels": [LEVELS[0], {**LEVELS[1], "z": 3}]}, "levels.1.z", LEVELS[0]),
        (Settings, {"model": GOOD | {"nrom": "batch"}}, "model.nrom", ModelConfig.model_fields),
        (Settings, {"model": GOOD, "train": {"lr": 1}}, "train.lr", ["learning_rate", "batch_size", "steps"]),
        (Settings, {"model": GOOD, "sead": 1}, "sead", Settings.model_fields),
    ],
)
def test_unknown_keys_are_refused_with_the_valid_ones(
    kind: type[BaseModel], values: dict[str, Any], key: str, valid: Any
) -> None:
    with pytest.raises(ConfigError) as refused:
        parse(kind, values, "--set")
    told, listed = str(refused.value).split("; valid keys: ")
    assert told == f"--set: unknown key '{key}'"
    assert set(valid) <= set(listed.split(", ")) and key.split(".")[-1] not in listed.split(", ")
    assert ("model" in listed.split(", ")) == (key == "sead")


def test_a_config_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValidationError):
        TINY.size = 64  # type: ignore[misc]


def test_a_model_may_be_without_blocks() -> None:
    bare = GOOD | {part: [spec | {"depth": 0} for spec in GOOD[part]] for part in ("stages", "levels")}
    model = ConditionalHVAE(parse(ModelConfig, bare, "bare"))
    assert torch.isfinite(model(torch.zeros(1, 3, 8, 8), torch.ones(1, 1, 8, 8)).total).all()
