"""FID and KID: against torchmetrics, against answers known on paper, and by definition.

Shapes: N M pictures, D features.
"""

import itertools

import pytest
import torch
import torch.hub
from networks import normal
from torch import Tensor, nn
from torchmetrics.image.fid import FrechetInceptionDistance
from torchmetrics.image.kid import KernelInceptionDistance

from manyfill.errors import DataError
from manyfill.evaluate import perceptual
from manyfill.evaluate.perceptual import Moments, frechet_distance, kernel_distance
from manyfill.rng import generator

# ---------------------------------------------------------------------------------------------------------- FID


class Given(nn.Module):
    """The feature extractor of torchmetrics where the features are there already."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, x: Tensor) -> Tensor:
        return x


def with_moments(mean: Tensor, covariance: Tensor, count: int = 10) -> Moments:
    """The moments of a set of pictures that has exactly this mean (D,) and covariance (D, D)."""
    return Moments(count, count * mean, (count - 1) * covariance + count * torch.outer(mean, mean))


def some_covariance(width: int, seed: int) -> Tensor:
    root = normal(width, width, seed=seed)
    return root @ root.T


def test_moments_have_the_mean_and_covariance_of_the_features_in_float64() -> None:
    features = (normal(50, 6) * 3 + 5).float()
    moments = Moments.of(features)
    assert moments.count == 50 and moments.mean().dtype == torch.float64
    torch.testing.assert_close(moments.mean(), features.double().mean(0))
    torch.testing.assert_close(moments.covariance(), torch.cov(features.double().T))


def test_moments_of_parts_add_up_to_those_of_the_whole() -> None:
    features = normal(40, 5)
    joined = Moments.of(features[:0])
    for part in features.split([7, 1, 0, 32]):
        joined = joined + Moments.of(part)
    whole = Moments.of(features)
    assert joined.count == whole.count == 40
    torch.testing.assert_close(joined.mean(), whole.mean())
    torch.testing.assert_close(joined.covariance(), whole.covariance())


def test_frechet_distance_of_equal_moments_is_0() -> None:
    for features in (normal(200, 12), normal(5, 12), torch.ones(4, 12)):
        moments = Moments.of(features)
        assert 0 <= frechet_distance(moments, moments) < 1e-6


def test_frechet_distance_of_independent_features_is_a_sum_over_them() -> None:
    mean_a, mean_b, std_a, std_b = normal(4, 8)
    std_a, std_b = std_a.abs(), std_b.abs()
    a, b = with_moments(mean_a, (std_a**2).diag()), with_moments(mean_b, (std_b**2).diag(), count=17)
    expected = ((mean_a - mean_b) ** 2 + (std_a - std_b) ** 2).sum().item()
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_of_two_correlated_features_has_a_closed_form() -> None:
    """tr (A B)^(1/2) of 2x2 matrices is (tr A B + 2 (det A B)^(1/2))^(1/2)."""
    mean_a, mean_b = torch.tensor([0.0, 1.0]).double(), torch.tensor([2.0, 0.5]).double()
    cov_a, cov_b = torch.tensor([[2.0, 1.2], [1.2, 1.0]]).double(), torch.tensor([[1.0, -0.7], [-0.7, 3.0]]).double()
    product = cov_a @ cov_b
    root = (product.trace() + 2 * torch.linalg.det(product).sqrt()).sqrt()
    expected = (4.25 + cov_a.trace() + cov_b.trace() - 2 * root).item()
    a, b = with_moments(mean_a, cov_a), with_moments(mean_b, cov_b)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-9)


def test_frechet_distance_does_not_see_directions_that_nothing_varies_in() -> None:
    """Fewer pictures than features: turned into a space of 40 dimensions, three stay three."""
    turn = torch.linalg.qr(normal(40, 40)).Q[:3]
    a, b = normal(9, 3), normal(8, 3, seed=1) * 2 + 1
    flat = frechet_distance(Moments.of(a), Moments.of(b))
    assert frechet_distance(Moments.of(a @ turn), Moments.of(b @ turn)) == pytest.approx(flat, rel=1e-9)
    assert flat > 1


def test_frechet_distance_agrees_with_torchmetrics() -> None:
    a, b = normal(60, 10) @ some_covariance(10, 2) / 5, normal(45, 10, seed=1) + 0.3
    reference = FrechetInceptionDistance(feature=Given(10)).set_dtype(torch.float64)
    reference.update(a, real=True)
    reference.update(b, real=False)
    found = frechet_distance(Moments.of(a), Moments.of(b))
    assert found == pytest.approx(reference.compute().item(), rel=1e-9) and found > 1


# ---------------------------------------------------------------------------------------------------------- KID


@pytest.mark.parametrize(
    ("a", "b", "expected"),
    [
        # With one feature the kernel is (x y + 1)^3: within a 1, within b 27, across 1, 1, 8, 27.
        ([0, 1], [1, 2], 1 + 27 - 2 * 37 / 4),
        # Within a 1, 1, 27; across 1, 1, 8, 27, 27, 125.
        ([0, 1, 2], [1, 2], 29 / 3 + 27 - 2 * 189 / 6),
        # (-1 + 1)^3 = 0 within a, 1 within b and across.
        ([1, -1], [0, 0], 0 + 1 - 2 * 1),
    ],
)
def test_kernel_distance_worked_by_hand(a: list[int], b: list[int], expected: float) -> None:
    x, y = torch.tensor(a)[:, None], torch.tensor(b)[:, None]
    assert kernel_distance(x, y) == pytest.approx(expected, rel=1e-12)
    assert kernel_distance(y, x) == pytest.approx(expected, rel=1e-12)
    twice = torch.cat([x, x], 1), torch.cat([y, y], 1)  # the kernel divides by the number of features
    assert kernel_distance(*twice) == pytest.approx(expected, rel=1e-12)


def test_kernel_distance_is_unbiased() -> None:
    """Averaged over every way to draw 2 and 3 pictures from sets of 2, it is the distance of the sets themselves."""
    p, q = torch.tensor([[0.0, 1.0], [1.0, -2.0]]).double(), torch.tensor([[2.0, 0.5], [-1.0, 1.0]]).double()

    def mean_kernel(x: Tensor, y: Tensor) -> float:
        return ((x @ y.T / 2 + 1) ** 3).mean().item()

    expected = mean_kernel(p, p) + mean_kernel(q, q) - 2 * mean_kernel(p, q)
    draws = itertools.product(itertools.product(p, repeat=2), itertools.product(q, repeat=3))
    found = [kernel_distance(torch.stack(a), torch.stack(b)) for a, b in draws]
    assert len(found) == 32 and sum(found) / 32 == pytest.approx(expected, rel=1e-12)


@pytest.mark.filterwarnings("ignore:Metric `Kernel Inception Distance`:UserWarning")
def test_kernel_distance_agrees_with_torchmetrics(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = normal(60, 7), normal(60, 7, seed=1) + 0.3
    reference = KernelInceptionDistance(feature=Given(7), subsets=1, subset_size=60).set_dtype(torch.float64)
    reference.update(a, real=True)
    reference.update(b, real=False)
    expected = pytest.approx(reference.compute()[0].item(), rel=1e-9)
    assert kernel_distance(a, b) == expected
    monkeypatch.setattr(perceptual, "ROWS", 13)
    assert kernel_distance(a, b) == expected


def test_single_pictures_are_refused() -> None:
    one, two = normal(1, 3), normal(2, 3)
    for a, b in ((one, two), (two, one)):
        with pytest.raises(DataError, match="give two or more"):
            kernel_distance(a, b)
        with pytest.raises(DataError, match="give two or more"):
            frechet_distance(Moments.of(a), Moments.of(b))


def test_kid_of_paired_sets_leaves_the_pairs_out() -> None:
    """A fill and its truth agree in what is known; counted as pairs of independent pictures, that reads as nearness."""
    noise = generator(0, "pairs")
    shared = torch.randn(60, 8, generator=noise)
    a, b = (0.95 * shared + 0.31 * torch.randn(60, 8, generator=noise) for _ in range(2))
    kernel = ((a.double() @ b.double().T / 8 + 1) ** 3).fill_diagonal_(0).sum() / (60 * 59)
    inside = [((x.double() @ x.double().T / 8 + 1) ** 3).fill_diagonal_(0).sum() / (60 * 59) for x in (a, b)]
    assert kernel_distance(a, b, paired=True) == pytest.approx(float(sum(inside) - 2 * kernel), rel=1e-9)
    assert kernel_distance(a, b) < kernel_distance(a, b, paired=True) - 0.05
