"""Everything a run depends on. From weak to strong: a preset's defaults, a TOML file, `--set`, the other flags."""

import copy
import json
import reprlib
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, model_validator

from manyfill.checkpoint import load_model
from manyfill.data import DEFAULT_MASKS
from manyfill.errors import ConfigError
from manyfill.models.config import PRESETS, CaptionSpec, ModelConfig, Strict, parse
from manyfill.models.pretrained import check_length, width_of
from manyfill.train.rhythm import Every

DEFAULT_PRESET, DEFAULT_MINUTES = "base64", 30.0


class Finite(Strict):
    model_config = ConfigDict(allow_inf_nan=False)


class TrainSettings(Finite):
    """How to optimise. Either `steps` or `minutes` ends the run, and the schedule is fitted to it.

    Minutes are wall-clock minutes of the loop, validation and saving included, and add up over resumed runs; a last
    validation pass follows. In a run counted in steps the weights never depend on the time; for the same log, too,
    validate every so many steps.
    """

    steps: int | None = Field(None, ge=1)
    minutes: float | None = Field(None, gt=0)
    batch_size: int = Field(8, ge=1, description="of all processes together")
    accumulate: int = Field(1, ge=1, description="micro-batches that each process takes its part of the batch in")
    recompute: bool = Field(False, description="work activations out again on the way back, to spare memory")
    learning_rate: float = Field(1.2e-3, gt=0)
    caption_rate: float = Field(2.0, gt=0, description="of what captions are read and told by, times learning_rate")
    only_captions: bool = Field(False, description="learn to read captions, and leave all else as it is")
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup_steps: int = Field(400, ge=0)
    betas: tuple[Annotated[float, Field(ge=0, lt=1)], Annotated[float, Field(ge=0, lt=1)]] = (0.9, 0.95)
    weight_decay: float = Field(0.01, ge=0)
    ema_decay: float = Field(0.999, ge=0, lt=1)
    clip_norm: float = Field(1.0, gt=0)
    skip_factor: float = Field(20.0, gt=1, description="skip a step whose gradient is so many times the usual norm")
    patience: int = Field(20, ge=1, description="broken steps in a row before going back to the last checkpoint")
    nested_weight: float = Field(0.3, ge=0, description="of the truncated hierarchies' losses; unused without a canvas")
    kl_warmup: float = Field(0.0, ge=0, le=1, description="share of the run over which the KL weight grows to 1")
    free_bits: float = Field(0.0, ge=0, description="of each level's KL, in bits per hole value, that cost nothing")
    spectral_weight: float = Field(0.0, ge=0, description="of the largest singular values' sum over all layers")
    checkpoint_every: Every = Field("5m", description="in steps, or a duration such as 5m")
    validate_every: Every = Field("5m", description="likewise")
    validation_pictures: int = Field(256, ge=1)
    fit_pictures: int = Field(0, ge=0, description="training pictures to measure as validation ones are, none if 0")
    workers: int = Field(1, ge=0)
    precision: Literal["auto", "float32", "bfloat16"] = "auto"

    @model_validator(mode="after")
    def _one_end(self) -> "TrainSettings":
        if self.steps is not None and self.minutes is not None:
            raise ValueError("give steps or minutes, not both")
        return self


class DataSettings(Finite):
    """What to learn from: `masks` weighs the kinds of holes, `mask_path` is a file or folder of the user's own."""

    paths: tuple[str, ...] = ()
    validation: tuple[str, ...] = ()
    masks: dict[str, float] = Field(default_factory=lambda: dict(DEFAULT_MASKS))
    mask_path: str | None = None
    guide_probability: float = Field(0.5, ge=0, le=1)
    caption_drop: float = Field(0.15, ge=0, le=1, description="share of cases in which the model is told none")
    augment: bool = True
    flip: bool = True
    strict: bool = False


class Settings(Strict):
    model: ModelConfig
    train: TrainSettings = TrainSettings()
    data: DataSettings = DataSettings()
    seed: int = 0
    preset: str = DEFAULT_PRESET
    init: str | None = None

    @model_validator(mode="after")
    def _batches_suffice(self) -> "Settings":
        if self.model.norm == "batch" and self.train.batch_size == 1:
            raise ValueError("model.norm=batch needs a train.batch_size of 2 or more")
        if self.train.only_captions and self.model.captions is None:
            raise ValueError("train.only_captions: the model reads none; add --captions, or drop it")
        if self.model.norm == "batch" and self.train.recompute:
            raise ValueError(
                "model.norm=batch would count every batch twice with train.recompute; take model.norm=group"
            )
        return self

    def to_json(self) -> str:
        return json.dumps(self.model_dump(mode="json"), indent=2) + "\n"


def load(
    paths: Sequence[str],
    *,
    validation: Sequence[str] = (),
    preset: str | None = None,
    init: str | None = None,
    fork: Path | None = None,
    config: Path | None = None,
    assignments: Sequence[str] = (),
    minutes: float | None = None,
    steps: int | None = None,
    masks: str | None = None,
    seed: int | None = None,
    strict: bool = False,
    captions: bool = False,
) -> Settings:
    """Settings from the command line's flags, None where not given; ConfigError names the flag, file or key at fault.

    `fork` is a run whose settings stand in for a preset's, and whose weights it starts from. A recipe's table of masks
    replaces the preset's, and `masks` replaces both; `--set data.masks.brush=1` changes one
    weight of what there is. `captions` has a model learn to read them that knew none.
    """
    recipe = {} if config is None else _read_toml(config)
    if fork is None:
        values = _defaults(preset or recipe.get("preset", DEFAULT_PRESET), init or recipe.get("init"))
    elif preset or init:
        raise ConfigError(f"--fork {fork}: brings a model of its own; drop --preset and --init")
    else:
        values = load_saved(fork / "settings.json").model_dump() | {"init": str(fork / "model")}
    if any(key.startswith("data.masks.") for key in _flat(recipe)):
        values["data"]["masks"] = {}
    if captions and values["model"]["captions"] is None:
        values["model"]["captions"] = CaptionSpec().model_dump()
    flags = {
        "preset": preset,
        "init": init,
        "seed": seed,
        "train.minutes": minutes,
        "train.steps": steps,
        "data.paths": tuple(paths) or None,
        "data.validation": tuple(validation) or None,
        "data.mask_path": masks,
        "data.masks": None if masks is None else {"folder": 1.0},
        "data.strict": strict or None,
    }
    _overlay(values, _flat(recipe), f"--config {config}")
    _overlay(values, _parsed(assignments), "--set")
    _overlay(values, {key: value for key, value in flags.items() if value is not None}, "flags")
    told = values["model"].get("captions")
    if isinstance(told, dict) and told.get("encoder") and not told.get("encoder_width"):
        told["encoder_width"] = width_of(str(told["encoder"]))
    sources = [f"--config {config}"] * (config is not None) + ["--set"] * bool(assignments)
    settings: Settings = parse(Settings, values, " or ".join(sources) or "settings")
    spec = settings.model.captions
    if spec and spec.encoder:
        check_length(spec.encoder, spec.length)
    return settings


# What a preset wants otherwise than the defaults above.
TRAIN_DEFAULTS: dict[str, dict[str, Any]] = {
    # Tan (2017): Adam 1e-4 without a schedule, weight penalty 1e-3, gradients clipped to norm 1, batches of 64.
    "tan2017": {
        "batch_size": 64,
        "learning_rate": 1e-4,
        "schedule": "constant",
        "warmup_steps": 0,
        "betas": (0.9, 0.999),
        "weight_decay": 1e-3,
        "nested_weight": 0.0,
    },
    # Meant to start from the weights of base64, which are not to be unsettled.
    "caption64": {"learning_rate": 8e-4},
}
DATA_DEFAULTS: dict[str, dict[str, Any]] = {
    "tan2017": {"masks": {"centre": 1.0}, "guide_probability": 0.0},
    # The less is known of a picture, by its surroundings or a guide, the more a caption can say.
    "caption64": {
        "masks": {
            **{"large": 0.2, "all": 0.2, "centre": 0.2, "half": 0.1, "outpaint": 0.08},
            **{"boxes": 0.08, "brush": 0.08, "scratches": 0.03, "pixels": 0.03},
        },
        "guide_probability": 0.3,
    },
}


def _defaults(preset: str, init: str | None) -> dict[str, Any]:
    if str(preset) not in PRESETS:
        raise ConfigError(f"--preset {preset}: no such preset; valid presets: {', '.join(PRESETS)}")
    model = PRESETS[preset]
    if init is not None:
        model = load_model(str(init)).model.config.with_parts_of(model)
    return {
        "model": model.model_dump(),
        "train": {"minutes": DEFAULT_MINUTES, **TRAIN_DEFAULTS.get(preset, {})},
        "data": {"masks": dict(DEFAULT_MASKS)} | copy.deepcopy(DATA_DEFAULTS.get(preset, {})),
        "preset": preset,
        "init": init,
    }


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"--config {path}: cannot be read ({error.strerror}); check the path") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--config {path}: is no valid TOML ({error}); mend the file") from None


def _parsed(assignments: Sequence[str]) -> dict[str, Any]:
    layer = {}
    for assignment in assignments:
        key, separator, text = (part.strip() for part in assignment.partition("="))
        if not separator:
            raise ConfigError(f"--set {assignment}: write key=value, such as train.learning_rate=0.001")
        if key in ("preset", "init"):
            raise ConfigError(f"--set {assignment}: give it as --{key} {text}")
        layer[key] = _value(text)
    return layer


def _value(text: str) -> Any:
    """A TOML value (0.001, true, [1, 2]), or the text itself."""
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        return text


def _overlay(values: dict[str, Any], layer: dict[str, Any], where: str) -> None:
    """Set nested `values` by dotted keys; steps replace the minutes of a weaker layer, and the other way round."""
    if layer.keys() & {"train.steps", "train.minutes"}:
        values["train"] = {k: v for k, v in values["train"].items() if k not in ("steps", "minutes")}
    for key, value in layer.items():
        if key in ("model", "train", "data"):
            raise ConfigError(f"{where}: {key} is a group of settings; give them one by one, as {key}.name=value")
        *parents, last = key.split(".")
        group: Any = values
        for parent in parents:
            group = _within(group, parent, f"{where}: {key}")
        if not isinstance(group, dict):
            raise ConfigError(f"{where}: {key}: {parents[-1]} is a list; give it whole, or as {key}.name=value")
        group[last] = value


def _within(group: Any, name: str, where: str) -> Any:
    """A group's part of this name, or the entry of a list at this number; ConfigError where it can hold no settings."""
    if isinstance(group, dict):
        if group.get(name) is None:
            group[name] = {}
        part = group[name]
    elif name.isdecimal() and int(name) < len(group):
        part = group[int(name)]
    else:
        raise ConfigError(f"{where}: there is no {name}; they count from 0 to {len(group) - 1}")
    if not isinstance(part, dict | list | tuple):
        raise ConfigError(f"{where}: {name} is no group of settings")
    return part


# What older versions called the rhythm, which has no say in the result.
RENAMED = ("checkpoint_minutes", "checkpoint_steps", "validate_minutes", "validate_steps")


def load_saved(path: Path) -> Settings:
    """The settings a run was started with."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        for key in RENAMED:
            values.get("train", {}).pop(key, None)
        settings: Settings = parse(Settings, values, str(path))
    except (OSError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: cannot be read ({error}); no run can go on from it, choose another --out") from None
    return settings


# What may change while a run goes on: its length, the rhythm of saving, and what has no say in the result.
FREE = {
    *("train.steps", "train.minutes", "train.workers", "train.recompute", "data.strict"),
    *("train.checkpoint_every", "train.validate_every"),
}


def differences(old: Settings, new: Settings) -> str:
    """What changed between two settings that would make it another run; "" if nothing did."""
    before, after = _flat(old.model_dump(mode="json")), _flat(new.model_dump(mode="json"))
    changed = [key for key in sorted(before | after) if before.get(key) != after.get(key) and key not in FREE]
    return ", ".join(f"{key}: {reprlib.repr(before.get(key))} -> {reprlib.repr(after.get(key))}" for key in changed)


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested groups as dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
    return flat
