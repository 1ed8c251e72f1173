import math

import pytest
import torch
from torch import Tensor

from manyfill.models.texture import CENTRE, TYPICAL, textures
from manyfill.rng import generator

SIZE = 32


def noise(deviation: float, axis: tuple[float, ...] = (1.0, 1.0, 1.0), seed: int = 0) -> Tensor:
    """White noise (1, 3, SIZE, SIZE) along one direction of colour."""
    drawn = torch.randn(1, 1, SIZE, SIZE, generator=generator(seed, "noise"))
    direction = torch.tensor(axis, dtype=torch.float32).view(1, 3, 1, 1)
    return deviation * drawn * direction / direction.norm()


def hole() -> Tensor:
    m = torch.zeros(1, 1, SIZE, SIZE)
    m[:, :, 8:24, 8:24] = 1
    return m


def at(picture: Tensor, m: Tensor) -> Tensor:
    return textures({SIZE: picture}, {SIZE: m})[SIZE] - CENTRE


def test_it_tells_the_deviation_of_noise_along_each_colour_axis() -> None:
    """What white noise adds to its bilinear half size has nearly all of its variance."""
    for row, axis in enumerate(((1.0, 1, 1), (1, 0, -1), (1, -2, 1))):
        told = at(noise(0.2, axis), hole())[0].mean((1, 2)).exp()
        assert 0.14 < float(told[row]) < 0.2
        assert all(float(value) < 0.01 for place, value in enumerate(told) if place != row)


def test_a_hole_is_as_rough_as_its_surroundings_side_by_side() -> None:
    """Smooth on the left, rough on the right: the hole's halves follow their sides."""
    picture = noise(0.3) * (torch.arange(SIZE) >= SIZE // 2)
    left, right = at(picture, hole())[0, 0, 8:24, 8:24].split(8, 1)
    assert float(left[:, :4].mean()) < float(right[:, -4:].mean()) - 1.5


def test_how_rough_the_guess_in_the_hole_is_has_no_say() -> None:
    picture, m = noise(0.1), hole()
    board = (torch.arange(SIZE)[:, None] + torch.arange(SIZE)) % 2 * 2.0 - 1  # nothing of it is left at half the size
    torch.testing.assert_close(at(picture + 5 * board * m, m), at(picture, m))


def test_where_nothing_is_known_it_is_typical() -> None:
    told = at(noise(0.5), torch.ones(1, 1, SIZE, SIZE))
    torch.testing.assert_close(told, torch.full_like(told, 0.5 * math.log(TYPICAL + 1e-5)), atol=1e-3, rtol=0)


def test_a_cell_known_in_part_counts_for_little() -> None:
    """A far corner known whole outweighs cells at hand that are nearly all missing."""
    picture = noise(0.5)
    picture[..., :16, :] = 0
    m = torch.full((1, 1, SIZE, SIZE), 0.9)
    m[..., :8, :] = 0
    assert float(at(picture, m)[0, 0, 12].mean()) < float(at(picture, torch.zeros_like(m))[0, 0, 20].mean()) - 1


@pytest.mark.parametrize("kind", ["noise", "flat"])
def test_it_is_finite_at_every_size_and_for_flat_pictures(kind: str) -> None:
    picture = torch.zeros(2, 3, 64, 64) if kind == "flat" else torch.rand(2, 3, 64, 64) * 2 - 1
    m = (torch.rand(2, 1, 64, 64) < 0.5).float()
    pool = torch.nn.functional.adaptive_avg_pool2d
    sizes = (1, 4, 8, 16, 32, 64)
    found = textures({s: pool(picture, s) for s in sizes}, {s: pool(m, s) for s in sizes})
    assert all(torch.isfinite(t).all() and t.shape == (2, 3, s, s) for s, t in found.items())
    assert not found[1].any()


def test_grey_pictures_have_one_texture() -> None:
    grey = noise(0.2)[:, :1]
    found = textures({SIZE: grey}, {SIZE: hole()})[SIZE] - CENTRE
    assert found.shape == grey.shape
    assert 0.08 < float(found.mean().exp()) < 0.2 / 3**0.5  # grey noise is a third of the lightness axis's variance
