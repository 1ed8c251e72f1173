"""The records that travel from a data set to the model. B batch, C channels, H W size."""

from __future__ import annotations  # so that filling, which reads pictures too, needs no torch

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, NamedTuple, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One decoded picture: pixels uint8 (H, W, C), its captions, and the name under which a user finds it."""

    pixels: np.ndarray
    captions: list[str]
    name: str


class Source(Protocol):
    """Pictures by number; reading one that cannot be decoded raises PictureError."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Example: ...

    def name(self, index: int) -> str: ...

    def captions(self, index: int) -> list[str]: ...


class Skipped(NamedTuple):
    """A picture that was passed over, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Sample:
    """One training case: x (C, H, W) in [-1, 1], m (1, H, W) 0/1, guide (C, H, W) or None where absent.

    `told` is the one of its `captions` that is told this time, if any.
    """

    x: Tensor
    m: Tensor
    guide: Tensor | None
    captions: list[str]
    name: str
    skipped: list[Skipped] = field(default_factory=list)
    told: str | None = None


@dataclass
class Batch:
    """B cases: x (B, C, H, W) in [-1, 1], m (B, 1, H, W) 0/1 with 1 = missing, and what goes with them.

    guide (B, C, H, W) is zero where guide_present (B,) is 0. told (B) is the caption of each that is told, or None.
    skipped names the pictures that could not be read on the way to this batch.
    """

    x: Tensor
    m: Tensor
    guide: Tensor
    guide_present: Tensor
    captions: list[list[str]]
    names: list[str]
    skipped: list[Skipped] = field(default_factory=list)
    told: list[str | None] = field(default_factory=list)

    @property
    def known(self) -> Tensor:
        """The pictures with their holes set to 0, (B, C, H, W)."""
        return self.x * (1 - self.m)

    def to(self, device: torch.device | str) -> Batch:
        """The same batch with its tensors on `device`."""
        x, m, guide, present = (
            t.to(device, non_blocking=True) for t in (self.x, self.m, self.guide, self.guide_present)
        )
        return replace(self, x=x, m=m, guide=guide, guide_present=present)


def collate(samples: list[Sample]) -> Batch:
    """Stack samples of one size into a batch."""
    import torch

    assert samples, "a batch has at least one sample"
    return Batch(
        x=torch.stack([s.x for s in samples]),
        m=torch.stack([s.m for s in samples]),
        guide=torch.stack([torch.zeros_like(s.x) if s.guide is None else s.guide for s in samples]),
        guide_present=torch.tensor([float(s.guide is not None) for s in samples]),
        captions=[s.captions for s in samples],
        names=[s.name for s in samples],
        skipped=[skip for s in samples for skip in s.skipped],
        told=[s.told for s in samples],
    )
