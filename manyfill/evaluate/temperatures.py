"""Calibration: the temperature of every level, fitted so that the fills' intervals cover what they say.

First each level takes the width that its posteriors really have around the prior (`prior_misfit`); then one factor for
all levels is found by the secant rule, so that the kinds of holes whose central 90 % intervals cover most and least lie
equally far from 90 %.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyfill.device import autocast
from manyfill.diagnostics import prior_misfit
from manyfill.evaluate.calibration import coverage, histogram, nominal, ranks
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.crew import Crew
from manyfill.images import to_tensor
from manyfill.models.hvae import Seen
from manyfill.pipeline import Filler
from manyfill.rng import key, numpy_generator

LEVEL, SAMPLES = 0.9, 39
NARROWEST, WIDEST = 0.5, 2.0
FIRST_STEP, NEAR, TRIES = 0.1, 0.002, 5
AT_ONCE = 16


def fit(filler: Filler, kinds: Sequence[Cases], seed: int, workers: int = 1) -> dict[str, float]:
    """Set the model's `temperatures` from these cases; returns the coverage by kind of hole that they gave there."""
    model = filler.model
    with torch.inference_mode(), autocast(filler.device):
        shape = prior_misfit(model, _seen(filler, kinds), seed).clamp(NARROWEST, WIDEST).to(model.temperatures)
    tried: list[tuple[float, float, dict[str, float]]] = []
    step = 0.0  # the factor's logarithm: half and twice are equally far from 1
    with Crew(workers, _Trial(filler, kinds, seed)) as crew:
        for _ in range(TRIES):
            covered = _coverage(crew, shape * np.exp(step))
            middle = (min(covered.values()) + max(covered.values())) / 2
            tried.append((step, middle - nominal(LEVEL, SAMPLES), covered))
            if abs(tried[-1][1]) < NEAR:
                break
            step = _next(tried)
    step, _, covered = min(tried, key=lambda one: abs(one[1]))
    model.temperatures.copy_(shape * np.exp(step))
    return covered


def _next(tried: Sequence[tuple[float, float, dict[str, float]]]) -> float:
    """Where the line through the last two tries crosses zero; wider fills cover more."""
    last, excess, _ = tried[-1]
    slope = (excess - tried[-2][1]) / (last - tried[-2][0]) if len(tried) > 1 and last != tried[-2][0] else 0.0
    step = last - excess / slope if slope > 0 else last - np.sign(excess) * FIRST_STEP
    return float(np.clip(step, np.log(NARROWEST), np.log(WIDEST)))


def _seen(filler: Filler, kinds: Sequence[Cases]) -> Iterator[Seen]:
    for cases in kinds:
        for start in range(0, len(cases), AT_ONCE):
            group = [cases[place] for place in range(start, min(start + AT_ONCE, len(cases)))]
            x = torch.stack([to_tensor(case.pixels) for case in group]).to(filler.device)
            m = torch.stack([torch.from_numpy(case.mask)[None] for case in group]).float().to(filler.device)
            yield filler.model.encode(x, m)


@dataclass(frozen=True)
class _Trial:
    """What a try of some temperatures takes."""

    filler: Filler
    kinds: Sequence[Cases]
    seed: int

    def counts(self, temperatures: Tensor, kind: int, place: int) -> np.ndarray:
        """How often each rank of the truth among the fills occurs in one picture (SAMPLES + 1,)."""
        self.filler.model.temperatures.copy_(temperatures)
        case = self.kinds[kind][place]
        # Other noise than an evaluation's, which would flatter a fit to it.
        images = self.filler(case.pixels, case.mask, SAMPLES, key(self.seed, "calibrate", case.index)).images
        fills, rng = np.stack([case.hole(image) for image in images]), numpy_generator(self.seed, "ties", case.index)
        return histogram(ranks(fills, case.hole(case.pixels), rng), SAMPLES)


def _counts(trial: _Trial, task: tuple[Tensor, int, int]) -> np.ndarray:
    return trial.counts(*task)


def _coverage(crew: Crew, temperatures: Tensor) -> dict[str, float]:
    """The coverage by kind of hole."""
    kinds = crew.held.kinds
    tasks = [(temperatures, kind, place) for kind, cases in enumerate(kinds) for place in range(len(cases))]
    counts = np.zeros((len(kinds), SAMPLES + 1))
    for (_, kind, _), found in zip(tasks, crew.each(_counts, tasks), strict=True):
        counts[kind] += found
    return {cases.kind: coverage(row, LEVEL) for cases, row in zip(kinds, counts, strict=True)}
