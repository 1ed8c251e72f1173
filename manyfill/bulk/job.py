"""What is asked for, as plain values that can travel to another process."""

from dataclasses import dataclass, field
from pathlib import Path

from manyfill.caption import check_guidance
from manyfill.encode import Encoding
from manyfill.errors import ConfigError
from manyfill.images import DEFAULT_MAX_PIXELS
from manyfill.inputs import Sampling

BATCH, WORKERS = 32, 2  # more threads would wait for each other, and the model for them; large pictures are worth more


@dataclass(frozen=True)
class Job:
    """Fill the pictures of `pictures` under `masks` (None: their transparent pixels) into `out`; ConfigError.

    `images` is the folder of the pictures that a list names. With `captions` each picture is filled under the first of
    those that come with it, followed as closely as `guidance` says.
    `batch` is how many fills the model draws at once, of several pictures where one has fewer; `workers` the threads
    that read and write meanwhile. `device` is torch's name of where to compute; None takes the rank's GPU, if any.
    """

    pictures: Path
    out: Path
    masks: Path | None = None
    sampling: Sampling = field(default_factory=Sampling)
    model: str = "default"
    max_pixels: int = DEFAULT_MAX_PIXELS
    batch: int = BATCH
    workers: int = WORKERS
    sheets: bool = False
    quantiles: bool = False
    latents: bool = False
    encoding: Encoding = field(default_factory=Encoding)
    strict: bool = False
    device: str | None = None
    images: Path | None = None
    captions: bool = False
    guidance: float = 1.0

    def __post_init__(self) -> None:
        for flag, value in (("--batch", self.batch), ("--workers", self.workers)):
            if value < 1:
                raise ConfigError(f"{flag} {value}: must be 1 or more")
        check_guidance(self.guidance)
        if self.guidance != 1 and not self.captions:
            raise ConfigError(f"--guidance {self.guidance}: goes with --captions; give them, or drop it")
        for name, path in (("OUT", self.out), ("--masks", self.masks)):
            if path is not None and path.resolve().is_relative_to(self.pictures.resolve()):
                where = f"{name} {path}: lies in {self.pictures}"
                raise ConfigError(f"{where}, where it would be taken for pictures; choose another place")
