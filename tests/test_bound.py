"""The bounds, on a hierarchy whose exact log-likelihood is known on paper, walked by the real traversal.

A linear-Gaussian toy over N positions: z1 ~ N(0, S1^2), one for all; z2_i ~ N(a_i z1, S2^2); x_i ~ N(b_i z2_i, SX^2).
So x ~ N(0, S1^2 g g' + diag(v)) with g_i = a_i b_i and v_i = b_i^2 S2^2 + SX^2, and both exact posteriors are normal:
z1 | x, and z2_i | z1, x_i. The hole is a part of the N positions; x_H is normal with the submatrix of H.

Shapes: R replicates of one picture, N = 9 positions as (R, 1, 3, 3) maps, K samples.
"""

import itertools
import math
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.distributions import MultivariateNormal, Normal

from manyfill.distributions import Gaussian
from manyfill.models.bound import Bound, bits_per_dim, importance_bound, level_kl, log_weight, nested_losses
from manyfill.models.config import PRESETS, LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.latent_prior import IndependentPrior
from manyfill.models.topdown import Evidence, LatentBlock, Step, TopDown
from manyfill.rng import generator

SIDE = 3
N = SIDE * SIDE
S1, S2, SX = 1.3, 0.7, 0.5


def maps(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64).view(1, 1, SIDE, SIDE)


A = maps(-1.0, -0.7, -0.4, 0.2, 0.5, 0.8, 1.0, 1.2, 1.5)
B = maps(1.2, 1.1, 1.0, -0.9, 0.8, 0.7, 0.6, -0.5, 0.4)
G, V = A * B, B**2 * S2**2 + SX**2
X = maps(0.5, -1.0, 0.3, 2.0, -0.2, 0.0, 0.9, -1.7, 1.1)
WHOLE, PART = maps(*[1.0] * N), maps(1, 0, 1, 1, 1, 0, 0, 1, 1)
HOLES = pytest.mark.parametrize("hole", [WHOLE, PART], ids=["whole", "part"])


class Level(LatentBlock):
    """A latent block without parameters; `shift` and `stretch`, in its own deviations, spoil the posterior."""

    def __init__(self, hole: Tensor, shift: float, stretch: float) -> None:
        nn.Module.__init__(self)
        self.hole, self.shift, self.stretch = hole, shift, stretch
        self.prepare, self.state = nn.Sequential(), nn.Identity()  # type: ignore[assignment]
        self.chain = IndependentPrior()

    def spoilt(self, mean: Tensor, precision: Tensor) -> Gaussian:
        std = precision.rsqrt().expand_as(mean)
        return Gaussian(mean + self.shift * std, self.stretch * std)


class Coarse(Level):
    """z1 (R, 1, 1, 1); its feature map is the picture as a vector (R, N, 1, 1)."""

    def prior(self, state: Tensor) -> Gaussian:
        return Gaussian(torch.zeros_like(state), torch.full_like(state, S1))

    def posterior(self, _state: Tensor, recalled: Tensor, _error: Tensor, _prior: Gaussian) -> Gaussian:
        x = recalled.view(-1, 1, SIDE, SIDE)
        precision = 1 / S1**2 + (self.hole * G**2 / V).sum()
        return self.spoilt((self.hole * G * x / V).sum((2, 3), keepdim=True) / precision, precision)

    def feed(self, _h: Tensor, z: Tensor) -> Tensor:
        return z


class Fine(Level):
    """z2 (R, 1, 3, 3) given z1, which is the state; the state after it is the mean of x."""

    def prior(self, state: Tensor) -> Gaussian:
        return Gaussian(A * state, torch.full_like(state, S2))

    def posterior(self, state: Tensor, recalled: Tensor, _error: Tensor, _prior: Gaussian) -> Gaussian:
        precision = 1 / S2**2 + B**2 / SX**2
        return self.spoilt((A * state / S2**2 + B * recalled / SX**2) / precision, precision)

    def feed(self, _h: Tensor, z: Tensor) -> Tensor:
        return B * z


class NoBorder(nn.Module):
    def forward(self, h: Tensor, _recalled: Tensor, _canvas: Tensor) -> Tensor:
        return h


def toy(hole: Tensor, shift: float = 0.0, stretch: float = 1.0) -> TopDown:
    """The real traversal over the toy's two levels."""
    sizes = (SIDE, 1)
    walk = TopDown(
        ModelConfig(
            size=SIDE,
            channels=1,
            stages=tuple(StageSpec(size=size, width=1) for size in sizes),
            levels=tuple(LevelSpec(size=size, width=1, latent=1) for size in reversed(sizes)),
            canvas=False,
        )
    ).double()
    walk.blocks = nn.ModuleList([Coarse(hole, shift, stretch), Fine(hole, shift, stretch)])
    walk.ups = nn.ModuleDict({str(SIDE): nn.Upsample(scale_factor=SIDE)})
    walk.borders = nn.ModuleDict({str(size): NoBorder() for size in sizes})
    return walk


Draw = Callable[[int], tuple[Tensor, list[Step]]]


def posterior_draws(walk: TopDown, hole: Tensor, replicates: int, x: Tensor = X, purpose: str = "toy") -> Draw:
    """`draw(k)`: the k-th traversal of R replicates of x with the posterior, as `ConditionalHVAE.infer` gives it."""
    whole = x.expand(replicates, 1, SIDE, SIDE)
    blank = {size: torch.zeros(replicates, 1, size, size, dtype=x.dtype) for size in (1, SIDE)}
    known = Evidence(blank, blank)
    full = Evidence({0: whole.reshape(replicates, N, 1, 1), 1: whole}, blank)
    masks = {1: torch.ones_like(blank[1]), SIDE: hole.expand_as(whole)}

    def draw(k: int) -> tuple[Tensor, list[Step]]:
        noise = generator(0, purpose, k)

        def choose(_level: int, _prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            assert posterior is not None
            return posterior.sample(torch.randn(posterior.mean.shape, generator=noise, dtype=torch.float64))

        h, _, steps = walk(known, full, masks, choose)
        log_p = Gaussian(h, torch.full_like(h, SX)).log_prob(whole) * hole
        return log_p.flatten(1).sum(1), steps

    return draw


def exact(hole: Tensor, x: Tensor = X) -> float:
    """log p(x_H), from the covariance matrix of x_H."""
    where = hole.flatten().bool()
    g = G.flatten()[where]
    covariance = S1**2 * torch.outer(g, g) + torch.diag(V.flatten()[where])
    return MultivariateNormal(torch.zeros_like(g), covariance).log_prob(x.flatten()[where]).item()


def bounds(draw: Draw, hole: Tensor, k: int = 0) -> Tensor:
    """Single-sample bounds (R,), with the analytic KL."""
    pixels, steps = draw(k)
    dims = hole.sum().expand(len(pixels))
    return Bound(pixels, level_kl(steps), dims, nested=torch.zeros(len(pixels), 0)).total


def k_sample(draw: Draw, samples: int) -> Tensor:
    return importance_bound(torch.stack([log_weight(*draw(k)) for k in range(samples)]))


def average(values: Tensor) -> tuple[float, float]:
    """Mean and its standard error."""
    return values.mean().item(), values.std().item() / math.sqrt(len(values))


# ------------------------------------------------------------------------------------------------------ the toy


@HOLES
def test_with_the_exact_posterior_every_importance_weight_is_the_likelihood(hole: Tensor) -> None:
    draw = posterior_draws(toy(hole), hole, 50)
    expected = torch.full((50,), exact(hole), dtype=torch.float64)
    torch.testing.assert_close(log_weight(*draw(0)), expected, rtol=0, atol=1e-9)
    torch.testing.assert_close(k_sample(draw, 5), expected, rtol=0, atol=1e-9)


@HOLES
def test_with_the_exact_posterior_the_bound_is_the_likelihood(hole: Tensor) -> None:
    mean, error = average(bounds(posterior_draws(toy(hole), hole, 20_000), hole))
    assert 0 < error < 0.02
    assert mean == pytest.approx(exact(hole), abs=4 * error)


@HOLES
@pytest.mark.parametrize(("shift", "stretch"), [(0.5, 1.0), (0.0, 1.4), (-0.4, 0.7)])
def test_with_a_wrong_posterior_the_bound_is_below_by_just_its_divergence(
    hole: Tensor, shift: float, stretch: float
) -> None:
    mean, error = average(bounds(posterior_draws(toy(hole, shift, stretch), hole, 20_000), hole))
    # Of each latent: KL(N(shift, stretch^2) || N(0, 1)), in the exact posterior's units.
    each = 0.5 * (stretch**2 + shift**2 - 1) - math.log(stretch)
    gap = (1 + hole.sum().item()) * each
    assert mean < exact(hole) - 4 * error
    assert mean == pytest.approx(exact(hole) - gap, abs=4 * error)


@HOLES
def test_more_importance_samples_close_on_the_likelihood_from_below(hole: Tensor) -> None:
    replicates = 2000
    draw = posterior_draws(toy(hole, shift=0.3, stretch=1.2), hole, replicates)
    means, errors = zip(*(average(k_sample(draw, k)) for k in (1, 3, 9, 27)), strict=True)
    steps = [later - earlier for earlier, later in itertools.pairwise(means)]
    assert all(step > 2 * error for step, error in zip(steps, errors, strict=False)), (means, errors)
    assert all(mean < exact(hole) + 4 * error for mean, error in zip(means, errors, strict=True))
    pooled = log_weight(*posterior_draws(toy(hole, 0.3, 1.2), hole, 100_000, purpose="many")(0))
    ratios = (pooled - exact(hole)).exp()
    mean, error = average(ratios)
    assert error < 0.01 and mean == pytest.approx(1, abs=4 * error)


@HOLES
def test_the_k_sample_bound_is_the_likelihood_within_its_standard_error(hole: Tensor) -> None:
    mean, error = average(k_sample(posterior_draws(toy(hole, 0.3, 1.2), hole, 200), 300))
    assert error < 0.01
    assert mean == pytest.approx(exact(hole), abs=3 * error)


@pytest.mark.parametrize("samples", [1, 7, 150])
def test_the_k_sample_bound_is_the_mean_of_exactly_k_weights(samples: int) -> None:
    draw = posterior_draws(toy(WHOLE, 0.3, 1.2), WHOLE, 3)
    weights = torch.stack([log_weight(*draw(k)) for k in range(samples)])
    torch.testing.assert_close(importance_bound(weights), weights.exp().mean(0).log())


@HOLES
def test_one_importance_sample_is_the_bound_on_average(hole: Tensor) -> None:
    draw = posterior_draws(toy(hole, 0.3, 1.2), hole, 20_000)
    mean, error = average(k_sample(draw, 1) - bounds(draw, hole))
    assert error > 0 and mean == pytest.approx(0, abs=4 * error)


def test_positions_outside_the_hole_count_for_nothing() -> None:
    """Neither their pixels nor what prior and posterior say about their latents."""
    elsewhere = torch.where(PART > 0, X, 7.0)
    here, there = (posterior_draws(toy(PART, 0.3, 1.2), PART, 10, x)(0) for x in (X, elsewhere))
    assert torch.equal(log_weight(*here), log_weight(*there))
    assert torch.equal(level_kl(here[1]), level_kl(there[1]))
    step = here[1][1]
    absurd = Gaussian(torch.where(PART > 0, step.prior.mean, 1e6), step.prior.std)
    spoilt = [here[1][0], replace(step, prior=absurd)]
    assert torch.equal(level_kl(spoilt), level_kl(here[1]))
    assert torch.equal(log_weight(here[0], spoilt), log_weight(*here))


# ----------------------------------------------------------------------------------------- nested bounds, units


def test_nested_losses_are_negative_bounds_of_the_pooled_pictures() -> None:
    """Levels of sizes 1, 2, 2, 4: two hierarchies are cut short, after the first level and after the third."""
    g, sizes, deviation = generator(0, "nested"), (1, 2, 2, 4), 0.1

    def normal(size: int, channels: int = 2) -> Tensor:
        return torch.randn(3, channels, size, size, generator=g)

    pictures = {size: normal(size) for size in sizes}
    masks = {size: (normal(size, 1) > -0.5).float() for size in sizes}
    for mask in masks.values():
        mask[0], mask[1] = 0, 1
    steps = [
        Step(
            Gaussian(normal(size), normal(size).exp()),
            Gaussian(normal(size), normal(size).exp()),
            normal(size),
            masks[size],
            normal(size),
        )
        for size in sizes
    ]
    found, kl = nested_losses(pictures, steps, deviation), level_kl(steps)
    assert found.shape == (3, 2) and not found[0].any()
    for column, (size, last) in enumerate([(1, 0), (2, 2)]):
        density, mask = Normal(steps[last].canvas, deviation), masks[size][1:]
        nats = density.log_prob(steps[last].canvas) - density.log_prob(pictures[size])
        code = (nats[1:] * mask).sum((1, 2, 3)) + kl[1:, : last + 1].sum(1)
        torch.testing.assert_close(found[1:, column], code / (2 * mask.sum((1, 2, 3))).clamp(min=1))


def test_bits_per_dim_of_a_uniform_code_is_the_number_of_its_bits() -> None:
    assert bits_per_dim(12 * math.log(256), 12.0) == pytest.approx(8)
    nats, dims = torch.tensor([3.0, 300.0]) * math.log(2), torch.tensor([3.0, 100.0])
    torch.testing.assert_close(bits_per_dim(nats, dims), torch.tensor([1.0, 3.0]))


def test_bound_adds_up_per_picture() -> None:
    kl = torch.tensor([[1.0, 2.0], [3.0, 0.5]])
    bound = Bound(torch.tensor([-10.0, -20.0]), kl, torch.tensor([4.0, 4.0]), nested=torch.ones(2, 1))
    assert bound.total.tolist() == [-13.0, -23.5]


def test_importance_bound_of_a_model_is_per_picture_and_0_without_a_hole() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = ConditionalHVAE(PRESETS["tiny32"]).eval()
    x = torch.rand(2, 3, 32, 32, generator=generator(0, "x")) * 2 - 1
    m = torch.zeros(2, 1, 32, 32)
    m[1, :, 8:24, 8:24] = 1
    with torch.inference_mode():
        seen = model.encode(x, m)
        found = k_sample(lambda k: model.infer(seen, generator(0, "model", k)), 3)
        single = model(x, m, noise=generator(0, "model", 0)).total
    assert found.shape == (2,) and found[0] == 0 and single[0] == 0
    assert found[1].item() == pytest.approx(single[1].item(), rel=0.05) and found[1] < 0
