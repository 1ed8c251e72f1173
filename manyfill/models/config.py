"""What a model is made of: frozen, validated, stored as JSON inside every model directory."""

import itertools
import json
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from manyfill.errors import ConfigError


class Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


# Processor seconds for each position of 8 fills, on one core of an AMD EPYC, AVX-512, measured at 128x128.
SECONDS_PER_POSITION = {"autoregressive": 3e-5, "pixelcnn": 8e-5, "multiscale": 1.1e-4}
LONGEST_DRAW = 30.0


class StageSpec(Strict):
    """One resolution of the feature extractor: `depth` blocks of `width` channels on `size` x `size` maps."""

    size: int = Field(ge=1)
    width: int = Field(ge=1)
    depth: int = Field(1, ge=0)


class LevelSpec(Strict):
    """One latent level: `lead` blocks, then `latent` channels on `size` x `size` maps, then `depth` blocks."""

    size: int = Field(ge=1)
    width: int = Field(ge=1)
    latent: int = Field(ge=1)
    depth: int = Field(1, ge=0)
    lead: int = Field(0, ge=0)
    prior: Literal["gaussian", "autoregressive"] = "gaussian"

    @property
    def autoregressive(self) -> bool:
        return self.prior == "autoregressive"


class CaptionSpec(Strict):
    """How captions are read: up to `length` of so many `tokens`, by a transformer of `width`, `depth` and `heads`.

    The top-down path attends to them on maps of the sizes `attend`. `encoder` is the directory or hub id of a frozen
    text encoder of the transformers library, which then reads them in place of a vocabulary of their own; its states
    are of `encoder_width`.
    """

    tokens: int = Field(4096, ge=300)
    length: int = Field(32, ge=1)
    width: int = Field(128, ge=1)
    depth: int = Field(2, ge=0)
    heads: int = Field(4, ge=1)
    attend: tuple[int, ...] = (4, 8, 16)
    encoder: str | None = None
    encoder_width: int | None = Field(None, ge=1)

    @model_validator(mode="after")
    def _heads_share_the_width(self) -> "CaptionSpec":
        if self.width % self.heads:
            raise ValueError(f"a width of {self.width} cannot be shared by {self.heads} heads; make it a multiple")
        if (self.encoder is None) != (self.encoder_width is None):
            raise ValueError("an encoder and an encoder_width go together")
        return self


class ModelConfig(Strict):
    """A conditional HVAE. `stages` run from fine to coarse, `levels` from coarse (level 1) to fine (level L).

    With `canvas` every level draws on a picture that the next ones refine, and codes the error still left in it. What
    it starts from tells so many `kinds` of picture apart; 0 takes all for one.
    With `captions` a sentence can say what is missing.
    `bounded` keeps latent means and scales within limits. `dropout` drops maps within blocks, `border_dropout` all that
    a border connection tells of a picture, both while training only.
    """

    size: int = 64
    channels: Literal[1, 3] = 3
    stages: tuple[StageSpec, ...] = Field(min_length=1)
    levels: tuple[LevelSpec, ...] = Field(min_length=1)
    norm: Literal["batch", "group", "none"] = "none"
    activation: Literal["relu", "silu"] = "silu"
    block: Literal["residual", "plain"] = "residual"
    down: Literal["conv", "maxpool"] = "conv"
    up: Literal["nearest", "bilinear"] = "nearest"
    border: Literal["add", "conv", "none"] = "add"
    border_dropout: float = Field(0.0, ge=0, lt=1)
    extractor: Literal["shared", "separate"] = "shared"
    posterior: Literal["residual", "plain"] = "residual"
    scale: Literal["softplus", "exp"] = "softplus"
    bounded: bool = True
    dropout: float = Field(0.0, ge=0, lt=1)
    canvas: bool = True
    kinds: int = Field(0, ge=0)
    head: Literal["mixture", "pixelcnn", "multiscale"] = "mixture"
    mixtures: int = Field(5, ge=1)
    couple_channels: bool = True
    guide: bool = True
    captions: CaptionSpec | None = None

    @model_validator(mode="after")
    def _sizes_agree(self) -> "ModelConfig":
        sizes = [stage.size for stage in self.stages]
        if sizes != sorted(set(sizes), reverse=True) or sizes[0] != self.size:
            raise ValueError(f"stages must start at size {self.size} and get strictly coarser, got sizes {sizes}")
        if any(fine % coarse for fine, coarse in itertools.pairwise(sizes)):
            raise ValueError(f"each stage size must divide the one before, got {sizes}")
        level_sizes = [level.size for level in self.levels]
        if level_sizes != sorted(level_sizes) or level_sizes[-1] != self.size:
            raise ValueError(f"levels must run from coarse to fine and end at size {self.size}, got {level_sizes}")
        if set(level_sizes) - set(sizes):
            raise ValueError(f"every level needs a stage of its size; stages have {sizes}, levels {level_sizes}")
        if level_sizes[0] != sizes[-1]:
            raise ValueError(f"levels must start at the coarsest stage, size {sizes[-1]}, got {level_sizes}")
        for a, b in itertools.pairwise(self.levels):
            if a.size == b.size and a.width != b.width:
                raise ValueError(f"levels of size {a.size} must share one width, got {a.width} and {b.width}")
        return self

    @model_validator(mode="after")
    def _draws_are_practical(self) -> "ModelConfig":
        """What draws position after position must have some to tell apart, and not so many that nobody would wait."""
        parts = [(f"levels.{i}.prior", level.prior, level.size, "gaussian") for i, level in enumerate(self.levels)]
        for key, name, size, plain in [*parts, ("head", self.head, self.size, "mixture")]:
            seconds = SECONDS_PER_POSITION.get(name, 0.0) * size**2
            if seconds and size == 1:
                raise ValueError(f"{key}={name} needs more than a single position; take {key}={plain} at size 1")
            if seconds > LONGEST_DRAW:
                largest = int((LONGEST_DRAW / SECONDS_PER_POSITION[name]) ** 0.5)
                raise ValueError(
                    f"{key}={name} at {size}x{size} would take about {seconds:.0f} s for 8 fills of a whole picture; "
                    f"take a size of {largest} or less, or {key}={plain}"
                )
        return self

    def with_parts_of(self, other: "ModelConfig") -> "ModelConfig":
        """This one with the parts of `other` that go on top of it and that it lacks: a text encoder, a head and, where
        the levels are alike, priors that draw position after position."""
        levels, alike = self.levels, [level.size for level in self.levels] == [level.size for level in other.levels]
        if alike:
            levels = tuple(
                own.model_copy(update={"prior": given.prior}) if own.prior == "gaussian" else own
                for own, given in zip(self.levels, other.levels, strict=True)
            )
        head = other.head if self.head == "mixture" else self.head
        return self.model_copy(update={"captions": self.captions or other.captions, "head": head, "levels": levels})

    @property
    def pixel_noise(self) -> int:
        """How many uniform numbers the pixel distributions take to draw one pixel."""
        return self.mixtures + self.channels

    def to_json(self) -> str:
        # Without captions as before there were any, so that older models keep their fingerprints.
        unsaid = {"captions"} if self.captions is None else set()
        return json.dumps(self.model_dump(mode="json", exclude=unsaid), indent=2) + "\n"


def parse(kind: type[BaseModel], values: dict[str, Any], where: str) -> Any:
    """Build a config of `kind`; ConfigError names `where`, the key at fault and, for an unknown key, the valid ones."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or kind.__name__
        if fault["type"] == "extra_forbidden":
            raise ConfigError(f"{where}: unknown key '{key}'; valid keys: {_keys_beside(kind, fault['loc'])}") from None
        raise ConfigError(f"{where}: {key}: {fault['msg'].removeprefix('Value error, ')}") from None


def _keys_beside(kind: type[BaseModel], location: tuple[int | str, ...]) -> str:
    """The valid keys of the group that an unknown key was found in."""
    for part in location[:-1]:
        if isinstance(part, str):
            annotation = kind.model_fields[part].annotation
            kind = next(a for a in (annotation, *get_args(annotation)) if isinstance(a, type))
    return ", ".join(kind.model_fields)


def _stages(*rows: tuple[int, int, int]) -> tuple[StageSpec, ...]:
    return tuple(StageSpec(size=size, width=width, depth=depth) for size, width, depth in rows)


def _levels(*rows: tuple[int, int, int, int, int]) -> tuple[LevelSpec, ...]:
    """Rows of (how many levels, size, width, latent channels, blocks before the first of them); one block after each.

    The blocks before are what lets a prior join the known side's features of its size with what coarser levels drew.
    """
    return tuple(
        LevelSpec(size=size, width=width, latent=latent, lead=0 if index else lead)
        for count, size, width, latent, lead in rows
        for index in range(count)
    )


PRESETS: dict[str, ModelConfig] = {
    "tiny32": ModelConfig(
        size=32,
        stages=_stages((32, 16, 1), (16, 24, 1), (8, 32, 1), (4, 32, 1), (1, 32, 1)),
        levels=_levels((1, 1, 32, 8, 0), (1, 4, 32, 8, 1), (2, 8, 32, 8, 1), (1, 16, 24, 8, 1), (1, 32, 16, 4, 0)),
        kinds=4,
    ),
    "base64": ModelConfig(
        size=64,
        stages=_stages((64, 32, 0), (32, 48, 1), (16, 64, 1), (8, 96, 1), (4, 96, 1), (1, 96, 1)),
        levels=_levels(
            (1, 1, 96, 16, 0),
            (1, 4, 96, 16, 1),
            (2, 8, 96, 16, 1),
            (2, 16, 64, 12, 1),
            (2, 32, 48, 8, 0),
            (1, 64, 32, 4, 0),
        ),
        kinds=24,
    ),
    "base128": ModelConfig(
        size=128,
        stages=_stages((128, 32, 0), (64, 48, 1), (32, 64, 1), (16, 96, 1), (8, 128, 1), (4, 128, 1), (1, 128, 1)),
        levels=_levels(
            (1, 1, 128, 16, 0),
            (1, 4, 128, 16, 1),
            (2, 8, 128, 16, 1),
            (2, 16, 96, 16, 1),
            (2, 32, 64, 12, 0),
            (2, 64, 48, 8, 0),
            (2, 128, 32, 4, 0),
        ),
        kinds=24,
    ),
    # For GPUs: 44 million parameters. `train.recompute` and `train.accumulate` fit it into less memory.
    "large256": ModelConfig(
        size=256,
        stages=_stages(
            *((256, 32, 0), (128, 48, 1), (64, 96, 1), (32, 160, 1)),
            *((16, 256, 2), (8, 384, 2), (4, 384, 1), (1, 384, 1)),
        ),
        levels=_levels(
            (1, 1, 384, 16, 0),
            (1, 4, 384, 16, 1),
            (2, 8, 384, 16, 1),
            (3, 16, 256, 16, 1),
            (3, 32, 160, 16, 1),
            (2, 64, 96, 12, 1),
            (2, 128, 48, 8, 0),
            (2, 256, 32, 4, 0),
        ),
    ),
    # The 2017 project: 3x3 convolutions of 4 to 128 maps with 2x2 max-pooling, a dense top of 512, seven latent levels.
    "tan2017": ModelConfig(
        size=64,
        stages=_stages((64, 4, 1), (32, 8, 1), (16, 16, 1), (8, 32, 1), (4, 64, 1), (2, 128, 1), (1, 512, 1)),
        levels=_levels(
            (1, 1, 512, 256, 0),
            (1, 2, 128, 128, 0),
            (1, 4, 64, 64, 0),
            (1, 8, 32, 32, 0),
            (1, 16, 16, 16, 0),
            (1, 32, 8, 8, 0),
            (1, 64, 4, 4, 0),
        ),
        norm="batch",
        activation="relu",
        block="plain",
        down="maxpool",
        up="bilinear",
        border="conv",
        posterior="plain",
        canvas=False,
        mixtures=1,
        couple_channels=False,
        guide=False,
    ),
}
# PixelVAE (Gulrajani et al. 2016): autoregressive priors wherever a level has an order, and a PixelCNN head.
PRESETS["pixelvae64"] = PRESETS["base64"].model_copy(
    update={
        "levels": tuple(
            level.model_copy(update={"prior": "autoregressive" if level.size > 1 else "gaussian"})
            for level in PRESETS["base64"].levels
        ),
        "head": "pixelcnn",
    }
)
# base64 with the head of Reed et al. (2017).
PRESETS["multiscale64"] = PRESETS["base64"].model_copy(update={"head": "multiscale"})
# base64 that also reads captions: `--init default` starts it from the shipped weights.
PRESETS["caption64"] = PRESETS["base64"].model_copy(update={"captions": CaptionSpec()})
