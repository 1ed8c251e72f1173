"""Everything a run depends on: presets, a TOML file and `--set` flags, in this order of precedence from weak to strong."""

import json
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field, model_validator

from manyfill.checkpoint import load_model
from manyfill.data import DEFAULT_MASKS
from manyfill.errors import ConfigError
from manyfill.models.config import PRESETS, ModelConfig, Strict, parse


class TrainSettings(Strict):
    """How to optimise. Either `steps` or `minutes` ends the run, and the schedule is fitted to it."""

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(8, ge=1)
    learning_rate: float = Field(3e-3, gt=0)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(200, ge=0)
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    skip_factor: float = Field(20.0, gt=1, description="skip a step whose gradient is so many times the usual norm")
    patience: int = Field(20, ge=1, description="bad steps in a row before going back to the last checkpoint")
    kl_warmup: float = Field(0.0, ge=0, le=1, description="share of the run over which the KL weight grows to 1")
    checkpoint_minutes: float = Field(5.0, gt=0)
    validate_minutes: float = Field(5.0, gt=0)
    validation_pictures: int = Field(256, ge=1)
    workers: int = Field(1, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _one_end(self) -> "TrainSettings":
        if self.steps is not None and self.minutes is not None:
            raise ValueError("give steps or minutes, not both")
        return self


class DataSettings(Strict):
    """What to learn from: `masks` weighs the kinds of holes, `mask_path` is a file or folder of the user's own."""

    paths: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    masks: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_MASKS))
    mask_path: str | None = None
    guide_probability: float = Field(0.5, ge=0, le=1)
    augment: bool = True
    flip: bool = True
    strict: bool = False


class Settings(Strict):
    model: ModelConfig
    train: TrainSettings = TrainSettings()
    data: DataSettings = DataSettings()
    seed: int = 0
    preset: str = "base64"
    init: str | None = None

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def load(
    paths: Sequence[str],
    *,
    validation: Sequence[str] = (),
    preset: str = "base64",
    init: str | None = None,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    minutes: float | None = None,
    steps: int | None = None,
    masks: str | None = None,
    seed: int = 0,
    strict: bool = False,
) -> Settings:
    """Settings from the command line's flags; ConfigError names the flag, file or key at fault."""
    values: dict[str, Any] = {"model": _model(preset, init), "preset": preset, "seed": seed, "init": init}
    values |= {"train": dict(TRAIN_DEFAULTS.get(preset, {})), "data": dict(DATA_DEFAULTS.get(preset, {}))}
    if config is not None:
        _merge(values, _read_toml(config))
    for assignment in assignments:
        key, separator, text = assignment.partition("=")
        if not separator:
            raise ConfigError(f"--set {assignment}: write key=value, such as train.learning_rate=0.001")
        _assign(values, key.strip(), _value(text.strip()))
    flags: dict[str, Any] = {"data": {"paths": tuple(paths), "validation": tuple(validation)}}
    if minutes is not None or steps is not None:
        flags["train"] = {"minutes": minutes, "steps": steps}
    if masks is not None:
        flags["data"] |= {"mask_path": masks, "masks": {"folder": 1.0}}
    if strict:
        flags["data"]["strict"] = True
    data = values["data"]
    if masks is not None:
        data.pop("masks", None)  # the user's own masks replace the mixture
    _merge(values, flags)
    settings: Settings = parse(Settings, values, "--set or --config" if assignments or config else "settings")
    if settings.train.steps is None and settings.train.minutes is None:
        return settings.model_copy(update={"train": settings.train.model_copy(update={"minutes": 30.0})})
    return settings


TRAIN_DEFAULTS: dict[str, dict[str, Any]] = {
    # Tan (2017): Adam 1e-4 without a schedule, weight penalty 1e-3, gradients clipped to norm 1, batches of 64.
    "tan2017": {
        "batch_size": 64,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "betas": (0.9, 0.999),
        "weight_decay": 1e-3,
    },
}
DATA_DEFAULTS: dict[str, dict[str, Any]] = {"tan2017": {"masks": {"centre": 1.0}, "guide_probability": 0.0}}


def _model(preset: str, init: str | None) -> dict[str, Any]:
    if init is not None:
        return load_model(init).model.config.model_dump()
    if preset not in PRESETS:
        raise ConfigError(f"--preset {preset}: no such preset; valid presets: {', '.join(PRESETS)}")
    return PRESETS[preset].model_dump()


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text())
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: is no valid TOML ({error}); mend the file") from None


def _value(text: str) -> Any:
    """A TOML value (0.001, true, [1, 2]), or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _assign(values: dict[str, Any], key: str, value: Any) -> None:
    *parents, last = key.split(".")
    for parent in parents:
        if not isinstance(values.setdefault(parent, {}), dict):
            raise ConfigError(f"--set {key}: {parent} is no group of settings")
        values = values[parent]
    values[last] = value


def _merge(values: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            _merge(values[key], value)
        else:
            values[key] = value


def load_saved(path: Path) -> Settings:
    """The settings a run was started with."""
    try:
        return parse(Settings, json.loads(path.read_text()), str(path))
    except (OSError, ValueError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); the run cannot go on, choose another --out") from None


def differences(old: Settings, new: Settings) -> str:
    """What changed between two settings, besides the run's length and rhythm of saving; "" if nothing."""
    free = {"train.steps", "train.minutes", "train.checkpoint_minutes", "train.validate_minutes", "train.workers"}
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key) and key not in free]
    return ", ".join(f"{key}: {before.get(key)} -> {after.get(key)}" for key in changed)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
