"""The figures of one picture: what a row of an evaluation holds, for drawn fills and for a single guess.

Legend: S the picture's size, C channels, N fills. A row is plain JSON; what does not apply is absent.
"""

from typing import Any

import numpy as np

from manyfill.completions import Completions
from manyfill.evaluate.calibration import histogram, ranks, reliability
from manyfill.evaluate.cases import Case
from manyfill.evaluate.fidelity import psnr, seam, ssim
from manyfill.evaluate.scores import crps, diversity, energy
from manyfill.rng import numpy_generator

Row = dict[str, Any]


def of_guess(case: Case, guess: np.ndarray) -> Row:
    """Figures of one guess float64 (S, S, C): as if it were a distribution of one value."""
    truth, values = case.hole(case.pixels), case.hole(guess)
    return {
        **_of_case(case),
        **_of_mean(case, guess),
        "crps": crps(values[None], truth),
        "energy": energy(values[None], truth),
        "seam": seam(guess, case.mask),
    }


def of_fills(case: Case, completions: Completions) -> Row:
    """Figures of N drawn fills, at least 2, and of the bound."""
    truth, bound = case.hole(case.pixels), completions.bound
    fills = np.stack([case.hole(image) for image in completions.images])
    each = [psnr(fill, truth) for fill in fills]
    best = int(np.argmax(each))
    assert bound is not None and completions.seed is not None
    rng = numpy_generator(completions.seed, "ties", case.index)
    return {
        **_of_case(case),
        **_of_mean(case, completions.mean.astype(np.float64)),
        "nats": bound.nats,
        "nats_k": bound.nats_k,
        "kl": list(bound.kl),
        "dims": bound.dims,
        "psnr_one": float(np.mean(each)),
        "psnr_best": each[best],
        "ssim_one": ssim(completions.images[0], case.pixels, case.mask),
        "ssim_best": ssim(completions.images[best], case.pixels, case.mask),
        "crps": crps(fills, truth),
        "energy": energy(fills, truth),
        "seam": float(np.mean([seam(image, case.mask) for image in completions.images])),
        "diversity": diversity(fills),
        "ranks": histogram(ranks(fills, truth, rng), len(fills)).tolist(),
        "reliability": reliability(fills, truth).tolist(),
    }


def _of_mean(case: Case, mean: np.ndarray) -> Row:
    return {
        "psnr_mean": psnr(case.hole(mean), case.hole(case.pixels)),
        "ssim_mean": ssim(mean, case.pixels.astype(np.float64), case.mask),
    }


def _of_case(case: Case) -> Row:
    return {
        "index": case.index,
        "name": case.name,
        "hole": float(case.mask.mean()),
        "seam_of_truth": seam(case.pixels, case.mask),
    }
