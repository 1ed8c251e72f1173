"""One of several processes that share the pictures, as launchers such as torchrun tell it."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Self

from manyfill.errors import ConfigError


@dataclass(frozen=True)
class Rank:
    """Process `index` of `size`, and its number on its own machine, which chooses its GPU."""

    index: int = 0
    size: int = 1
    local: int = 0

    @classmethod
    def of(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """From RANK, WORLD_SIZE and LOCAL_RANK; alone where none is set. ConfigError."""
        if ("RANK" in environment) != ("WORLD_SIZE" in environment):
            there, missing = ("RANK", "WORLD_SIZE") if "RANK" in environment else ("WORLD_SIZE", "RANK")
            raise ConfigError(f"{there} is set but {missing} is not; set both, or neither to work alone")
        index, size = _number(environment, "RANK", 0), _number(environment, "WORLD_SIZE", 1)
        if index >= size:
            raise ConfigError(f"RANK={index}: there are WORLD_SIZE={size} ranks, counted from 0; set a lower RANK")
        return cls(index, size, _number(environment, "LOCAL_RANK", 0))

    @property
    def name(self) -> str:
        return f"{self.index:05d}-of-{self.size:05d}"

    def share(self, blocks: range) -> range:
        """Every `size`-th of the blocks, from `index` on."""
        return blocks[self.index :: self.size]

    def device(self) -> str | None:
        """torch's name of this rank's GPU, None where there is none."""
        import torch

        return f"cuda:{self.local % torch.cuda.device_count()}" if torch.cuda.is_available() else None


def _number(environment: Mapping[str, str], name: str, otherwise: int) -> int:
    text = environment.get(name, str(otherwise))
    if not text.isdecimal():
        raise ConfigError(f"{name}={text}: is no whole number from 0 on; set it as your launcher counts")
    return int(text)
