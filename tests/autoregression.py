"""What the tests of autoregressive parts share: small parts away from their start, and a chi-square test."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from manyfill.models.causal import CausalNetwork, Rows
from manyfill.models.config import PRESETS, ModelConfig
from manyfill.rng import generator

AR = {"prior": "autoregressive"}


def tiny(head: str = "mixture", channels: int = 3, priors: bool = False, **changes: object) -> ModelConfig:
    """tiny32 with another head, and with autoregressive priors wherever there is more than one position."""
    base = PRESETS["tiny32"]
    levels = tuple(level.model_copy(update=AR) if priors and level.size > 1 else level for level in base.levels)
    return base.model_copy(update={"head": head, "channels": channels, "levels": levels, **changes})


def shake(part: nn.Module, amount: float = 0.5) -> nn.Module:
    """Move all parameters away from their start, so that nothing is 0 or 1 by accident."""
    g = generator(0, "shake")
    with torch.no_grad():
        for p in part.parameters():
            p.add_((amount * p.std(correction=0) or 0.05) * torch.randn(p.shape, generator=g))
    return part


def chi_square_fits(counts: Tensor, expected: Tensor, least: float = 8.0) -> bool:
    """Whether counts are draws of what is expected, at a chance of error of about 1e-4.

    Cells that expect fewer than `least` are taken together. Wilson & Hilferty's normal approximation.
    """
    few = expected < least
    counts = torch.cat([counts[~few], counts[few].sum()[None]]).double()
    expected = torch.cat([expected[~few], expected[few].sum()[None]]).double()
    used = expected > 0
    statistic = ((counts - expected)[used].square() / expected[used]).sum()
    freedom = int(used.sum()) - 1
    normal = ((statistic / freedom) ** (1 / 3) - (1 - 2 / (9 * freedom))) / (2 / (9 * freedom)) ** 0.5
    return bool(normal.abs() < 3.9)


def ends(rows: Rows) -> list[int]:
    """Each stage's end."""
    return rows.stage.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()


def uncached(net: CausalNetwork, rows: Rows, context: Tensor, choose: Any, what: str) -> None:
    """In place of `CausalNetwork.draw`: a pass over the whole hole for every stage."""
    values, start = torch.zeros(len(rows.where), net.values), 0
    for end in ends(rows):
        now = slice(start, end)
        values[now] = choose(now, net(rows, values, context)[now])
        start = end


def generators(count: int, seed: int = 0) -> Sequence[torch.Generator]:
    return [generator(seed, "draw", i) for i in range(count)]
