"""Scores of guesses and of drawn fills against the truth, in grey levels and float64, and their uncertainty.

Legend: N fills, P pictures; D values scored, i.e. hole pixels times channels of one picture.
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np

from manyfill.rng import numpy_generator

SMALLEST_ERROR = 1 / 12  # mean squared error of rounding to whole grey levels
RESAMPLES = 2000


def mae(guess: np.ndarray, truth: np.ndarray) -> float:
    """Mean absolute error of a guess (D,)."""
    return float(np.abs(guess - truth).mean())


def rmse(guess: np.ndarray, truth: np.ndarray) -> float:
    """Root mean squared error of a guess (D,)."""
    return float(np.sqrt(np.square(guess - truth).mean()))


def psnr(guess: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of a guess (D,), in dB for a peak of 255.

    Capped at 58.9 dB, the cost of rounding alone: one flat picture met exactly would make every mean infinite.
    """
    return float(10 * np.log10(255**2 / max(rmse(guess, truth) ** 2, SMALLEST_ERROR)))


def crps(fills: np.ndarray, truth: np.ndarray) -> float:
    """Continuous ranked probability score of fills (N, D) as N draws of each value, averaged over D.

    E|X - y| - E|X - X'| / 2 with the fair estimator of the second term, a mean over the N (N - 1) ordered pairs of
    different draws (Ferro 2014, "Fair scores for ensemble forecasts"), so that N does not move its expectation.
    For equal fills it is their mean absolute error.
    """
    n = len(fills)
    assert n >= 2, "the fair estimator needs two draws"
    # In sorted order the k-th of n draws is the larger one in k - 1 pairs and the smaller one in n - k.
    weights = 2 * np.arange(1, n + 1) - n - 1
    spread = np.tensordot(weights, np.sort(fills.astype(np.float64), axis=0), 1) / (n * (n - 1))
    return float((np.abs(fills - truth).mean(0) - spread).mean())


def pairwise(fills: np.ndarray) -> float:
    """Mean root mean squared difference between two of the fills (N, D)."""
    return float(np.mean([rmse(a, b) for a, b in combinations(fills, 2)]))


@dataclass(frozen=True)
class Estimate:
    """A figure with its bootstrap 95 % interval over pictures."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.2f} [{self.low:.2f}, {self.high:.2f}]"


def _first(mean: np.ndarray) -> np.ndarray:
    return mean


def estimate(*columns: np.ndarray, of: Callable[..., np.ndarray] = _first) -> Estimate:
    """`of` the means over pictures of per-picture values (P,), one argument per column.

    Percentile bootstrap (Efron & Tibshirani 1993, chapter 13); all columns are resampled together, so that ratios and
    differences keep their pairing.
    """
    count = len(columns[0])
    pick = numpy_generator(0, "bootstrap").integers(count, size=(RESAMPLES, count))
    draws = of(*(column[pick].mean(1) for column in columns))
    low, high = np.quantile(draws, [0.025, 0.975])
    return Estimate(float(of(*(column.mean() for column in columns))), float(low), float(high))
