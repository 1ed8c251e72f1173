"""The models as they are shipped: small enough, described, and the default better than a guess on new photographs."""

import numpy as np
import pytest
import skimage.data

from manyfill import Filler
from manyfill.checkpoint import load_model
from manyfill.data.loader import tile
from manyfill.locate import locate, shipped
from manyfill.masks import draw
from manyfill.models.config import PRESETS
from manyfill.rng import numpy_generator

PHOTOGRAPHS = ("astronaut", "cat", "coffee", "rocket")


@pytest.mark.parametrize("name", shipped())
def test_they_are_small_and_described(name: str) -> None:
    assert (locate(name) / "model.safetensors").stat().st_size < 16e6
    loaded = load_model(name)
    assert loaded.model.config == PRESETS["multiscale64" if name == "default" else name]
    assert "Licence of the data" in loaded.card
    assert loaded.figures["validation"]["bits_per_dim"] < 4.7


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["centre", "brush", "scratches"])
def test_its_draws_beat_the_mean_colour_on_bundled_photographs(kind: str) -> None:
    filler, crps, guess = Filler.from_pretrained(), [], []
    for name in PHOTOGRAPHS:
        pixels = tile(np.asarray(getattr(skimage.data, name)()), 64, None)
        mask = draw(kind, 64, 64, numpy_generator(0, name))
        completions = filler(pixels, mask, n=16, truth=pixels)
        fills = np.stack(completions.images).astype(np.float64)[:, mask]
        truth = pixels[mask].astype(np.float64)
        apart = np.abs(fills[:, None] - fills[None]).sum((0, 1)) / (16 * 15)
        crps.append((np.abs(fills - truth).mean(0) - apart / 2).mean())
        guess.append(np.abs(pixels[~mask].mean(0) - truth).mean())
        assert completions.bound is not None and completions.bound.bits_per_dim < 6
    assert np.mean(crps) < 0.75 * np.mean(guess)
