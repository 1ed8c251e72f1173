import itertools
import math

import numpy as np
import pytest
from scipy.special import gammaln
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from manyfill.evaluate.fidelity import psnr, seam, ssim
from manyfill.evaluate.scores import crps, diversity, energy, estimate

# ---------------------------------------------------------------------------------------------- proper scores


def test_one_answer_scores_its_absolute_and_its_root_mean_squared_error() -> None:
    rng = np.random.default_rng(0)
    guess, truth = rng.uniform(0, 255, 50), rng.uniform(0, 255, 50)
    root = math.sqrt(np.square(guess - truth).mean())
    for copies in (1, 5):
        fills = np.tile(guess, (copies, 1))
        assert crps(fills, truth) == pytest.approx(np.abs(guess - truth).mean(), rel=1e-9)
        assert energy(fills, truth) == pytest.approx(root, rel=1e-6)


@pytest.mark.parametrize("draws", [2, 3])
def test_crps_is_unbiased_for_any_number_of_draws(draws: int) -> None:
    # A fair coin, y = 0: E|X - y| - E|X - X'| / 2 = 1/2 - 1/4. Every outcome of the draws is equally likely.
    outcomes = itertools.product([0.0, 1.0], repeat=draws)
    assert np.mean([crps(np.array(outcome)[:, None], np.zeros(1)) for outcome in outcomes]) == pytest.approx(0.25)


@pytest.mark.parametrize("truth", [0.0, 0.3, 1.0])
def test_crps_of_uniform_draws_meets_its_closed_form(truth: float) -> None:
    fills = np.random.default_rng(1).uniform(0, 1, (16, 40_000))
    assert crps(fills, np.full(40_000, truth)) == pytest.approx(1 / 3 - truth + truth**2, abs=0.003)


def test_crps_of_normal_draws_meets_its_closed_form() -> None:
    # Gneiting & Raftery (2007), equation 21, at the mean: sigma (2 phi(0) - 1 / sqrt(pi)).
    fills = 7 * np.random.default_rng(2).standard_normal((16, 40_000))
    assert crps(fills, np.zeros(40_000)) == pytest.approx(7 * (math.sqrt(2) - 1) / math.sqrt(math.pi), rel=0.02)


def test_crps_by_sorting_equals_the_double_sum() -> None:
    rng = np.random.default_rng(3)
    fills, truth = rng.integers(0, 256, (7, 20)).astype(np.float64), rng.uniform(0, 255, 20)
    pairs = np.abs(fills[:, None] - fills).sum((0, 1)) / (7 * 6)
    assert crps(fills, truth) == pytest.approx((np.abs(fills - truth).mean(0) - pairs / 2).mean(), rel=1e-12)


def normal_norm(dims: int) -> float:
    """E||X|| of a standard normal vector."""
    return math.sqrt(2) * math.exp(gammaln((dims + 1) / 2) - gammaln(dims / 2))


@pytest.mark.parametrize("dims", [1, 3, 50])
def test_energy_score_of_normal_draws_meets_its_closed_form(dims: int) -> None:
    # At the mean: sigma E||Z|| - sigma sqrt(2) E||Z|| / 2, over sqrt(D).
    rng = np.random.default_rng(5)
    found = [energy(7 * rng.standard_normal((40, dims)), np.zeros(dims)) for _ in range(400)]
    exact = 7 * normal_norm(dims) * (1 - math.sqrt(0.5)) / math.sqrt(dims)
    assert np.mean(found) == pytest.approx(exact, abs=4 * np.std(found) / math.sqrt(len(found)))
    assert np.std(found) / math.sqrt(len(found)) < 0.05 * exact


def test_the_right_distribution_scores_best() -> None:
    """Both scores are proper: shifted, too narrow and too wide draws cost more."""
    rng = np.random.default_rng(6)

    def mean_scores(shift: float, scale: float) -> np.ndarray:
        noise, truths = rng.standard_normal((300, 30, 8)), rng.standard_normal((300, 8))
        pairs = zip(shift + scale * noise, truths, strict=True)
        return np.mean([(crps(fills, truth), energy(fills, truth)) for fills, truth in pairs], axis=0)

    right = mean_scores(0, 1)
    for wrong in ((0.8, 1), (0, 0.4), (0, 2.0)):
        assert (mean_scores(*wrong) > right + 0.02).all()


def test_diversity_averages_root_mean_squares_over_pairs() -> None:
    fills = np.array([0.0, 3, 9])[:, None].repeat(4, 1)
    assert diversity(fills) == pytest.approx((3 + 9 + 6) / 3)
    whole = np.random.default_rng(7).integers(0, 256, (5, 300)).astype(np.uint8)
    apart = [math.sqrt(np.square(a.astype(float) - b).mean()) for a, b in itertools.combinations(whole, 2)]
    assert diversity(whole) == pytest.approx(np.mean(apart), rel=1e-12)


# --------------------------------------------------------------------------------------------------- intervals


def test_bootstrap_interval_is_that_of_the_normal_approximation() -> None:
    column = np.random.default_rng(4).normal(10, 3, 400)
    found = estimate(column)
    half = 1.96 * column.std() / math.sqrt(400)
    assert found.mean == pytest.approx(column.mean())
    assert found.high - found.mean == pytest.approx(half, rel=0.1)
    assert found.mean - found.low == pytest.approx(half, rel=0.1)


def test_bootstrap_keeps_columns_paired_and_divides_means() -> None:
    column = np.array([1.0, 2, 30, 4])
    found = estimate(column / 2, column, of=np.divide)
    assert (found.mean, found.low, found.high) == pytest.approx((0.5, 0.5, 0.5))
    assert estimate(np.array([1.0, 1]), np.array([1.0, 3]), of=np.divide).mean == 0.5


# ---------------------------------------------------------------------------------------------------- fidelity


def pair(channels: int = 3) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(8)
    truth = rng.integers(0, 256, (24, 20, channels)).astype(np.float64)
    return np.clip(truth + rng.normal(0, 30, truth.shape), 0, 255), truth


def test_psnr_is_scikit_image_s_and_a_perfect_guess_is_capped() -> None:
    guess, truth = pair()
    assert psnr(guess.ravel(), truth.ravel()) == pytest.approx(peak_signal_noise_ratio(truth, guess, data_range=255))
    assert psnr(truth.ravel(), truth.ravel()) == pytest.approx(10 * math.log10(255**2 * 12))


@pytest.mark.parametrize("channels", [1, 3])
def test_ssim_over_a_hole_that_is_everything_is_the_picture_s(channels: int) -> None:
    guess, truth = pair(channels)
    options = {"data_range": 255, "channel_axis": -1, "gaussian_weights": True, "use_sample_covariance": False}
    _, whole = structural_similarity(guess, truth, full=True, **options)
    assert ssim(guess, truth, np.ones((24, 20), bool)) == pytest.approx(whole.mean())
    hole = np.zeros((24, 20), bool)
    hole[3:9, 5:15] = True
    assert ssim(guess, truth, hole) == pytest.approx(whole[3:9, 5:15].mean())
    assert ssim(truth, truth, hole) == pytest.approx(1)


def test_seam_sums_the_steps_across_the_border_only() -> None:
    picture, hole = np.zeros((5, 6, 2)), np.zeros((5, 6), bool)
    hole[1:3, 2:4] = True
    picture[hole] = (10, 3)
    picture[1, 2] = (110, 3)  # steps inside the hole do not count, nor those elsewhere
    picture[4, 0] = 200
    # Eight steps of 13, but that two of them start from the brighter pixel.
    assert seam(picture, hole) == 6 * 13 + 2 * 113
    assert seam(picture, np.ones_like(hole)) == 0
