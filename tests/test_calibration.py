import math

import numpy as np
import pytest
from scipy.stats import binom, chisquare

from manyfill.evaluate.calibration import LEVELS, coverage, cut, histogram, levels, nominal, ranks, reliability

VALUES = 60_000


def sampler(scale: float, n: int = 39, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Standard normal truths, and fills that are `scale` times too wide."""
    rng = np.random.default_rng(seed)
    return scale * rng.standard_normal((n, VALUES)), rng.standard_normal(VALUES)


def counted(fills: np.ndarray, truth: np.ndarray) -> np.ndarray:
    return histogram(ranks(fills, truth, np.random.default_rng(1)), len(fills))


def test_39_fills_have_exactly_the_four_levels() -> None:
    assert [cut(level, 39) for level in LEVELS] == [10, 4, 2, 1]
    assert [nominal(level, 39) for level in LEVELS] == pytest.approx(list(LEVELS))
    assert levels(39) == list(LEVELS) and levels(5) == []
    assert levels(19) == [0.5, 0.8, 0.9]
    assert nominal(0.95, 16) == pytest.approx(15 / 17)


@pytest.mark.parametrize("level", LEVELS)
def test_a_perfect_sampler_covers_what_it_says(level: float) -> None:
    found = coverage(counted(*sampler(1.0)), level)
    assert found == pytest.approx(level, abs=4 * math.sqrt(level * (1 - level) / VALUES))


@pytest.mark.parametrize("scale", [0.5, 1.7])
def test_a_sampler_of_known_width_covers_what_the_order_statistics_say(scale: float) -> None:
    """Given the truth y, the number of fills below it is binomial with Phi(y / scale)."""
    y = np.linspace(-8, 8, 4001)
    weight = np.exp(-(y**2) / 2)
    below = np.array([0.5 * math.erfc(-v / scale / math.sqrt(2)) for v in y])
    for level in (0.5, 0.9):
        k = cut(level, 39)
        within = binom.cdf(39 - k, 39, below) - binom.cdf(k - 1, 39, below)
        exact = (within * weight).sum() / weight.sum()
        assert coverage(counted(*sampler(scale)), level) == pytest.approx(exact, abs=0.008)
        assert (exact < level) == (scale < 1)


def test_ranks_of_a_perfect_sampler_are_even_though_grey_levels_tie() -> None:
    rng = np.random.default_rng(2)
    fills, truth = rng.integers(0, 3, (9, VALUES)), rng.integers(0, 3, VALUES)
    counts = counted(fills, truth)
    assert counts.sum() == VALUES and chisquare(counts).pvalue > 1e-3
    same = histogram(ranks(np.zeros((9, VALUES)), np.zeros(VALUES), rng), 9)
    assert chisquare(same).pvalue > 1e-3


def test_ranks_count_the_fills_below() -> None:
    fills, rng = np.arange(5)[:, None].repeat(3, 1), np.random.default_rng(0)
    assert ranks(fills, np.array([-1.0, 2.5, 9]), rng).tolist() == [0, 3, 5]


@pytest.mark.parametrize("scale", [0.5, 1.0, 2.0])
def test_reliability_sets_the_claimed_deviation_against_the_error(scale: float) -> None:
    # Grey levels of deviation 10 * scale are claimed; the error of the mean of 39 is that of the truth and of the mean.
    fills, truth = sampler(10 * scale)
    bins = reliability(fills, 10 * truth)
    assert bins[0].sum() == VALUES
    claimed, error = np.sqrt(bins[1:].sum(1) / VALUES)
    assert claimed == pytest.approx(10 * scale * math.sqrt(1 + 1 / 39), rel=0.01)
    assert error == pytest.approx(10 * math.sqrt(1 + scale**2 / 39), rel=0.01)
    used = bins[0] > 0
    means = np.sqrt(bins[1][used] / bins[0][used])
    assert (np.diff(means) > 0).all()


def test_equal_fills_claim_no_deviation() -> None:
    bins = reliability(np.full((4, 7), 3.0), np.full(7, 5.0))
    assert bins[:, 0].tolist() == [7, 0, 28] and not bins[:, 1:].any()
