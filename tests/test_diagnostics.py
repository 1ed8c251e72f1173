import math
from types import SimpleNamespace
from typing import Any, cast

import pytest
import torch

from manyfill.diagnostics import LatentUse, Neighbours, expected, prior_misfit, spread, takes_of
from manyfill.distributions import Gaussian
from manyfill.rng import generator


class Toy:
    """Pictures that are the sum of their levels' latents; outside the hole a thousand times that."""

    stds = (0.1, 0.0, 0.02)

    def __init__(self, hole: torch.Tensor) -> None:
        self.config, self.temperatures = SimpleNamespace(levels=self.stds), torch.ones(len(self.stds))
        self.gain = torch.where(hole > 0, 1.0, 1000.0)

    def decode(self, known: Any, choose: Any, noise: list[torch.Generator]) -> Any:
        shape = (len(noise), 1, *self.gain.shape)
        priors = [Gaussian(torch.full(shape, 0.2), torch.full(shape, std)) for std in self.stds]
        total = torch.stack([choose(level, prior, None) for level, prior in enumerate(priors)]).sum(0)
        return SimpleNamespace(mean=torch.where(self.gain > 1, 0.0, total))


def test_spread_is_each_level_s_own_deviation_within_the_hole() -> None:
    hole = torch.zeros(64, 64)
    hole[16:48, 16:48] = 1
    known = SimpleNamespace(x=torch.zeros(2, 1, 64, 64), m=hole.expand(2, 1, 64, 64), repeat=lambda n: None)
    moved = spread(cast(Any, Toy(hole)), cast(Any, known), draws=8, seed=0)
    assert moved.shape == (3, 2)
    for level, std in enumerate(Toy.stds):
        assert moved[level].tolist() == pytest.approx([std * 127.5] * 2, rel=0.03, abs=1e-9)


def test_low_frequencies_are_averages_over_cells_of_the_hole() -> None:
    """The latents of the toy's pixels are independent, so averages over 4x4 of them deviate a quarter as much."""
    hole = torch.zeros(64, 64)
    hole[15:49, 16:48] = 1  # some cells lie partly outside
    known = SimpleNamespace(x=torch.zeros(1, 1, 64, 64), m=hole.expand(1, 1, 64, 64), repeat=lambda n: None)
    moved = spread(cast(Any, Toy(hole)), cast(Any, known), draws=32, seed=0, cell=4)
    inner = Toy.stds[0] * 127.5 / 4
    # Of the 34 rows 32 fill whole cells; of the other two, each average is over 4 pixels.
    wanted = math.sqrt((32 * inner**2 + 2 * 4 * inner**2) / 34)
    assert moved[0, 0].item() == pytest.approx(wanted, rel=0.05)


def test_levels_are_drawn_alone_or_kept_from_the_top() -> None:
    assert takes_of(3, alone=1) == ["mean", "own", "mean"]
    assert takes_of(3, kept=2) == ["kept", "kept", "own"]
    known = SimpleNamespace(x=torch.zeros(1, 1, 8, 8), m=torch.ones(1, 1, 8, 8), repeat=lambda n: None)
    toy = cast(Any, Toy(torch.ones(8, 8)))
    (kept,) = expected(toy, cast(Any, known), ["kept"] * 3, 3, 0)
    assert torch.equal(kept[0], kept[1]) and torch.equal(kept[0], kept[2]) and kept[0].std() > 0.05
    (some,) = expected(toy, cast(Any, known), takes_of(3, kept=1), 3, 0)
    assert (some - kept).abs().max() < 0.2, "the first level, by far the widest, stays as it was"
    assert not torch.equal(some[0], some[1])


def test_active_channels_are_those_that_cost_more_than_a_hundredth_of_a_nat() -> None:
    """KL(N(d, 1) || N(0, 1)) = d^2 / 2, in the hole's half of the cells; the misfit is sqrt(1 + d^2)."""
    use, mask = LatentUse([3, 1], torch.device("cpu")), torch.zeros(2, 1, 4, 4)
    mask[:, :, :2] = 1

    def step(shifts: list[float]) -> Any:
        shift = torch.where(mask > 0, torch.tensor(shifts).view(1, -1, 1, 1), 100.0)
        one = torch.ones_like(shift)
        return SimpleNamespace(prior=Gaussian(0 * one, one), posterior=Gaussian(shift, one), mask=mask)

    assert all(math.isnan(value) for name, value in use.figures().items() if name.startswith("misfit"))
    for _ in range(2):
        use.add([step([0.0, 0.13, 0.15]), step([1.0])])
    found = use.figures()
    assert found["active_01"] == 1 and found["active_02"] == 1
    assert found["misfit_01"] == pytest.approx(math.sqrt(1 + (0.13**2 + 0.15**2) / 3))
    assert found["misfit_02"] == pytest.approx(math.sqrt(2))


def test_misfit_is_the_factor_that_the_prior_s_deviation_lacks() -> None:
    """Posteriors whose draws are normal about the prior mean, 1.5 and 0.8 times as wide as the prior says."""
    factors = (1.5, 0.8)
    config = SimpleNamespace(levels=factors)

    def infer(seen: Any, noise: torch.Generator) -> Any:
        steps = []
        for factor in factors:
            prior = Gaussian(
                torch.randn(4, 3, 40, 40, generator=noise), torch.rand(4, 3, 40, 40, generator=noise) + 0.1
            )
            part = 0.6  # of the variance is the posterior's own, the rest how its mean scatters
            scatter = torch.randn(prior.mean.shape, generator=noise) * math.sqrt(1 - part)
            posterior = Gaussian(prior.mean + factor * prior.std * scatter, factor * prior.std * math.sqrt(part))
            mask = (torch.rand(4, 1, 40, 40, generator=noise) > 0.5).float()
            spoilt = Gaussian(torch.where(mask > 0, posterior.mean, 1e6), posterior.std)
            steps.append(SimpleNamespace(prior=prior, posterior=spoilt, mask=mask))
        return None, steps

    model = SimpleNamespace(config=config, infer=infer)
    pictures = [SimpleNamespace(x=torch.zeros(1))] * 3
    assert prior_misfit(cast(Any, model), cast(Any, pictures), 0).tolist() == pytest.approx(factors, rel=0.02)


@pytest.mark.parametrize("portion", [1, 7, 50])
def test_neighbours_are_those_of_all_rows_at_once(portion: int) -> None:
    noise = generator(0, "rows")
    rows, queries = torch.randn(50, 6, generator=noise), torch.randn(4, 6, generator=noise)
    found = Neighbours(queries, keep=3)
    for part in rows.split(portion):
        found.add(part)
    distances = (queries[:, None] - rows).square().mean(2)
    exact, order = distances.sort(1)
    torch.testing.assert_close(found.distances, exact[:, :3], rtol=1e-4, atol=1e-5)
    assert torch.equal(found.indices, order[:, :3])
