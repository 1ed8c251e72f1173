"""The squares of one picture that show nothing of its hole, as a source of pictures.

Legend: H W the picture's size, C its channels. Pixels are uint8 (H, W, C), holes bool (H, W).
"""

from collections.abc import Sequence

import numpy as np

from manyfill.crop import Box
from manyfill.data.batch import Example
from manyfill.rng import numpy_generator

COUNT = 2**16  # of the squares that are told apart by a number


class Squares:
    """Squares by number, each a function of (seed, number): as often of every side, anywhere that is no hole.

    `sides` are those wanted, of which some may find no place; `places` counts, by side, how many there are in each row.
    """

    def __init__(self, pixels: np.ndarray, hole: np.ndarray, sides: Sequence[int], seed: int, name: str) -> None:
        self.pixels, self.seed, self.picture = pixels, seed, name
        self._sums = np.pad(hole.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
        rows = {side: range(len(hole) - side + 1) for side in sides if side <= min(hole.shape)}
        counts = {side: np.array([len(self._free(side, top)) for top in tops]) for side, tops in rows.items()}
        self.places = {side: count for side, count in counts.items() if count.any()}

    def __len__(self) -> int:
        return COUNT if self.places else 0

    def __getitem__(self, index: int) -> Example:
        return Example(self.box(index).cut(self.pixels), [], self.name(index))

    def name(self, index: int) -> str:
        return f"{self.picture}, square {index}"

    def captions(self, index: int) -> list[str]:
        return []

    def box(self, index: int) -> Box:
        """Where a square lies."""
        rng = numpy_generator(self.seed, "square", index)
        side = list(self.places)[rng.integers(len(self.places))]
        count = self.places[side]
        top = int(rng.choice(len(count), p=count / count.sum()))
        return Box(top, int(rng.choice(self._free(side, top))), side)

    def _free(self, side: int, top: int) -> np.ndarray:
        """The columns at which squares begin that start in this row and hold nothing of the hole."""
        above, below = self._sums[top], self._sums[top + side]
        return np.flatnonzero(below[side:] - below[:-side] == above[side:] - above[:-side])
