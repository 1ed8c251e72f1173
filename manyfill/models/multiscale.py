"""The parallel multiscale head: a coarse grid of the hole's pixels first, then each doubling in three groups.

Reed et al. (2017), arXiv:1703.03664: the pixels of one group are independent given all earlier ones, so that S x S of
them take 1 + 3 log2(S) passes and the likelihood is exact. Other than there, one network serves all scales, and
the middle of every four is drawn before the two between them, for all but the first then lie among four near ones.

Shapes: S the model's size, R hole pixels of the whole batch.
"""

import torch
from torch import Tensor, nn

from manyfill.models.causal import Order, Rows
from manyfill.models.config import ModelConfig
from manyfill.models.mixture import Scene
from manyfill.models.pixelcnn import PixelCNNHead


def coarse_to_fine(size: int) -> Order:
    """Grids of spacing 2^k, 2^(k-1), ..., 1, the coarsest of one position where `size` is a power of 2.

    What a grid adds to the one before: the middles of its squares, then of its rows, then of its columns.
    """
    spacing = 1 << (size - 1).bit_length()
    row, column = torch.arange(size)[:, None], torch.arange(size)
    stages, spacings = torch.zeros(size, size, dtype=torch.long), torch.full((size, size), spacing)
    stage = 1
    while spacing > 1:
        spacing //= 2
        odd_row, odd_column = row % (2 * spacing) == spacing, column % (2 * spacing) == spacing
        even_row, even_column = row % (2 * spacing) == 0, column % (2 * spacing) == 0
        for group in (odd_row & odd_column, even_row & odd_column, odd_row & even_column):
            stages[group], spacings[group] = stage, spacing
            stage += 1
    return Order(stages, spacings, kinds=3)


class MultiscaleHead(PixelCNNHead):
    """The PixelCNN head's network, in another order and told the group that it draws."""

    what = "groups of pixels"

    def __init__(self, config: ModelConfig, width: int) -> None:
        super().__init__(config, width)
        self.group = nn.Embedding(int(self.network.order.stage.max()) + 1, self.network.width)
        nn.init.normal_(self.group.weight, std=0.1)

    @staticmethod
    def order(size: int) -> Order:
        """The order in which the pixels are drawn."""
        return coarse_to_fine(size)

    def context(self, rows: Rows, scene: Scene) -> Tensor:
        """What each pixel is told (R, W) that does not depend on the hole's pixels."""
        return super().context(rows, scene) + self.group(rows.stage)
