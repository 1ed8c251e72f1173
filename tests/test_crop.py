"""The square around a hole: how wide it is, and what shrinking and enlarging it keeps."""

import numpy as np
import pytest
from untrained import SIZE, box_mask, noise_picture

from manyfill import Filler, crop
from manyfill.crop import Box, enlarge, paste, shrink, surround
from manyfill.masks import draw


def test_the_box_holds_the_hole_and_stays_inside_where_it_fits() -> None:
    rng = np.random.default_rng(0)
    for _ in range(300):
        height, width = rng.integers(1, 200, 2)
        top, left = rng.integers(height), rng.integers(width)
        mask = box_mask(height, width, top, left, rng.integers(top, height) + 1, rng.integers(left, width) + 1)
        box = surround(mask, SIZE)
        rows, columns = box.inside(height, width)
        assert mask[rows, columns].sum() == mask.sum()
        assert box.side >= SIZE and box.cut(mask).shape == (box.side, box.side)
        for start, length in ((box.top, height), (box.left, width)):
            assert 0 <= start <= length - box.side if box.side <= length else start <= 0 and start + box.side >= length


def test_the_context_is_as_wide_as_the_hole() -> None:
    assert surround(box_mask(300, 400, 100, 100, 150, 160), SIZE) == Box(65, 70, 120)
    assert surround(box_mask(32, 32, 8, 8, 24, 24), SIZE) == Box(0, 0, 32)
    assert surround(box_mask(400, 100, 150, 10, 250, 90), SIZE).side == 200  # too tall for the inside: goes beyond


def test_a_picture_of_the_models_size_is_never_resampled(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(crop, "_resample", None)
    picture, mask = noise_picture(SIZE, SIZE), draw("brush", SIZE, SIZE, np.random.default_rng(0))
    assert filler(picture, mask, n=1).crop == Box(0, 0, SIZE)
    strip = filler(picture[:9], np.ones((9, SIZE), bool), n=1)
    assert strip.crop == Box(-12, 0, SIZE)


@pytest.mark.parametrize("side", [33, 40, 64, 77, 150])
def test_shrinking_never_lets_the_hole_bleed(side: int) -> None:
    hole = draw("scratches", side, side, np.random.default_rng(side))
    pixels = np.where(hole[..., None], noise_picture(side, side), np.uint8(93))
    small, small_hole = shrink(pixels, hole, SIZE)
    assert (small[~small_hole] == 93).all() and (~small_hole).any()
    # Missing exactly where a cell has a missing pixel, told by each pixel's centre.
    cells = np.ceil((np.arange(side) + 0.5) * SIZE / side).astype(int) - 1
    expected = np.zeros((SIZE, SIZE), bool)
    rows, columns = hole.nonzero()
    expected[cells[rows], cells[columns]] = True
    assert np.array_equal(small_hole, expected)


def test_shrinking_and_enlarging_keep_a_smooth_picture() -> None:
    ramp = np.linspace(20, 230, 96)
    pixels = np.repeat((ramp[:, None] * 0.6 + ramp[None] * 0.4)[..., None], 3, 2).round().astype(np.uint8)
    hole = box_mask(96, 96, 30, 30, 60, 60)
    small, _ = shrink(pixels, np.zeros_like(hole), SIZE)
    back = np.where(hole[..., None], np.uint8(0), pixels)
    paste(back, hole, Box(0, 0, 96), enlarge(small, 96))
    assert np.abs(back.astype(int) - pixels).max() <= 2
