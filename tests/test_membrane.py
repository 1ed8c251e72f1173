import numpy as np
import pytest

from manyfill.evaluate.fidelity import seam
from manyfill.membrane import BLOCK, bend

SIDE = 64


def square(side: int = 32) -> np.ndarray:
    hole = np.zeros((SIDE, SIDE), bool)
    first = (SIDE - side) // 2
    hole[first : first + side, first : first + side] = True
    return hole


def test_what_a_fill_is_off_by_in_a_flat_picture_is_taken_back() -> None:
    hole = square()
    image = np.where(hole, 140, 100)[..., None].astype(np.uint8)
    by = bend(image, hole, ~hole)
    assert by.shape == (SIDE, SIDE, 1)
    assert by[hole] == pytest.approx(-40, abs=1e-3)


def test_the_border_keeps_steps_as_large_as_those_beside_it() -> None:
    """Off by more than the picture's own steps, a fill is left with about these."""
    hole, rng, ratios = square(), np.random.default_rng(0), []
    for _ in range(8):
        joined = rng.normal(128, 6, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
        off = joined + np.uint8(25) * hole[..., None]
        bent = off + bend(off, hole, ~hole) * hole[..., None]
        assert seam(off, hole) > 2 * seam(joined, hole)
        ratios.append(seam(bent, hole) / seam(joined, hole))
    assert np.mean(ratios) == pytest.approx(1, abs=0.1)


def test_nothing_is_taken_back_where_the_picture_has_no_steps_to_go_by() -> None:
    """Known pixels one by one, none behind another."""
    hole = np.ones((SIDE, SIDE), bool)
    hole[8:-8:8, 8:-8:8] = False
    image = np.where(hole, 140, 100)[..., None].astype(np.uint8)
    assert (bend(image, hole, ~hole) == 0).all()


def test_a_fill_that_joins_is_left_as_it_is() -> None:
    image = np.full((SIDE, SIDE, 3), 90, np.uint8)
    assert (bend(image, square(), ~square()) == 0).all()


def test_no_membrane_without_a_known_pixel() -> None:
    image = np.random.default_rng(0).integers(0, 256, (SIDE, SIDE, 3), np.uint8)
    everything = np.ones((SIDE, SIDE), bool)
    assert (bend(image, everything, ~everything) == 0).all()


def test_only_known_pixels_count() -> None:
    """What lies to the right of the hole is missing too, of whatever colour it is for now."""
    hole, known = square(), ~square()
    known[:, 48:] = False
    image = np.full((SIDE, SIDE, 1), 90, np.uint8)
    image[:, 48:] = 255
    assert (bend(image, hole, known) == 0).all()


def test_every_side_of_the_hole_counts() -> None:
    """Each in its colour: turned, the membrane is the same but turned."""
    hole = square()
    image = np.full((SIDE, SIDE, 1), 100, np.uint8)
    image[:16] = 140
    by = bend(image, hole, ~hole)
    assert by[16:24][hole[16:24]].mean() > 5 * by[40:48][hole[40:48]].mean() > 0
    for turns in (1, 2, 3):
        turned = bend(np.rot90(image, turns), np.rot90(hole, turns), np.rot90(~hole, turns))
        np.testing.assert_allclose(turned, np.rot90(by, turns), atol=1e-4)


def test_between_two_sides_it_runs_straight() -> None:
    """Harmonic on a strip: linear from one border to the other."""
    hole = np.zeros((SIDE, SIDE), bool)
    hole[:, 16:48] = True
    image = np.full((SIDE, SIDE, 1), 100, np.uint8)
    image[:, 48:] = 180
    by = bend(image, hole, ~hole)[32, 16:48, 0] / 80
    assert np.abs(by - (np.arange(32) + 0.5) / 32).max() < 0.1


def test_it_fades_with_distance_the_sooner_the_finer_the_steps_alternate() -> None:
    hole, column = square(48), np.arange(SIDE)
    depths = []
    for period in (16 * BLOCK, 8 * BLOCK):
        image = np.full((SIDE, SIDE, 1), 100, np.uint8)
        image[:8] = 100 + np.where(column // (period // 2) % 2, 40, -40)[:, None]
        by = np.abs(bend(image, hole, ~hole)[..., 0])[:, 16:48]
        depths.append(by[24].mean() / by[8].mean())
    assert depths[1] < depths[0] < 0.5


def test_the_colours_of_single_pixels_are_no_steps() -> None:
    """Noise all over the picture: the border's steps are noise too, and nearly all of them stays."""
    image = np.random.default_rng(0).normal(128, 20, (SIDE, SIDE, 3)).clip(0, 255).astype(np.uint8)
    hole = square()
    bent = image.copy()
    bent[hole] = np.rint(image[hole] + bend(image, hole, ~hole)[hole]).clip(0, 255)
    assert seam(bent, hole) > 0.95 * seam(image, hole)


@pytest.mark.parametrize("side", [1, 2, 3, 4, 5, 33])
def test_any_size(side: int) -> None:
    hole = np.zeros((side, side), bool)
    hole[side // 2 :, side // 2 :] = True
    image = np.where(hole, 10, 50)[..., None].astype(np.uint8)
    by = bend(image, hole, ~hole)
    assert np.isfinite(by).all()
    # Up to a side of 3 pixels no known one lies behind another.
    assert by[hole] == pytest.approx(0 if side < 4 else 40, abs=1e-3)
