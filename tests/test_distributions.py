"""The distributions are probabilities: they sum to 1, their samples follow them, their KL is what it says.

The reference below is written from the definition, in float64 numpy, with loops where the library has none.
Shapes: R pixels, C channels, K mixture components.
"""

import itertools
import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.distributions import Normal, kl_divergence

from manyfill.distributions import Gaussian, LogisticMixture, gumbel, kl, logistic
from manyfill.images import to_pixels, to_tensor
from manyfill.rng import generator, numpy_generator

EXTREMES = [
    (mean, log_scale)
    for mean in (-50.0, -3.0, -1.0, -0.9961, 0.0, 0.5, 1.0, 1.5, 200.0)
    for log_scale in (-7.0, -4.0, -1.0, 2.0, 5.0)
]


def grid(bins: int) -> np.ndarray:
    return np.linspace(-1.0, 1.0, bins)


def between(low: float, high: float) -> float:
    """The mass of the standard logistic distribution between two points, without cancellation."""

    def below(t: float) -> float:
        return 1 / (1 + math.exp(-t)) if t > -700 else 0.0

    return below(high) - below(low) if high + low < 0 else below(-low) - below(-high)


def reference(mixture: LogisticMixture, row: int, pixel: np.ndarray) -> float:
    """The probability of one pixel (C,): a sum over components of a product over channels of a bin's mass."""
    logits, means, log_scales = (t[row].double().numpy() for t in (mixture.logits, mixture.means, mixture.log_scales))
    half = 1 / (mixture.bins - 1)
    weights = np.exp(logits - logits.max())
    total = 0.0
    for k, weight in enumerate(weights / weights.sum()):
        mass, pair = weight, 0
        for c, value in enumerate(pixel):
            mean = means[c, k]
            for before in range(c):
                if mixture.couplings is not None:
                    mean += mixture.couplings[row, pair, k].item() * pixel[before]
                    pair += 1
            low = -math.inf if value <= -1 else (value - half - mean) / math.exp(log_scales[c, k])
            high = math.inf if value >= 1 else (value + half - mean) / math.exp(log_scales[c, k])
            mass *= between(low, high)
        total += mass
    return total


def one_logistic(mean: float, log_scale: float, bins: int, channels: int, dtype: torch.dtype) -> LogisticMixture:
    shape = (1, channels, 1)
    means, log_scales = torch.full(shape, mean, dtype=dtype), torch.full(shape, log_scale, dtype=dtype)
    return LogisticMixture(torch.zeros(1, 1, dtype=dtype), means, log_scales, bins=bins)


def some_mixture(
    rows: int, channels: int, mixtures: int, bins: int, *, coupled: bool, seed: int = 0, dtype: torch.dtype
) -> LogisticMixture:
    g = generator(seed, "mixture")

    def normal(*shape: int) -> Tensor:
        return torch.randn(rows, *shape, mixtures, generator=g, dtype=dtype)

    couplings = torch.tanh(normal(channels * (channels - 1) // 2)) if coupled else None
    return LogisticMixture(normal(), 0.7 * normal(channels), 1.5 * normal(channels) - 2, couplings, bins)


def mapped(mixture: LogisticMixture, change: Callable[[Tensor], Tensor]) -> LogisticMixture:
    """The mixture with all of its tensors changed alike."""
    couplings = None if mixture.couplings is None else change(mixture.couplings)
    return LogisticMixture(
        change(mixture.logits), change(mixture.means), change(mixture.log_scales), couplings, mixture.bins
    )


def probabilities(mixture: LogisticMixture, pixels: Tensor) -> Tensor:
    """The probability (R, V) of each of the pixels (V, C) in each row of a mixture."""
    spread = mapped(mixture, lambda t: t[:, None].expand(len(t), len(pixels), *t.shape[1:]))
    return spread.log_prob(pixels.expand(len(mixture.logits), *pixels.shape)).exp()


def every_pixel(mixture: LogisticMixture) -> Tensor:
    """All V = bins ** C pixels (V, C)."""
    channels = mixture.means.shape[-2]
    return torch.tensor(list(itertools.product(grid(mixture.bins), repeat=channels)), dtype=mixture.logits.dtype)


def pmf(mixture: LogisticMixture) -> Tensor:
    return probabilities(mixture, every_pixel(mixture))


# ------------------------------------------------------------------------------------------- a real probability


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("bins", [2, 32, 256])
def test_all_values_sum_to_1_at_any_mean_and_scale(bins: int, dtype: torch.dtype) -> None:
    for mean, log_scale in EXTREMES:
        total = pmf(one_logistic(mean, log_scale, bins, 1, dtype)).double().sum().item()
        assert total == pytest.approx(1, abs=2e-5 if dtype == torch.float32 else 1e-12), (mean, log_scale)


@pytest.mark.parametrize("coupled", [False, True])
@pytest.mark.parametrize("bins", [2, 12])
def test_all_pixels_of_three_channels_sum_to_1(bins: int, coupled: bool) -> None:
    total = pmf(some_mixture(20, 3, 4, bins, coupled=coupled, dtype=torch.float64)).sum(-1)
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=1e-12)


def test_each_channel_of_a_pixel_sums_to_1_given_those_before_it() -> None:
    """With 256 values all triples are too many: fix two channels, sum over the third, compare with the pair's mass."""
    mixture = some_mixture(1, 3, 4, 256, coupled=True, dtype=torch.float64)
    pair = LogisticMixture(
        mixture.logits,
        mixture.means[:, :2],
        mixture.log_scales[:, :2],
        mixture.couplings[:, :1],  # type: ignore[index]
    )
    values = torch.from_numpy(grid(256))
    for red, green in ((0, 255), (150, 90), (255, 255)):
        pixels = torch.stack([values[red].expand(256), values[green].expand(256), values], -1)
        joint = probabilities(mixture, pixels).sum().item()
        assert joint == pytest.approx(pair.log_prob(pixels[:1, :2]).exp().item(), rel=1e-10)


@pytest.mark.parametrize("bins", [2, 32, 256])
@pytest.mark.parametrize(("channels", "coupled"), [(1, False), (3, False), (3, True)])
def test_log_prob_agrees_with_the_definition(channels: int, coupled: bool, bins: int) -> None:
    mixture = some_mixture(40, channels, 3, bins, coupled=coupled, dtype=torch.float64)
    rng = numpy_generator(0, "pixels")
    pixels = grid(bins)[rng.integers(0, bins, (40, channels))]
    pixels[:10], pixels[10:20] = -1, 1
    expected = [reference(mixture, row, pixel) for row, pixel in enumerate(pixels)]
    found = mixture.log_prob(torch.from_numpy(pixels)).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    in_float32 = mapped(mixture, Tensor.float).log_prob(torch.from_numpy(pixels).float()).double().exp().numpy()
    np.testing.assert_allclose(in_float32, expected, rtol=1e-3, atol=1e-7)


def test_log_prob_and_its_gradient_stay_finite_at_the_extremes() -> None:
    values = torch.from_numpy(grid(256)).float()[:, None]
    for mean, log_scale in EXTREMES:
        means = torch.full((256, 1, 1), mean, requires_grad=True)
        log_scales = torch.full((256, 1, 1), log_scale, requires_grad=True)
        log_p = LogisticMixture(torch.zeros(256, 1), means, log_scales).log_prob(values)
        log_p.sum().backward()
        assert log_p.isfinite().all() and (log_p <= 1e-6).all()
        assert means.grad is not None and means.grad.isfinite().all()
        assert log_scales.grad is not None and log_scales.grad.isfinite().all()


# ------------------------------------------------------------------------------------------------------ samples


def draw(mixture: LogisticMixture, count: int, seed: int = 0) -> np.ndarray:
    """Indices (count, C) on the grid of draws from a mixture of one row."""
    g = generator(seed, "draw")
    channels, mixtures = mixture.means.shape[-2:]
    u = torch.rand(count, mixtures + channels, generator=g).clamp(1e-7, 1 - 1e-7)

    rows = mapped(mixture, lambda t: t.float().expand(count, *t.shape[1:]))
    pixels = rows.sample(gumbel(u[:, :mixtures]), logistic(u[:, mixtures:])).double().numpy()
    index = np.rint((pixels + 1) / 2 * (mixture.bins - 1)).astype(int)
    np.testing.assert_allclose(pixels, grid(mixture.bins)[index], atol=1e-6)
    return index


def chi_square_excess(counts: np.ndarray, probabilities: np.ndarray) -> float:
    """How many standard deviations Pearson's statistic lies above its mean; rare values are pooled."""
    expected = probabilities * counts.sum()
    rare = expected < 8
    seen = np.append(counts[~rare], counts[rare].sum())
    wanted = np.append(expected[~rare], max(expected[rare].sum(), 1e-9))
    keep = wanted > 1
    assert seen[~keep].sum() <= 5
    statistic, freedom = ((seen - wanted)[keep] ** 2 / wanted[keep]).sum(), max(1, keep.sum() - 1)
    return (statistic - freedom) / math.sqrt(2 * freedom)


@pytest.mark.parametrize("bins", [2, 32, 256])
@pytest.mark.parametrize(("mean", "log_scale"), [(0.1, -3.0), (-0.97, -2.0), (1.4, -1.0), (0.0, 3.0), (0.3, -5.0)])
def test_histogram_of_one_logistic_matches_its_pmf(mean: float, log_scale: float, bins: int) -> None:
    mixture = one_logistic(mean, log_scale, bins, 1, torch.float64)
    counts = np.bincount(draw(mixture, 100_000)[:, 0], minlength=bins)
    expected = np.array([reference(mixture, 0, np.array([value])) for value in grid(bins)])
    assert chi_square_excess(counts, expected) < 5


@pytest.mark.parametrize("bins", [2, 8])
def test_histogram_of_coupled_channels_matches_their_joint_pmf(bins: int) -> None:
    mixture = some_mixture(1, 3, 4, bins, coupled=True, seed=3, dtype=torch.float64)
    index = draw(mixture, 200_000)
    counts = np.bincount(index @ [bins**2, bins, 1], minlength=bins**3)
    expected = np.array([reference(mixture, 0, np.array(v)) for v in itertools.product(grid(bins), repeat=3)])
    assert chi_square_excess(counts, expected) < 5


def test_the_histogram_test_notices_a_sampler_that_truncates() -> None:
    """Half a bin to the left, as when values are cut off instead of rounded."""
    mixture = one_logistic(0.1, -3.5, 256, 1, torch.float64)
    index = draw(one_logistic(0.1 - 1 / 255, -3.5, 256, 1, torch.float64), 100_000)
    expected = np.array([reference(mixture, 0, np.array([value])) for value in grid(256)])
    assert chi_square_excess(np.bincount(index[:, 0], minlength=256), expected) > 20


@pytest.mark.parametrize("bins", [2, 32, 256])
def test_every_level_comes_back_from_a_narrow_distribution_around_it(bins: int) -> None:
    levels = torch.from_numpy(grid(bins)).float()[:, None]
    narrow = LogisticMixture(torch.zeros(bins, 1), levels[:, None], torch.full((bins, 1, 1), -7.0), bins=bins)
    drawn = narrow.sample(torch.zeros(bins, 1), torch.zeros(bins, 1))
    np.testing.assert_array_equal(np.rint((drawn[:, 0].numpy() + 1) / 2 * (bins - 1)), np.arange(bins))
    assert (narrow.log_prob(drawn).exp() > 0.97).all()


def test_the_256_levels_are_those_of_pictures() -> None:
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    x = to_tensor(pixels).permute(1, 2, 0).reshape(256, 1)
    narrow = LogisticMixture(torch.zeros(256, 1), x[:, None], torch.full((256, 1, 1), -7.0))
    drawn = narrow.sample(torch.zeros(256, 1), torch.zeros(256, 1))
    np.testing.assert_array_equal(to_pixels(drawn.view(16, 16, 1).permute(2, 0, 1)), pixels)


@pytest.mark.parametrize(("channels", "coupled"), [(1, False), (3, True)])
def test_mean_of_narrow_distributions_is_the_expected_value(channels: int, coupled: bool) -> None:
    """As long as next to nothing reaches the tails; against the sum over all values of value times probability."""
    bins = 256 if channels == 1 else 24
    mixture = some_mixture(12, channels, 3, bins, coupled=coupled, dtype=torch.float64)
    couplings = None if mixture.couplings is None else 0.3 * mixture.couplings
    means, log_scales = 0.5 * torch.tanh(mixture.means), torch.full_like(mixture.log_scales, -3.0)
    narrow = LogisticMixture(mixture.logits, means, log_scales, couplings, bins)
    torch.testing.assert_close(narrow.mean(), pmf(narrow) @ every_pixel(narrow), rtol=0, atol=1e-4)


def test_mean_far_outside_is_the_nearest_value() -> None:
    for mean, nearest in ((-9.0, -1.0), (9.0, 1.0)):
        assert one_logistic(mean, -4.0, 256, 3, torch.float64).mean().tolist() == [[nearest] * 3]


# ---------------------------------------------------------------------------------------------------- Gaussians

PAIRS = [(0.0, 1.0, 0.0, 1.0), (0.7, 0.4, -0.2, 1.3), (-2.0, 2.5, 1.0, 0.6), (3.0, 1e-3, 3.001, 2e-3)]


def gaussian(mean: float, std: float, count: int = 1) -> Gaussian:
    return Gaussian(torch.full((count,), mean, dtype=torch.float64), torch.full((count,), std, dtype=torch.float64))


@pytest.mark.parametrize(("mean_q", "std_q", "mean_p", "std_p"), PAIRS)
def test_gaussian_log_prob_and_kl_agree_with_torch(mean_q: float, std_q: float, mean_p: float, std_p: float) -> None:
    q, p = gaussian(mean_q, std_q), gaussian(mean_p, std_p)
    z = mean_q + std_q * torch.linspace(-6, 6, 41, dtype=torch.float64)
    torch.testing.assert_close(q.log_prob(z), Normal(q.mean, q.std).log_prob(z), rtol=1e-12, atol=1e-12)
    expected = kl_divergence(Normal(q.mean, q.std), Normal(p.mean, p.std))
    torch.testing.assert_close(kl(q, p), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(("mean_q", "std_q", "mean_p", "std_p"), PAIRS)
def test_analytic_kl_is_the_average_of_log_ratios(mean_q: float, std_q: float, mean_p: float, std_p: float) -> None:
    count = 200_000
    q, p = gaussian(mean_q, std_q, count), gaussian(mean_p, std_p, count)
    z = q.sample(torch.randn(count, generator=generator(0, "kl"), dtype=torch.float64))
    ratio = q.log_prob(z) - p.log_prob(z)
    error = ratio.std().item() / math.sqrt(count)
    assert kl(q, p)[0].item() == pytest.approx(ratio.mean().item(), abs=4 * error + 1e-12)


def test_kl_is_zero_only_between_equals_and_not_symmetric() -> None:
    q, p = gaussian(0.3, 0.5), gaussian(0.0, 1.0)
    assert kl(q, q).item() == 0 and kl(q, p).item() > 0
    assert kl(q, p).item() != pytest.approx(kl(p, q).item())


def test_temperature_scales_the_deviation_of_gaussian_draws() -> None:
    noise = torch.randn(100_000, generator=generator(0, "draws"), dtype=torch.float64)
    wide = gaussian(0.7, 0.4, len(noise))
    for temperature in (1.0, 0.5, 0.0):
        z = wide.sample(noise, temperature)
        assert z.mean().item() == pytest.approx(0.7, abs=0.01)
        assert z.std().item() == pytest.approx(0.4 * temperature, rel=0.02)
