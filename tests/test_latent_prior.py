"""Autoregressive latent priors: densities that integrate to 1, draws that follow them, an analytic KL, causality."""

import itertools

import pytest
import torch
import torch.nn.functional as F
from autoregression import chi_square_fits, shake, uncached
from torch import Tensor

from manyfill.distributions import Gaussian, kl
from manyfill.models.latent_prior import AutoregressiveGaussian, AutoregressivePrior
from manyfill.rng import generator

HIDDEN = 6


def prior_of(size: int, latent: int, hole: Tensor | None = None, count: int = 1) -> AutoregressiveGaussian:
    """One that takes what was drawn before into account, of `count` equal pictures."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = AutoregressivePrior(size, latent, HIDDEN)
    shake(made, 0.3)
    g = generator(0, "prior")
    state = torch.randn(1, HIDDEN, size, size, generator=g)
    mean, raw = torch.randn(2, 1, latent, size, size, generator=g)
    with torch.no_grad():
        made.network.leave.weight.mul_(20)
    hole = torch.ones(1, 1, size, size) if hole is None else hole
    base = Gaussian(0.3 * mean, torch.exp(0.3 * raw))
    expanded = [t.expand(count, -1, -1, -1) for t in (base.mean, base.std, state, hole)]
    return made(Gaussian(expanded[0], expanded[1]), *expanded[2:])


def three_of_four() -> Tensor:
    """A hole whose positions are drawn in the order (0, 0), (0, 1), (1, 0)."""
    return torch.tensor([[1.0, 1], [1, 0]])[None, None]


def spread(values: Tensor) -> Tensor:
    """Maps (B, 1, 2, 2) with these values (B, 3) in the hole."""
    return F.pad(values, (0, 1)).view(-1, 1, 2, 2)


def test_the_density_integrates_to_1() -> None:
    """Summed over a grid of the hole's three values, fine enough for a smooth density."""
    line = torch.linspace(-7, 7, 45)
    z = torch.cartesian_prod(line, line, line)
    with torch.inference_mode():
        log_p = prior_of(2, 1, three_of_four(), count=len(z)).log_prob(spread(z)).flatten(1)[:, :3].sum(1)
    assert float(log_p.double().exp().sum() * (line[1] - line[0]) ** 3) == pytest.approx(1, abs=1e-3)


def test_draws_follow_the_density(one_thread: None) -> None:
    """How many of 100,000 draws lie in each of the eight cells that a cut of each value makes."""
    draws, at_once, cut = 100_000, 20_000, 0.3
    counts, hole = torch.zeros(8), three_of_four()
    p = prior_of(2, 1, hole, count=at_once)
    for portion in range(draws // at_once):
        with torch.inference_mode():
            z = p.sample(torch.randn(at_once, 1, 2, 2, generator=generator(portion, "draw")))
        counts += ((z.flatten(1)[:, :3] > cut).long() * torch.tensor([4, 2, 1])).sum(1).bincount(minlength=8)
    expected = draws * cells(hole, cut)
    assert expected.min() > 50 and chi_square_fits(counts, expected)
    assert not chi_square_fits(counts, expected.roll(1))


def cells(hole: Tensor, cut: float, points: int = 60) -> Tensor:
    """The probabilities of the eight cells: value after value, each side of the cut is divided into `points` equally
    likely parts, whose medians stand for them (the midpoint rule)."""
    normal, middles = torch.distributions.Normal(0.0, 1.0), (torch.arange(points)[:, None] + 0.5) / points
    z, weight = torch.zeros(1, 3), torch.ones(1, dtype=torch.float64)
    for position in range(3):
        with torch.inference_mode():
            found = prior_of(2, 1, hole, count=len(z)).given(spread(z))
        mean, std = found.mean.flatten(1)[:, position], found.std.flatten(1)[:, position]
        below = normal.cdf((cut - mean) / std)
        sides = [(below * middles, below), (below + (1 - below) * middles, 1 - below)]
        rows, weights = [], []
        for level, mass in sides:
            side = z.repeat(points, 1)
            side[:, position] = (mean + std * normal.icdf(level.clamp(1e-6, 1 - 1e-6))).flatten()
            rows.append(side)
            weights.append((weight * mass.double() / points).repeat(points))
        z, weight = torch.cat(rows), torch.cat(weights)
    cell = ((z > cut).long() * torch.tensor([4, 2, 1])).sum(1)
    return torch.zeros(8, dtype=torch.float64).index_add(0, cell, weight)


@pytest.mark.parametrize("size", [4, 8])
def test_the_noise_comes_back_from_a_draw(size: int, one_thread: None) -> None:
    """Each position is its mean given those before it, plus its deviation times its noise."""
    hole = torch.zeros(1, 1, size, size)
    hole[..., 1:, : size - 1] = 1
    p = prior_of(size, 2, hole, count=3)
    noise = torch.randn(3, 2, size, size, generator=generator(0, "noise"))
    with torch.inference_mode():
        z = p.sample(noise)
        found = p.given(z)
    inside = hole.expand_as(z) > 0
    torch.testing.assert_close(z[inside], (found.mean + found.std * noise)[inside], rtol=1e-5, atol=1e-6)
    assert not z[~inside].any()
    assert torch.equal(found.mean[~inside], p.mean[~inside])
    assert not torch.equal(found.mean[inside], p.mean[inside])


@pytest.mark.parametrize("size", [4, 16])
def test_the_cache_changes_no_bit_of_a_draw(size: int, one_thread: None) -> None:
    p = prior_of(size, 2, (torch.rand(1, 1, size, size, generator=generator(0, "hole")) < 0.7).float(), count=3)
    noise = torch.randn(3, 2, size, size, generator=generator(0, "noise"))
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        cached = p.sample(noise)
        patch.setattr("manyfill.models.causal.CausalNetwork.draw", uncached)
        assert torch.equal(p.sample(noise), cached)


def test_each_latent_sees_earlier_ones_and_no_others() -> None:
    hole = torch.ones(1, 1, 5, 5)
    hole[0, 0, 2, 2] = 0
    p = prior_of(5, 2, hole)
    z = torch.randn(1, 2, 5, 5, generator=generator(0, "z")).requires_grad_()
    found, stage = p.given(z), torch.arange(5) + 2 * torch.arange(5)[:, None]
    for row, column in itertools.product(range(5), repeat=2):
        (seen,) = torch.autograd.grad((found.mean + found.std)[0, :, row, column].sum(), z, retain_graph=True)
        if (row, column) == (2, 2):
            assert not seen.any()
            continue
        allowed = (stage < stage[row, column]) & (hole[0, 0] > 0)
        assert not seen[0][:, ~allowed].any()
        if column and (row, column - 1) != (2, 2):
            assert seen[0, :, row, column - 1].all()
        if row and (row - 1, column) != (2, 2):
            assert seen[0, :, row - 1, column].all()


def test_the_analytic_kl_is_that_of_log_ratios_with_less_variance() -> None:
    count = 5_000
    p = prior_of(3, 1, count=count)
    g = generator(0, "q")
    mean, raw = torch.randn(2, 1, 1, 3, 3, generator=g)
    q = Gaussian((0.5 * mean).expand(count, -1, -1, -1), torch.exp(0.3 * raw - 0.5).expand(count, -1, -1, -1))
    z = q.sample(torch.randn(count, 1, 3, 3, generator=g))
    with torch.inference_mode():
        analytic = kl(q, p.given(z)).flatten(1).sum(1)
        sampled = (q.log_prob(z) - p.log_prob(z)).flatten(1).sum(1)
    error = float((analytic - sampled).std()) / count**0.5
    assert float(analytic.mean()) == pytest.approx(float(sampled.mean()), abs=4 * error)
    assert (analytic > 0).all() and analytic.var() < 0.5 * sampled.var()


def test_temperature_0_takes_each_mean_given_those_before() -> None:
    p = prior_of(4, 2, count=2)
    noise = torch.randn(2, 2, 4, 4, generator=generator(0, "noise"))
    with torch.inference_mode():
        still = p.sample(noise, 0.0)
        torch.testing.assert_close(p.given(still).mean, still, rtol=1e-5, atol=1e-6)
        assert torch.equal(still[0], still[1]) and not torch.equal(p.sample(noise, 0.5), still)
