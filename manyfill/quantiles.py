"""How much the fills of a picture differ, pixel by pixel.

Legend: H W the picture's size, C its channels, N fills. Pixels are uint8 (H, W, C), masks bool (H, W).
"""

import math
from collections.abc import Sequence

import numpy as np

PROBABILITIES = {"q05": 0.05, "q50": 0.5, "q95": 0.95}
AT_ONCE = 1 << 22  # values of all fills that are sorted in one go


def rank(probability: float, n: int) -> int:
    """Which of n fills, in order from 1, is their quantile: the smallest with that share at or below it.

    Definition 1 of Hyndman and Fan (1996), the inverse of the empirical distribution function: always one of the fills'
    own values, so that few fills have their least and greatest for their 5 and 95 % quantiles.
    """
    return max(1, math.ceil(probability * n - 1e-9))


def few_note(n: int) -> tuple[str, ...]:
    """What to say of the quantiles of so few fills that the outer two are the extremes."""
    low, middle, high = (rank(probability, n) for probability in PROBABILITIES.values())
    if n == 1 or low > 1:
        return ()
    return (f"of {n} fills q05, q50 and q95 are values {low}, {middle} and {high} in order, pixel by pixel",)


def quantiles(images: Sequence[np.ndarray], mask: np.ndarray) -> dict[str, np.ndarray]:
    """The pictures of PROBABILITIES, uint8 (H, W, C) each, by channel; known pixels are as in every fill."""
    ranks = {name: rank(probability, len(images)) - 1 for name, probability in PROBABILITIES.items()}
    found = {name: images[0].copy() for name in ranks}
    rows, columns = mask.nonzero()
    step = max(1, AT_ONCE // (len(images) * images[0].shape[2]))
    for start in range(0, len(rows), step):
        at = rows[start : start + step], columns[start : start + step]
        ordered = np.stack([image[at] for image in images])
        ordered.partition(sorted(set(ranks.values())), axis=0)
        for name, k in ranks.items():
            found[name][at] = ordered[k]
    return found
