"""Classical inpainting to compare with: one guess per hole, no learning.

Legend: H height, W width, C channels. Pixels are uint8 (H, W, C), masks bool (H, W) with True = missing; guesses are
float64 (H, W, C) in grey levels 0..255.
"""

from collections.abc import Callable

import cv2
import numpy as np
from skimage.restoration import inpaint_biharmonic

RADIUS = 3


def _opencv(pixels: np.ndarray, mask: np.ndarray, method: int) -> np.ndarray:
    return cv2.inpaint(pixels, mask.astype(np.uint8), RADIUS, method).reshape(pixels.shape)


def _telea(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Telea (2004), the fast marching method."""
    return _opencv(pixels, mask, cv2.INPAINT_TELEA)


def _navier_stokes(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Bertalmio, Bertozzi & Sapiro (2001), fluid dynamics along the isophotes."""
    return _opencv(pixels, mask, cv2.INPAINT_NS)


def _biharmonic(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """Damelin & Hoang (2018), the biharmonic equation with the known pixels as its boundary."""
    return np.clip(inpaint_biharmonic(pixels / 255.0, mask, channel_axis=-1), 0, 1) * 255


def _mean_colour(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    return np.broadcast_to(pixels[~mask].mean(0), pixels.shape)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "telea": _telea,
    "navier-stokes": _navier_stokes,
    "biharmonic": _biharmonic,
    "mean colour": _mean_colour,
}


def inpaint(method: str, pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The guess of a method from `METHODS`: known pixels as given, hole pixels never read."""
    assert not mask.all(), "classical methods need a known pixel"
    # Blanked here, once, so that no library's handling of the hole can leak the truth into its guess.
    blanked = np.where(mask[..., None], np.uint8(0), pixels)
    return np.where(mask[..., None], METHODS[method](blanked, mask), pixels).astype(np.float64)
