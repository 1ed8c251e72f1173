"""What `Filler` needs of a model: to be told what is known of tiles, and to draw them from noise.

Arrays go in and arrays come out. Whatever computes stands behind this: a torch network, or exported graphs without
torch. All that is above, from files to tiles and back, is the same for both.

Legend: T tiles that are told, N tiles that are drawn, C channels of the model, S its size, Z latent channels, R hole
pixels of all N tiles. Arrays are float32, pictures in [-1, 1].
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import numpy as np

from manyfill.caption import Caption
from manyfill.errors import ConfigError
from manyfill.models.config import ModelConfig
from manyfill.rng import Draws

if TYPE_CHECKING:
    from manyfill.models.hvae import ConditionalHVAE


@dataclass(frozen=True)
class Noise:
    """All that is random about N tiles.

    `levels` (N, Z, size, size) are latents in the prior's units, their deviation from its mean over its own; those of
    the first `given` levels are the very latents. `pixels` (R, config.pixel_noise) is uniform, in the order of reading.
    """

    levels: list[np.ndarray]
    given: int
    pixels: np.ndarray


@dataclass(frozen=True)
class Tiles:
    """Drawn tiles x (N, C, S, S), the pixel distributions' means (N, C, S, S), latents by level (N, Z, size, size)."""

    x: np.ndarray
    mean: np.ndarray
    latents: list[np.ndarray]


@dataclass(frozen=True)
class Said:
    """A caption as a runtime has read it, once for all tiles and fills: `words` are its own matter, `guidance` says how
    closely fills follow, `notes` what the user should know of the reading."""

    words: Any
    guidance: float
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Masked:
    """Tiles x (T, C, S, S) with holes m (T, 1, S, S) of 0 and 1, guides like x for all of them or none, and what is
    `said` of each; of what is drawn only the part `kept` of the holes, like m, has to be right, everything without."""

    x: np.ndarray
    m: np.ndarray
    guide: np.ndarray | None = None
    said: Sequence[Said | None] = ()
    kept: np.ndarray | None = None


class Runtime(ABC):
    """A model that draws tiles; `temperatures` are its calibration, by level, and `draws` where its noise is from;
    `card` tells of it in Markdown, `figures` were measured of it."""

    config: ModelConfig
    temperatures: list[float]
    draws: Draws
    card: str = ""
    figures: Mapping[str, Any] = MappingProxyType({})

    @abstractmethod
    def read(self, caption: Caption) -> Said:
        """A caption, read; ConfigError for a model that cannot be told it."""

    @abstractmethod
    def tell(self, masked: Masked) -> Any:
        """What tiles tell of their holes."""

    @abstractmethod
    def draw(self, told: Any, copies: int, noise: Noise) -> Tiles:
        """Draw every tile that was told so many times in a row."""

    @cached_property
    @abstractmethod
    def digest(self) -> str:
        """A fingerprint: what has the same draws the same fills."""

    @property
    @abstractmethod
    def spares_a_core(self) -> bool:
        """Whether a processor is free while tiles are drawn."""

    @property
    def network(self) -> "ConditionalHVAE":
        """The network itself; ConfigError where there is none."""
        raise ConfigError("--model: is exported, and can only fill; for this, name the model that it was exported from")
