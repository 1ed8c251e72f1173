"""Noise without torch is torch's noise."""

import numpy as np
import pytest

from manyfill.rng import TorchDraws, TwisterDraws, key

SHAPES = [(0,), (1,), (7,), (8, 1, 1), (15,), (16,), (17,), (31,), (5, 7, 3), (4, 64, 64)]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("number", [0, 1, (1 << 32) + 1, (1 << 63) - 1, key(5, "level", 3)])
def test_the_twister_draws_what_torch_draws(shape: tuple[int, ...], number: int) -> None:
    ours, theirs = TwisterDraws(), TorchDraws()
    assert np.array_equal(ours.uniform(number, shape), theirs.uniform(number, shape))
    one, other = ours.normal(number, shape), theirs.normal(number, shape)
    assert one.dtype == other.dtype == np.float32
    np.testing.assert_allclose(one, other, rtol=0, atol=2e-6)


def test_keys_tell_draws_apart() -> None:
    draws = TwisterDraws()
    numbers = [draws.normal(key(seed, "level", i), (1000,)) for seed in range(3) for i in range(3)]
    assert np.abs(np.corrcoef(numbers) - np.eye(9)).max() < 0.15
    assert not np.array_equal(draws.uniform(1, (9,)), draws.uniform(2, (9,)))
