"""What a fill gives back: mean, spread, bound, sheet, and files of them."""

import json
import math

import numpy as np
import pytest
import torch
from untrained import SIZE, box_mask, noise_picture

from manyfill import Filler
from manyfill.device import autocast
from manyfill.errors import OutputError
from manyfill.images import open_picture, to_pixels, to_tensor
from manyfill.masks import draw
from manyfill.octaves import PORTION
from manyfill.rng import generator


def test_mean_and_spread_are_what_they_say(filler: Filler) -> None:
    picture, mask = noise_picture(60, 45), draw("boxes", 60, 45, np.random.default_rng(1))
    result = filler(picture, mask, n=5)
    fills = np.stack(result.images).astype(np.float64)
    assert np.allclose(result.std, fills.std(0).mean(-1), atol=1e-4)
    assert [len(z) for z in result.latents] == [5] * len(filler.model.config.levels)
    assert not filler(picture, mask, n=1).std.any()


def test_the_mean_is_the_distributions_own(filler: Filler) -> None:
    picture, mask = noise_picture(SIZE, SIZE), draw("centre", SIZE, SIZE, np.random.default_rng(0))
    with torch.no_grad(), autocast(filler.device):
        known = filler.model.encode_known(to_tensor(picture)[None], torch.from_numpy(mask).float()[None, None])
        mean = filler.model.fill(known, [generator(4, "fill", 0)], temperature=0.0).mean[0]
    n = PORTION + 3
    gap = np.abs(filler(picture, mask, n=n, temperature=0.0).mean.astype(int) - to_pixels(mean))
    assert gap.max() <= 2
    many = filler(picture, mask, n=64)
    apart = (np.stack(many.images).mean(0) - many.mean)[mask] / (np.stack(many.images).std(0)[mask] + 1)
    assert np.sqrt((apart**2).mean()) < 3 / math.sqrt(64)


def test_the_bound_is_the_models_own_on_the_hole_only(filler: Filler) -> None:
    picture, mask = noise_picture(SIZE, SIZE), draw("centre", SIZE, SIZE, np.random.default_rng(0))
    truth = np.where(mask[..., None], np.uint8(128), picture)
    bound = filler(picture, mask, n=1, truth=truth).bound
    assert bound is not None and bound.dims == 3 * mask.sum()
    assert bound.bits_per_dim == pytest.approx(-bound.nats / math.log(2) / bound.dims)
    with torch.no_grad():
        x = to_tensor(truth).repeat(64, 1, 1, 1)
        direct = filler.model(x, torch.from_numpy(mask).float().expand(64, 1, -1, -1)).total
    assert bound.nats == pytest.approx(float(direct.mean()), abs=6 * float(direct.std()) / math.sqrt(16))
    elsewhere = np.where(mask[..., None], truth, 255 - truth)
    again = filler(picture, mask, n=1, truth=elsewhere).bound
    assert again is not None and again.nats == bound.nats  # the truth's known pixels are not read
    other = filler(picture, mask, n=1, truth=picture).bound
    assert other is not None and other.nats != bound.nats
    assert filler(picture, mask, n=1).bound is None


def test_results_are_saved_whole(filler: Filler, tmp_path) -> None:
    picture, mask = noise_picture(50, 70), draw("centre", 50, 70, np.random.default_rng(0))
    result = filler(picture, mask, n=5, truth=picture)
    files = result.save(tmp_path / "new" / "folder")
    names = [f"fill-{i:02d}.png" for i in range(5)] + ["mean.png", "q05.png", "q50.png", "q95.png"]
    names += ["std.png", "sheet.png"]
    assert [file.name for file in files] == names
    assert sorted(file.name for file in (tmp_path / "new" / "folder").iterdir()) == sorted(names)
    for file, image in zip(files, [*result.images, result.mean], strict=False):
        assert np.array_equal(open_picture(file).pixels, image)
    assert open_picture(files[9]).pixels.shape == (50, 70, 3)
    assert "sheet.png" not in {file.name for file in result.save(tmp_path / "plain", sheet=False)}
    record = json.loads(json.dumps(result.record()))
    assert (
        record["hole_pixels"] == mask.sum() and record["n"] == len(record["seeds"]) == 5 and record["model"] == "test"
    )


@pytest.mark.parametrize(("height", "width"), [(1, 40), (300, 2), (16, 16), (500, 400)])
def test_sheets_can_be_looked_at(filler: Filler, height: int, width: int) -> None:
    mask = box_mask(height, width, 0, 0, max(1, height // 2), max(1, width // 2))
    sheet = filler(noise_picture(height, width), mask, n=9).sheet()
    assert sheet.dtype == np.uint8 and max(sheet.shape) < 2500
    assert sheet.shape[1] > 4 * min(150, 150 * width // height)


def test_a_place_that_cannot_be_written_is_named(filler: Filler, tmp_path) -> None:
    (tmp_path / "file").write_text("in the way")
    result = filler(noise_picture(8, 9), box_mask(8, 9, 2, 2, 5, 5), n=1)
    with pytest.raises(OutputError, match="file"):
        result.save(tmp_path / "file")
    with pytest.raises(OutputError, match="file/sub"):
        result.save(tmp_path / "file" / "sub")
