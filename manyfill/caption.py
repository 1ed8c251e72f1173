"""What is said of a picture, and how a model is told it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from manyfill.errors import ConfigError
from manyfill.models.config import ModelConfig

if TYPE_CHECKING:  # exported models are refused captions without torch
    from manyfill.models.captions import Told
    from manyfill.models.hvae import ConditionalHVAE

STRONGEST = 100  # guidance far beyond all sense, and far below where means are no numbers any more


@dataclass(frozen=True)
class Caption:
    """What is said of a picture, and how closely its fills are to follow (1: as the model does); ConfigError."""

    text: str
    guidance: float = 1.0

    def __post_init__(self) -> None:
        if not self.text.strip():
            raise ConfigError("--caption: is empty; say what the picture shows, or leave it out")
        try:
            self.text.encode()
        except UnicodeEncodeError:
            raise ConfigError("--caption: is no UTF-8 text; write it as UTF-8") from None
        check_guidance(self.guidance)

    @classmethod
    def of(cls, text: str | None, guidance: float = 1.0) -> "Caption | None":
        """A caption if there is one; ConfigError for guidance without."""
        if text is None and guidance != 1:
            raise ConfigError(f"--guidance {guidance}: goes with a --caption; give one, or drop it")
        return None if text is None else cls(text, guidance)

    def record(self) -> dict[str, Any]:
        return {"caption": self.text, "guidance": self.guidance}


def check_guidance(weight: float) -> None:
    """ConfigError for a weight that is none."""
    if not 0 <= weight <= STRONGEST:
        raise ConfigError(
            f"--guidance {weight}: must be from 0 to {STRONGEST}; 1 follows the caption as the model does"
        )


def check(config: ModelConfig, caption: Caption | None, flag: str = "--caption") -> None:
    """ConfigError if the model cannot be told this, which `flag` has given."""
    if caption is None:
        return
    if config.captions is None:
        raise ConfigError(f"{flag}: this model reads none; take one that was trained with captions")
    if caption.guidance != 1 and any(level.autoregressive for level in config.levels):
        raise ConfigError("--guidance: this model draws latents one after the other, which cannot be guided; drop it")


def tell(model: "ConditionalHVAE", caption: Caption) -> "dict[int, Told]":
    """What a caption tells the model, by size, worked out once for all tiles and fills; ConfigError."""
    import torch

    from manyfill.device import autocast

    check(model.config, caption)
    device = next(model.parameters()).device
    with torch.inference_mode(), autocast(device):
        return model.tell(model.tokens([caption.text]).to(device))


def cut_note(model: "ConditionalHVAE", caption: Caption) -> tuple[str, ...]:
    """A note on a caption that is longer than the model reads."""
    spec, vocabulary = model.config.captions, model.vocabulary
    if spec is None or vocabulary is None or vocabulary.count(caption.text) <= spec.length:
        return ()
    return (f"the caption is longer than the {spec.length} tokens that the model reads: its end is cut off",)
