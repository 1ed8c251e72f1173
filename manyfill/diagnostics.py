"""What goes on inside a model: how far each level moves a fill, and what training pictures lie nearest to one.

Legend: B pictures, C channels, S the model's size, L levels, N draws; R training pictures, D values compared.
"""

from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

from manyfill.distributions import Gaussian
from manyfill.models.hvae import ConditionalHVAE, Known, Seen
from manyfill.models.topdown import Choose
from manyfill.rng import generator


def spread(model: ConditionalHVAE, known: Known, draws: int, seed: int) -> Tensor:
    """How far each level alone moves the expected pixels (L, B): root mean square over draws and hole, in grey levels.

    Every level is held at its prior mean but one, of which `draws` values are drawn at its calibrated temperature.
    """

    def means(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        return prior.mean

    count = len(known.x)
    still = model.decode(known, means, _noise(seed, count, 1)).mean
    many, dims = known.repeat(draws), known.m.flatten(1).sum(1) * known.x.shape[1]
    moved = []
    for level, temperature in enumerate(model.temperatures.tolist()):
        noise = _noise(seed, count, draws)
        drawn = model.decode(many, _only(level, temperature, noise), noise).mean
        square = (drawn.view(count, draws, *still.shape[1:]) - still[:, None]).float().square()
        moved.append(127.5 * (square.sum((1, 2, 3, 4)) / (draws * dims)).sqrt())
    return torch.stack(moved)


def _only(chosen: int, temperature: float, noise: Sequence[torch.Generator]) -> Choose:
    def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
        if level != chosen:
            return prior.mean
        drawn = torch.stack([torch.randn(prior.mean.shape[1:], generator=g) for g in noise])
        return prior.sample(drawn.to(prior.mean.device), temperature)

    return choose


def _noise(seed: int, count: int, draws: int) -> list[torch.Generator]:
    """The same draws for every picture, as if each stood alone."""
    return [generator(seed, "spread", draw) for _ in range(count) for draw in range(draws)]


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
            assert step.posterior is not None
            q, p = step.posterior, step.prior
            ratio = ((q.mean - p.mean) ** 2 + q.std**2) / p.std**2
            squares[level] += (ratio * step.mask).double().sum().cpu()
            counts[level] += float(step.mask.sum()) * ratio.shape[1]
    return (squares / counts.clamp(min=1)).sqrt().float()


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
