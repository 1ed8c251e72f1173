"""The parts of the top-down path by themselves; the whole of it is tested with the models."""

import pytest
import torch
import torch.nn.functional as F

from manyfill.models.blocks import kernel_at
from manyfill.models.config import PRESETS
from manyfill.models.expectation import colour_axes
from manyfill.models.topdown import CODE_GAIN, SKETCH_GAIN, Border, LatentBlock
from manyfill.rng import generator


@pytest.mark.parametrize("preset", ["base64", "tan2017"])
def test_a_border_is_one_convolution_of_all_that_it_joins(preset: str) -> None:
    config = PRESETS[preset]
    border, noise = Border(config, 6, 5), generator(0, "border")
    h, features = torch.randn(2, 6, 8, 8, generator=noise), torch.randn(2, 5, 8, 8, generator=noise)
    canvas, texture = torch.randn(2, 2, 3, 8, 8, generator=noise)
    seen = [features, canvas, texture] if config.canvas else [features]
    if config.border == "conv":
        whole = border.project(F.pad(torch.cat([h, *seen], 1), (1, 1, 1, 1), mode="replicate"))
    else:
        whole = h + border.project(torch.cat(seen, 1))
    recalled = border.recall(features, texture if config.canvas else None)
    torch.testing.assert_close(border(h, recalled, canvas), whole, rtol=1e-5, atol=1e-5)


def test_colour_axes_are_orthonormal_and_the_first_is_lightness() -> None:
    axes = colour_axes(3)
    products = axes @ axes.T
    assert (
        torch.allclose(products, torch.eye(3), atol=1e-6) and axes[0].std() == 0 and axes[1:].sum(1).abs().max() < 1e-5
    )
    assert torch.equal(colour_axes(1), torch.ones(1, 1))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_level_starts_out_handing_on_most_of_the_error_it_codes(channels: int) -> None:
    config = PRESETS["base64"].model_copy(update={"channels": channels})
    for spec in config.levels:
        block = LatentBlock(config, spec, 8, 1.0)
        there_and_back = block.sketch.weight[:, :, 0, 0] @ block.code.weight[:, :, 0, 0]
        torch.testing.assert_close(there_and_back, CODE_GAIN * SKETCH_GAIN * torch.eye(channels))


def test_no_kernel_reaches_beyond_its_map() -> None:
    assert [kernel_at(size) for size in (1, 2, 4, 64)] == [1, 3, 3, 3]
    assert [kernel_at(size, 5) for size in (1, 2, 4)] == [1, 3, 5]
