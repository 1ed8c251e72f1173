"""Whether the truth falls among the fills as often as it should: ranks, coverage, and error against claimed spread.

Legend: N fills, D hole values.
"""

import numpy as np

LEVELS = (0.50, 0.80, 0.90, 0.95)
NEAR = 0.01
SPREADS = np.array([0, 1, 2, 4, 6, 8, 12, 16, 24, 32, 48, 64, np.inf])
"""Edges of the bins of claimed standard deviation, in grey levels."""


def ranks(fills: np.ndarray, truth: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """How many of the fills (N, D) lie below the truth (D,): 0..N, each as likely where the fills are right.

    Among equal values the place is drawn at random (Czado et al. 2009, section 2), since grey levels tie often.
    """
    below, equal = (fills < truth).sum(0), (fills == truth).sum(0)
    return below + rng.integers(0, equal + 1)


def histogram(found: np.ndarray, n: int) -> np.ndarray:
    """How often each rank 0..n occurs (n + 1,)."""
    return np.bincount(found, minlength=n + 1)


def cut(level: float, n: int) -> int:
    """The k for which the k-th lowest and highest of n fills come nearest to covering `level`, at least 1."""
    return max(1, round((n + 1) * (1 - level) / 2))


def nominal(level: float, n: int) -> float:
    """What that interval of a perfect model covers, (n + 1 - 2k) / (n + 1): exactly `level` only for some n."""
    return (n + 1 - 2 * cut(level, n)) / (n + 1)


def levels(n: int) -> list[float]:
    """Those of LEVELS that n fills have an interval for, near enough to speak of it."""
    return [level for level in LEVELS if abs(nominal(level, n) - level) <= NEAR]


def percent(level: float) -> str:
    """A level's name in a report: "90"."""
    return f"{100 * level:.0f}"


def coverage(counts: np.ndarray, level: float) -> float:
    """The share of values between the k-th lowest and highest fill, from rank counts (..., N + 1)."""
    n = counts.shape[-1] - 1
    k = cut(level, n)
    return float(counts[..., k : n + 1 - k].sum() / counts.sum())


def reliability(fills: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """By bin of claimed deviation: how many values, the sum of claimed variances, of squared errors (3, bins).

    The mean of N fills misses a truth that is one more draw by a variance of 1 + 1/N times the model's own.
    """
    n, values = len(fills), fills.astype(np.float64)
    variance = values.var(0, ddof=1) * (1 + 1 / n)
    square = np.square(values.mean(0) - truth)
    place = np.searchsorted(SPREADS, np.sqrt(variance), side="right") - 1
    sums = (np.bincount(place, weights, len(SPREADS) - 1) for weights in (None, variance, square))
    return np.stack([column.astype(np.float64) for column in sums])
