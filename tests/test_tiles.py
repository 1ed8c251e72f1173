"""What a sample is cut from its picture: the tile, its flip, its channels, its guide."""

from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import patches, png, write_folder
from skimage import data as samples_of_skimage
from streams import SIZE

from manyfill import images
from manyfill.data import (
    StreamConfig,
    TrainingSamples,
    collate,
    fixed_batches,
    open_source,
)
from manyfill.data.loader import coarse_guide, tile, with_channels


def test_guide_of_a_smooth_picture_is_that_picture() -> None:
    ramp = np.repeat(np.arange(0, 240, 8, dtype=np.uint8)[None], 30, axis=0)[:, :, None]
    assert np.abs(coarse_guide(ramp, 2).astype(int) - ramp)[:, 4:-4].max() <= 1
    flat = np.full((9, 9, 3), 77, np.uint8)
    assert np.array_equal(coarse_guide(flat, 4), flat)


def test_tile_of_the_right_size_is_the_whole_picture_and_a_large_one_is_zoomed_into() -> None:
    exact = patches(1, SIZE, SIZE)[0]
    assert np.array_equal(tile(exact, SIZE, np.random.default_rng(0)), exact)
    # In a ramp from left to right the difference of neighbours tells the side of the tile.
    ramp = np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None], 200, axis=0)[:, :, None]
    tiles = [tile(ramp, SIZE, np.random.default_rng(seed)) for seed in range(200)]
    assert all(t.shape == (SIZE, SIZE, 1) for t in tiles)
    sides = np.array([(float(t[8, 12, 0]) - float(t[8, 4, 0])) * SIZE / 8 for t in tiles])
    assert sides.min() < 1.5 * SIZE and 150 < sides.max() < 215
    assert abs(np.median(sides) - np.sqrt(SIZE * 200)) < 15  # log-uniform
    assert np.ptp([t[8, 0, 0] for t in tiles]) > 150


@pytest.mark.parametrize("shape", [(5, 5), (4, 40), (40, 4), (1, 1), (SIZE, 30)])
def test_tile_of_a_small_or_narrow_picture(shape: tuple[int, int]) -> None:
    pixels = np.full((*shape, 3), 9, np.uint8)
    for rng in (None, np.random.default_rng(1)):
        assert np.array_equal(tile(pixels, SIZE, rng), np.full((SIZE, SIZE, 3), 9))


def test_without_augmentation_the_centre_is_taken_unflipped(tmp_path: Path) -> None:
    pixels = patches(1, SIZE, SIZE + 8)[0]
    source = open_source(write_folder(tmp_path / "one", {"a.png": png(pixels)}))
    plain = TrainingSamples(source, StreamConfig(size=SIZE, augment=False, flip=False))
    centre = images.to_tensor(np.ascontiguousarray(pixels[:, 4:-4]))
    assert all(torch.equal(plain[p].x, centre) for p in range(8))
    flipped = TrainingSamples(source, StreamConfig(size=SIZE, augment=False))
    seen = [torch.equal(flipped[p].x, centre) for p in range(20)]
    assert 3 < sum(seen) < 17
    assert all(torch.equal(flipped[p].x, centre if seen[p] else centre.flip(-1)) for p in range(20))


def test_grey_and_colour_meet_the_channels_asked_for(tmp_path: Path) -> None:
    grey, colour = samples_of_skimage.camera()[:SIZE, :SIZE], patches(1, SIZE, SIZE)[0]
    source = open_source(write_folder(tmp_path / "two", {"0.png": png(grey), "1.png": png(colour)}))
    (in_colour,) = fixed_batches(source, SIZE, 3, seed=0, kind="centre", batch_size=2)
    assert torch.equal(in_colour.x[0], images.to_tensor(grey[:, :, None]).expand(3, -1, -1))
    assert torch.equal(in_colour.x[1], images.to_tensor(colour))
    (in_grey,) = fixed_batches(source, SIZE, 1, seed=0, kind="centre", batch_size=2, guide=True)
    assert in_grey.x.shape == in_grey.guide.shape == (2, 1, SIZE, SIZE)
    assert torch.equal(in_grey.x[0], images.to_tensor(grey[:, :, None]))
    luma = np.array([0.299, 0.587, 0.114])
    assert np.abs(with_channels(colour, 1)[:, :, 0] - colour @ luma).max() <= 1
    samples = TrainingSamples(source, StreamConfig(size=SIZE, channels=1))
    assert collate([samples[p] for p in range(6)]).x.shape[1] == 1
