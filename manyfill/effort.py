"""What fills will take, known before they are drawn: tiles, memory, time; and what of it can be afforded.

Legend: H W a picture's size, C its channels, N fills, s the side of the square around a hole.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from manyfill.errors import ConfigError
from manyfill.models.config import ModelConfig

RUNTIME = 440 << 20  # of Python, torch and a small model, measured: 300 MiB, and what its first tiles take
LONG = 60  # tiles from which on it is worth while to draw a few first, to tell the time
UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


@dataclass(frozen=True)
class Effort:
    """To draw `tiles` tiles, `batch` at a time, in `memory` bytes; `pace` finds out how many seconds a tile takes."""

    tiles: int
    batch: int
    memory: int
    pace: Callable[[], float] | None = None

    @cached_property
    def seconds(self) -> float | None:
        """About how long it will take, where that is long; drawing a few tiles tells, so only whoever asks waits."""
        return self.tiles * self.pace() if self.pace and self.tiles > LONG else None

    def __str__(self) -> str:
        time = "" if self.seconds is None else f"about {self.seconds:.0f} s and "
        return f"{self.tiles:,} tiles to draw: {time}up to {self.memory / UNITS['G']:.1f} GiB of memory"


Progress = Callable[[Effort, int], None]
"""`progress(effort, done)`: told before the first tile (done = 0) and after every batch how many tiles are drawn."""


def afford(
    tiles: int, pixels: int, squares: int, fills: int, config: ModelConfig, batch: int, most: int | None, walks: int = 1
) -> Effort:
    """The largest batch up to `batch` whose memory keeps to `most` bytes; ConfigError where not even one tile does.

    `pixels` and `squares` count the values (H W C and s s C) of all pictures and of the squares around their holes,
    `walks` how often each tile is walked: twice under guidance.
    """
    # Every fill, the mean and the picture at its full size, and the deviation in four bytes.
    whole = pixels * (fills + 2) + 4 * pixels
    # Of every square the fills, their guides, a copy of each on the way; and its means and shrinking in four bytes.
    around = squares * (4 * fills + 24)
    row = walks * 64 * max(stage.size**2 * stage.width for stage in config.stages)
    fixed = RUNTIME + whole + around
    if most is not None:
        if fixed + row > most:
            least = f"{-(-(fixed + row) // UNITS['M'])}M"
            raise ConfigError(f"--max-memory: these fills take about {least}; allow that or ask for fewer (-n)")
        batch = min(batch, (most - fixed) // row)
    return Effort(tiles, batch, fixed + batch * row)


def parse_memory(text: str) -> int:
    """A --max-memory such as 800M or 2G, in bytes; ConfigError."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if not found:
        raise ConfigError(f"--max-memory {text}: give a size such as 800M or 2G")
    return int(float(found[1]) * UNITS[found[2].upper()])
