"""How near a guess comes to the truth: PSNR, SSIM, and how visible the hole's border is.

Legend: H W the picture's size, C its channels; D hole values. Pictures are grey levels 0..255 (H, W, C).
"""

import numpy as np

SMALLEST_ERROR = 1 / 12  # mean squared error of rounding to whole grey levels


def psnr(guess: np.ndarray, truth: np.ndarray) -> float:
    """Peak signal-to-noise ratio of hole values (D,), in dB for a peak of 255.

    Capped at 58.9 dB, the cost of rounding alone: one flat picture met exactly would make every mean infinite.
    """
    error = np.square(guess.astype(np.float64) - truth).mean()
    return float(10 * np.log10(255**2 / max(error, SMALLEST_ERROR)))


def ssim(guess: np.ndarray, truth: np.ndarray, hole: np.ndarray) -> float:
    """Structural similarity (Wang et al. 2004, Gaussian window) of whole pictures, averaged over the hole's pixels."""
    from skimage.metrics import structural_similarity

    _, similar = structural_similarity(
        guess, truth, data_range=255, channel_axis=-1, gaussian_weights=True, use_sample_covariance=False, full=True
    )
    return float(similar[hole].mean())


def seam(picture: np.ndarray, hole: np.ndarray) -> float:
    """Sum of absolute steps from every hole pixel to its known neighbours, above, below and beside it."""
    values, total = picture.astype(np.float64), 0.0
    for axis in (0, 1):
        step = np.abs(np.diff(values, axis=axis)).sum(-1)
        total += step[np.diff(hole, axis=axis)].sum()
    return float(total)
