"""The closed-form expectation: what it says must be the Gaussian's conditional mean, worked out by hand elsewhere."""

import numpy as np
import pytest
import torch
from torch import Tensor

from manyfill.data.loader import tile
from manyfill.images import to_tensor
from manyfill.masks import draw
from manyfill.models.expectation import Expectation, untaught_spectrum
from manyfill.rng import generator, numpy_generator


def pictures(count: int, size: int, channels: int = 3) -> Tensor:
    noise = torch.randn(count, channels, size, size, generator=generator(0, "pictures"))
    return (0.3 * noise.cumsum(2).cumsum(3) / size).clamp(-1, 1)


def holes(count: int, size: int, share: float = 0.5) -> Tensor:
    return (torch.rand(count, 1, size, size, generator=generator(0, "holes")) < share).float()


def no_guide(x: Tensor) -> tuple[Tensor, Tensor]:
    return torch.zeros_like(x), torch.zeros(len(x))


def dense_conditional_mean(model: Expectation, x: Tensor, m: Tensor, spectrum: Tensor) -> np.ndarray:
    """Of one picture (C, S, S), from the covariance of all its values written out, in float64."""
    channels, size, _ = x.shape
    cosines, axes = model.cosines.double().numpy(), model.axes.double().numpy()
    waves = np.einsum("ac,ki,lj->aklcij", axes, cosines, cosines).reshape(-1, channels * size**2)
    covariance = waves.T @ np.diag(spectrum.double().numpy().ravel()) @ waves
    mean = waves.T @ np.einsum("ki,aij,lj->akl", cosines, model.mean.double().numpy(), cosines).ravel()
    hole = m.bool().expand_as(x).numpy().ravel()
    known = ~hole
    weights = np.linalg.solve(covariance[np.ix_(known, known)], x.double().numpy().ravel()[known] - mean[known])
    whole = x.double().numpy().ravel().copy()
    whole[hole] = np.clip(mean[hole] + covariance[np.ix_(hole, known)] @ weights, -1, 1)
    return whole.reshape(channels, size, size)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_it_is_the_conditional_mean_of_the_gaussian(channels: int, share: float) -> None:
    model, x, m = Expectation(channels, 8), pictures(4, 8, channels), holes(4, 8, share)
    model.fit(pictures(50, 8, channels))
    found = model(x * (1 - m), m, *no_guide(x))
    for picture, mask, whole in zip(x, m, found, strict=True):
        np.testing.assert_allclose(
            whole.numpy(), dense_conditional_mean(model, picture, mask, model.spectrum), atol=2e-3
        )


def striped(count: int, along: int, index: int) -> Tensor:
    """Pictures (count, 3, 16, 16) that hardly vary along one direction: 0 across, 1 down."""
    model, steps = Expectation(3, 16), torch.arange(16.0) ** 2
    spectrum = 0.03 / (1 + 0.2 * steps[:, None] + 20 * steps)
    weights = torch.randn(count, 3, 16, 16, generator=generator(index, "stripes", along))
    weights = weights * (spectrum.T if along else spectrum).sqrt()
    return torch.einsum("ac,bahw->bchw", model.axes, model.cosines.T @ weights @ model.cosines)


def test_known_pixels_come_back_bit_for_bit_and_the_hole_is_not_read() -> None:
    model, x, m = Expectation(3, 8), pictures(4, 8), holes(4, 8)
    found = model(x, m, *no_guide(x))
    assert torch.equal(torch.where(m > 0, 0, found), x * (1 - m))
    assert torch.equal(model(torch.where(m > 0, 9.0, x), m, *no_guide(x)), found)


def test_a_picture_does_not_depend_on_its_batch() -> None:
    model, x, m = Expectation(3, 8), pictures(5, 8), holes(5, 8)
    alone = torch.cat([model(x[i : i + 1], m[i : i + 1], *no_guide(x[:1])) for i in range(5)])
    torch.testing.assert_close(model(x, m, *no_guide(x)), alone, atol=1e-5, rtol=0)


def test_without_known_pixels_it_is_the_mean_picture_or_the_guide() -> None:
    model, everything = Expectation(3, 8), torch.ones(2, 1, 8, 8)
    model.fit(pictures(50, 8) * 0.3 + 0.2)
    x, guide = torch.zeros(2, 3, 8, 8), pictures(2, 8)
    found = model(x, everything, guide, torch.tensor([0.0, 1.0]))
    mean = torch.einsum("ac,ahw->chw", model.axes, model.mean)
    torch.testing.assert_close(found[0], mean)
    torch.testing.assert_close(found[1], guide[1])


def test_a_guide_that_agrees_with_the_known_pixels_is_taken_as_it_is() -> None:
    model, x, m = Expectation(3, 8), pictures(3, 8), holes(3, 8)
    torch.testing.assert_close(model(x * (1 - m), m, x, torch.ones(3)), x, atol=1e-5, rtol=0)


def test_a_guide_that_is_too_bright_is_brought_to_the_known_pixels() -> None:
    """By an offset that all known pixels share, the spectrum's largest term."""
    size = 16
    model, x = Expectation(3, size), pictures(3, size) * 0.5
    m = torch.zeros(3, 1, size, size)
    m[:, :, 6:10, 6:10] = 1
    found = model(x * (1 - m), m, x + 0.2, torch.ones(3))
    assert float(((found - x).abs() * m).sum() / (3 * m.sum())) < 0.02


def test_it_finds_the_spectrum_and_the_mean_that_pictures_were_drawn_from() -> None:
    model, size, count = Expectation(3, 8), 8, 4000
    true = 0.003 * untaught_spectrum(3, size).flip(0)  # other colours than it starts out assuming
    weights = torch.randn(count, 3, size, size, generator=generator(0, "weights")) * true.sqrt()
    drawn = torch.einsum("ac,bahw->bchw", model.axes, model.cosines.T @ weights @ model.cosines) + 0.1
    model.fit(drawn)
    # Mirror images average the mean over left and right; a hundred assumed pictures pull at both a little.
    symmetric = (drawn + drawn.flip(-1)).mean(0) / 2
    mean = torch.einsum("ac,ahw->chw", model.axes, model.mean)
    torch.testing.assert_close(mean, symmetric * 2 * count / (2 * count + 100), atol=1e-4, rtol=0)
    assumed = untaught_spectrum(3, size) * 100 / (2 * count + 100)
    torch.testing.assert_close(model.spectrum - assumed, true, rtol=0.2, atol=5e-4)


@pytest.mark.parametrize("kind", ["brush", "scratches", "pixels"])
def test_untaught_it_interpolates_photographs_better_than_their_mean_colour(kind: str) -> None:
    skimage = pytest.importorskip("skimage.data")
    names = ("astronaut", "chelsea", "coffee")
    photos = torch.stack([to_tensor(tile(getattr(skimage, name)(), 64, None)) for name in names])
    m = torch.from_numpy(draw(kind, 64, 64, numpy_generator(0, "hole"))).float().expand(3, 1, 64, 64)
    found = Expectation(3, 64)(photos * (1 - m), m, *no_guide(photos))
    colour = (photos * (1 - m)).sum((2, 3), keepdim=True) / (1 - m).sum((2, 3), keepdim=True)

    def error(guess: Tensor) -> float:
        return float(((guess - photos).abs() * m).mean())

    assert error(found) < 0.6 * error(colour)


def test_it_tells_kinds_of_picture_apart_and_expects_more_rightly_for_it() -> None:
    seen = torch.stack([striped(200, 0, 0), striped(200, 1, 0)], 1).flatten(0, 1)
    new = torch.cat([striped(20, 0, 1), striped(20, 1, 1)])
    m = torch.zeros(40, 1, 16, 16)
    m[:, :, 4:12, 4:12] = 1
    error = {}
    for kinds in (0, 2):
        model = Expectation(3, 16, kinds)
        model.fit(seen)
        found = model(new * (1 - m), m, *no_guide(new))
        error[kinds] = float(((found - new) * m).square().mean())
    assert error[2] < 0.6 * error[0]
    # What it expects is the conditional mean of the right kind's Gaussian.
    assert model.kinds is not None
    varies_down = model.kinds[:, 0, 3, 0] > model.kinds[:, 0, 0, 3]
    assert sorted(varies_down.tolist()) == [False, True]
    for picture, mask, whole, down in zip(new[::10], m[::10], found[::10], (False, False, True, True), strict=True):
        spectrum = model.kinds[int((varies_down == (not down)).nonzero())]
        exact = dense_conditional_mean(model, picture, mask, spectrum)
        assert np.abs(whole.numpy() - exact).mean() < 0.1 * np.abs(exact - picture.numpy()).mean() + 2e-3


def test_kinds_do_not_depend_on_the_batch_nor_need_known_pixels() -> None:
    model = Expectation(3, 16, 3)
    model.fit(striped(40, 0, 0))
    x, m = striped(4, 1, 1), holes(4, 16)
    m[0] = 1
    found = model.eval()(x, m, *no_guide(x))
    alone = torch.cat([model(x[i : i + 1], m[i : i + 1], *no_guide(x[:1])) for i in range(4)])
    solved = model.train()(x, m, *no_guide(x))  # for all, known pixels or not
    for same in (alone, solved):
        torch.testing.assert_close(found, same, atol=8e-4, rtol=0)  # a tenth of a grey level
    assert torch.equal(found[0], solved[0])
    torch.testing.assert_close(found[0], torch.einsum("ac,ahw->chw", model.axes, model.mean))
