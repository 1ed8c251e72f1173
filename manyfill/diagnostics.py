"""What goes on inside a model: how far each level moves a fill, what its latents carry, how far its priors miss the
posteriors, and what training pictures lie nearest to a fill.

Legend: B pictures, C channels, S the model's size, L levels, Z latent channels, N draws; R training pictures, D values
compared.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from manyfill.distributions import Gaussian, kl
from manyfill.models.hvae import ConditionalHVAE, Known, Seen
from manyfill.models.topdown import Step
from manyfill.rng import generator

Take = Literal["mean", "kept", "own"]
"""Which latent a level goes on with: its prior's mean, one draw kept for all traversals, or each traversal's own."""


def expected(model: ConditionalHVAE, known: Known, takes: Sequence[Take], draws: int, seed: int) -> Tensor:
    """The expected pixels (B, N, C, S, S) of N traversals with the prior, at the calibrated temperatures.

    A draw depends on the seed and its own number, not on which other levels are drawn for it to be "kept".
    """
    count, temperatures = len(known.x), model.temperatures.tolist()
    own = [generator(seed, "spread", draw) for _ in range(count) for draw in range(draws)]
    kept = [generator(seed, "kept") for _ in own]

    def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        if takes[level] == "mean":
            return prior.mean
        noise = own if takes[level] == "own" else kept
        drawn = torch.stack([torch.randn(prior.mean.shape[1:], generator=g) for g in noise])
        return prior.sample(drawn.to(prior.mean.device), temperatures[level])

    mean = model.decode(known.repeat(draws), choose, own).mean
    return mean.view(count, draws, *mean.shape[1:])


def takes_of(levels: int, alone: int | None = None, kept: int = 0) -> list[Take]:
    """One level alone drawn, all others at their mean; or with `alone` None, the first `kept` fixed, the rest drawn."""
    if alone is None:
        return ["kept" if level < kept else "own" for level in range(levels)]
    return ["own" if level == alone else "mean" for level in range(levels)]


def spread(model: ConditionalHVAE, known: Known, draws: int, seed: int, cell: int = 1) -> Tensor:
    """How far each level alone moves the expected pixels (L, B): root mean square over draws and hole, in grey levels.

    Every level is held at its prior mean but one, of which `draws` values are drawn. With a `cell` the averages over
    cells of so many pixels a side are compared: what changes at low frequencies.
    """
    levels = len(model.config.levels)
    still = expected(model, known, ["mean"] * levels, 1, seed)
    moved = (expected(model, known, takes_of(levels, alone=level), draws, seed) - still for level in range(levels))
    return torch.stack([_rms(each, known.m, cell) for each in moved])


def _rms(moved: Tensor, hole: Tensor, cell: int) -> Tensor:
    """Root mean square (B,) of differences (B, N, C, S, S) over the hole (B, 1, S, S), of averages over cells of it."""
    share = F.avg_pool2d(hole, cell)
    means = F.avg_pool2d((moved.float() * hole[:, None]).flatten(0, 1), cell).unflatten(0, moved.shape[:2])
    square = means.square() / share.clamp(min=1e-6)[:, None]  # the mean's square times its share of the hole
    return 127.5 * (square.sum((1, 2, 3, 4)) / (moved.shape[1] * moved.shape[2] * share.sum((1, 2, 3)))).sqrt()


def prior_misfit(model: ConditionalHVAE, seen: Iterable[Seen], seed: int) -> Tensor:
    """By level (L,), how much wider the posterior's draws lie than the prior says: the deviation, 1 where it is right.

    The factor T that brings N(p.mean, (T p.std)^2) nearest to the posteriors, averaged over pictures, holes and
    channels: the mean over all latents of ((q.mean - p.mean)^2 + q.std^2) / p.std^2 is T^2.
    """
    levels = len(model.config.levels)
    squares, counts = torch.zeros(levels, dtype=torch.float64), torch.zeros(levels, dtype=torch.float64)
    for index, pictures in enumerate(seen):
        noise = generator(seed, "misfit", index, device=pictures.x.device)
        for level, step in enumerate(model.infer(pictures, noise)[1]):
            ratio = _squared_misfit(step)
            squares[level] += ratio.double().sum().cpu()
            counts[level] += float(step.mask.sum()) * ratio.shape[1]
    return (squares / counts.clamp(min=1)).sqrt().float()


def _squared_misfit(step: Step) -> Tensor:
    """Each latent's T^2 (B, Z, H, W) of `prior_misfit`, 0 outside the hole."""
    q, p = step.posterior, step.prior
    assert q is not None
    return ((q.mean - p.mean) ** 2 + q.std**2) / p.std**2 * step.mask


class LatentUse:
    """Of every level, how many latent channels are active and the prior's misfit, over many pictures.

    A channel is active if its KL, averaged over pictures and holes, is over 0.01 nats. Burda et al. (2016), section
    5.3, ask whether the posterior's mean varies, but here the prior's varies too, with what is known.
    """

    THRESHOLD = 0.01

    def __init__(self, channels: Sequence[int], device: torch.device) -> None:
        self.channels = channels
        # By level: hole cells, squared misfit, and the KL of each channel; in one tensor, to be summed over ranks.
        self.sums = torch.zeros(len(channels), 2 + max(channels), dtype=torch.float64, device=device)

    @torch.no_grad()
    def add(self, steps: Sequence[Step]) -> None:
        for row, step in zip(self.sums, steps, strict=True):
            assert step.posterior is not None
            divergence = (kl(step.posterior, step.prior) * step.mask).double().sum((0, 2, 3))
            row[0] += step.mask.sum()
            row[1] += _squared_misfit(step).double().sum()
            row[2 : 2 + len(divergence)] += divergence

    def figures(self) -> dict[str, float]:
        """`active_01` channels and `misfit_01`, and so on from coarse to fine; NaN if nothing was added."""
        found = {}
        for level, (channels, (cells, squares, *divergence)) in enumerate(
            zip(self.channels, self.sums.tolist(), strict=True), 1
        ):
            cells = cells or math.nan
            found[f"active_{level:02d}"] = float(sum(each / cells > self.THRESHOLD for each in divergence[:channels]))
            found[f"misfit_{level:02d}"] = math.sqrt(squares / (cells * channels))
        return found


class Neighbours:
    """The nearest of R rows (R, D), added in portions, to each of some queries (B, D), by mean squared difference."""

    def __init__(self, queries: Tensor, keep: int) -> None:
        self.queries, self.keep, self.seen = queries.float(), keep, 0
        self.distances = torch.full((len(queries), 0), 0.0)
        self.indices = torch.zeros((len(queries), 0), dtype=torch.long)

    def add(self, rows: Tensor) -> None:
        """More rows (r, D), numbered on from the last."""
        found = torch.cdist(self.queries, rows.float()).square() / rows.shape[1]
        numbers = torch.arange(self.seen, self.seen + len(rows)).expand(len(found), -1)
        self.seen += len(rows)
        distances, indices = torch.cat([self.distances, found], 1), torch.cat([self.indices, numbers], 1)
        self.distances, order = distances.topk(min(self.keep, distances.shape[1]), 1, largest=False)
        self.indices = indices.gather(1, order)
