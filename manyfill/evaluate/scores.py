"""Proper scores of drawn fills against the truth, and how sure a mean over pictures is. Float64, in grey levels.

Legend: N fills, P pictures; D values scored, i.e. hole pixels times channels of one picture.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from manyfill.rng import numpy_generator

RESAMPLES, AT_ONCE = 2000, 50


def crps(fills: np.ndarray, truth: np.ndarray) -> float:
    """Continuous ranked probability score of fills (N, D) as N draws of each value, averaged over D.

    E|X - y| - E|X - X'| / 2 with the fair estimator of the second term, a mean over the N (N - 1) ordered pairs of
    different draws (Ferro 2014, "Fair scores for ensemble forecasts"), so that N does not move its expectation.
    One fill alone scores its mean absolute error.
    """
    fills = fills.astype(np.float64)
    n = len(fills)
    error = np.abs(fills - truth).mean()
    if n == 1:
        return float(error)
    # In sorted order the k-th of n draws is the larger one in k - 1 pairs and the smaller one in n - k.
    weights = 2 * np.arange(1, n + 1) - n - 1
    return float(error - np.tensordot(weights, np.sort(fills, axis=0), 1).mean() / (n * (n - 1)))


def energy(fills: np.ndarray, truth: np.ndarray) -> float:
    """Energy score of fills (N, D) as N draws of the whole hole (Gneiting & Raftery 2007, section 4.3), over sqrt(D).

    E||X - y|| - E||X - X'|| / 2 with Euclidean norms and the fair estimator of the second term. The division makes
    them root mean squares, so that holes of any size weigh alike. One fill alone scores its root mean squared error.
    """
    error = np.sqrt(np.square(fills.astype(np.float64) - truth).mean(1)).mean()
    return float(error - diversity(fills) / 2) if len(fills) > 1 else float(error)


def diversity(fills: np.ndarray) -> float:
    """Mean root mean squared difference between two of the fills (N, D), N at least 2."""
    n, values = len(fills), fills.astype(np.float64)
    # By inner products: whole grey levels squared and summed stay exact in float64.
    squares = np.square(values).sum(1)
    distances = squares[:, None] + squares[None, :] - 2 * values @ values.T
    return float(np.sqrt(np.maximum(distances, 0) / values.shape[1])[np.triu_indices(n, 1)].mean())


@dataclass(frozen=True)
class Estimate:
    """A figure with its 95 % interval."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(*columns: np.ndarray, of: Callable[..., np.ndarray] = lambda mean: mean) -> Estimate:
    """`of` the means over pictures of per-picture values (P,), one argument per column.

    Percentile bootstrap over pictures (Efron & Tibshirani 1993, chapter 13); all columns are resampled together, so
    that ratios and differences keep their pairing.
    """
    count, rng = len(columns[0]), numpy_generator(0, "bootstrap")
    draws = []
    for _ in range(0, RESAMPLES, AT_ONCE):  # in portions, for the memory's sake
        pick = rng.integers(count, size=(AT_ONCE, count))
        draws.append(of(*(column[pick].mean(1) for column in columns)))
    low, high = np.quantile(np.concatenate(draws), [0.025, 0.975])
    return Estimate(float(of(*(column.mean() for column in columns))), float(low), float(high))
