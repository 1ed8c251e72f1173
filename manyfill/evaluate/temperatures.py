"""Calibration: the temperature of every level, fitted so that the fills' intervals cover what they say.

First each level takes the width that its posteriors really have around the prior (`prior_misfit`); then one factor for
all levels is found by bisection, so that the central 90 % interval covers 90 % on average over the kinds of holes.
"""

from collections.abc import Iterator, Sequence

import numpy as np
import torch

from manyfill.device import autocast
from manyfill.diagnostics import prior_misfit
from manyfill.evaluate.calibration import coverage, histogram, nominal, ranks
from manyfill.evaluate.cases import Cases
from manyfill.images import to_tensor
from manyfill.models.hvae import Seen
from manyfill.pipeline import Filler
from manyfill.rng import numpy_generator

LEVEL, SAMPLES = 0.9, 39
LEAST, MOST, HALVINGS = 0.7, 1.4, 4
AT_ONCE = 16


def fit(filler: Filler, kinds: Sequence[Cases], seed: int) -> dict[str, float]:
    """Set the model's `temperatures` from these cases; returns the coverage by kind of hole that they gave there."""
    model = filler.model
    with torch.inference_mode(), autocast(filler.device):
        shape = prior_misfit(model, _seen(filler, kinds), seed).to(model.temperatures)
    low, high = LEAST, MOST
    for _ in range(HALVINGS):
        # In logarithms: half and twice are equally far from 1.
        factor = (low * high) ** 0.5
        model.temperatures.copy_(shape * factor)
        covered = _coverage(filler, kinds, seed)
        low, high = (factor, high) if np.mean(list(covered.values())) < nominal(LEVEL, SAMPLES) else (low, factor)
    return covered


def _seen(filler: Filler, kinds: Sequence[Cases]) -> Iterator[Seen]:
    for cases in kinds:
        for start in range(0, len(cases), AT_ONCE):
            group = [cases[index] for index in range(start, min(start + AT_ONCE, len(cases)))]
            x = torch.stack([to_tensor(case.pixels) for case in group]).to(filler.device)
            m = torch.stack([torch.from_numpy(case.mask)[None] for case in group]).float().to(filler.device)
            yield filler.model.encode(x, m)


def _coverage(filler: Filler, kinds: Sequence[Cases], seed: int) -> dict[str, float]:
    covered = {}
    for cases in kinds:
        counts = np.zeros(SAMPLES + 1)
        for case in cases:
            images = filler(case.pixels, case.mask, SAMPLES, seed).images
            fills, rng = np.stack([case.hole(image) for image in images]), numpy_generator(seed, "ties", case.index)
            counts += histogram(ranks(fills, case.hole(case.pixels), rng), SAMPLES)
        covered[cases.kind] = coverage(counts, LEVEL)
    return covered
