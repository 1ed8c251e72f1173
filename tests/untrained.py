"""What the tests of fills share: a small model as it was initialised, pictures of noise, boxes to be filled."""

import numpy as np
import pytest
import torch

from manyfill import Filler
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

SIZE = PRESETS["tiny32"].size


def tiny(channels: int = 3) -> ConditionalHVAE:
    torch.manual_seed(0)
    return ConditionalHVAE(PRESETS["tiny32"].model_copy(update={"channels": channels}))


@pytest.fixture(scope="module")
def filler() -> Filler:
    return Filler(tiny(), "test")


def noise_picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), dtype=np.uint8)


def box_mask(height: int, width: int, top: int, left: int, bottom: int, right: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top:bottom, left:right] = True
    return mask
