"""Masked convolutions over the positions of a hole, each of which sees those drawn before it, with an activation cache.

Positions are drawn stage by stage. Those of one stage are independent given all earlier ones, so one pass draws them
all; in the order of a PixelCNN the stages are the skewed lines along which nothing sees its neighbour. Only hole
positions have a row here: a convolution is a product of each row's and its earlier neighbours' activations with a
matrix, so a training step costs nothing for known pixels, and a drawn position nothing for all others.

Shapes: B batch, C channels, S size, R hole positions of the whole batch (rows), T taps, W width of the network.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.models.blocks import dense, pasted, rows_at
from manyfill.progress import followed

NEAR, FAR = 1, 3  # how far along each axis a convolution of activations, and the first one of raw values, reaches
FEWEST_ROWS = 8


@dataclass(frozen=True)
class Order:
    """The stage (S, S) in which each position of a map is drawn, and the spacing (S, S) of the neighbours it sees."""

    stage: Tensor
    spacing: Tensor

    def neighbours(self, reach: int) -> tuple[Tensor, Tensor]:
        """The taps (T, 2), in rows and columns, that are earlier than some position of the map, and for every position
        the places (S * S, T) among the map's that they show it, S * S where that is not earlier or beyond the edge."""
        size, span = len(self.stage), torch.arange(-reach, reach + 1)
        taps = torch.cartesian_prod(span, span)
        here = torch.cartesian_prod(torch.arange(size), torch.arange(size))
        there = here[:, None] + self.spacing.flatten()[:, None, None] * taps
        inside = ((there >= 0) & (there < size)).all(2)
        row, column = there.clamp(0, size - 1).unbind(2)
        earlier = inside & (self.stage[row, column] < self.stage.flatten()[:, None])
        useful = earlier.any(0)
        return taps[useful], (row * size + column).masked_fill(~earlier, size**2)[:, useful]


def skewed(size: int) -> Order:
    """The order of a PixelCNN, left to right and top to bottom, in 3 * size - 2 stages instead of size squared.

    Position (r, c) has stage c + 2 r: its neighbours to the left, above, and above to the right are earlier. What lies
    two columns or more to the right for each row above, which reading order would show too, it does not see.
    """
    line = torch.arange(size)
    return Order(line + 2 * line[:, None], torch.ones(size, size, dtype=torch.long))


@dataclass(frozen=True)
class Rows:
    """The hole's positions in the order they are drawn: where (R,) they are among all B*S*S, their rank (R,) in the
    order of reading, their stage (R,), and the rows (R, T) of their earlier neighbours."""

    where: Tensor
    rank: Tensor
    stage: Tensor
    near: Tensor
    far: Tensor

    @cached_property
    def ends(self) -> list[int]:
        """Each stage's end."""
        return self.stage.unique_consecutive(return_counts=True)[1].cumsum(0).tolist()

    def take(self, x: Tensor) -> Tensor:
        """The rows (R, C) of maps (B, C, S, S)."""
        return rows_at(x, self.where)

    def put(self, rows: Tensor, x: Tensor) -> Tensor:
        """The maps x (B, C, S, S) with these rows (R, C) in their places."""
        return pasted(rows, self.where, x)


class CausalBlock(nn.Module):
    """A gated residual block (van den Oord et al. 2016, arXiv:1606.05328); `told` is what the context adds."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.see = dense((1 + taps) * width, 2 * width)
        self.join = dense(width, width, gain=0.3)

    def forward(self, h: Tensor, own: Tensor, seen: Tensor, told: Tensor) -> Tensor:
        value, gate = (self.see(torch.cat([own, seen], 1)) + told).chunk(2, 1)
        return h + self.join(torch.tanh(value) * torch.sigmoid(gate))


class CausalNetwork(nn.Module):
    """From the values at earlier positions, and a context at its own, to what is to be said of each position."""

    def __init__(self, order: Order, values: int, context: int, outputs: int, width: int, depth: int) -> None:
        super().__init__()
        self.order, self.values, self.width = order, values, width
        (near_taps, self.near), (far_taps, self.far) = order.neighbours(NEAR), order.neighbours(FAR)
        self.enter = dense(len(far_taps) * values, width)
        self.tell = dense(context, (1 + 2 * depth) * width)
        self.blocks = nn.ModuleList(CausalBlock(width, len(near_taps)) for _ in range(depth))
        self.leave = dense(width, outputs, gain=0.02)

    def rows(self, m: Tensor) -> Rows:
        """The positions where m (B, 1, S, S) is 1, in the network's order."""
        return self.ordered(m.flatten().nonzero()[:, 0], len(m))

    def ordered(self, read: Tensor, pictures: int) -> Rows:
        """The same of positions `read` (R,) among all B * S * S, in the order of reading."""
        places, count = len(self.near), read.shape[0]  # not len(), which is a constant to a graph
        turns = torch.arange(count, device=read.device)
        stage = self.order.stage.to(read.device).flatten()[read % places]
        rank = (stage * count + turns).argsort()  # no two are alike, so that any way of sorting does
        where = read[rank]
        picture, place = where // places, where % places
        # The row of each position, with one more in every picture for what may not be seen.
        row = where.new_full((pictures * (places + 1),), count).index_copy(0, where + picture, turns)
        start = (picture * (places + 1))[:, None]
        near, far = (row[start + table.to(read.device)[place]] for table in (self.near, self.far))
        return Rows(where, rank, stage[rank], near, far)

    def forward(self, rows: Rows, values: Tensor, context: Tensor) -> Tensor:
        """The outputs (R, outputs) of all rows at once, for values (R, values) and context (R, context)."""
        return self.outputs(rows.near, rows.far, _closed(values), self.tell(context), lambda _, own: _closed(own))

    def draw(self, rows: Rows, context: Tensor, choose: Callable[[slice, Tensor], Tensor], what: str) -> None:
        """Stage by stage: the outputs of its rows go to `choose(part, outputs)`, which gives their values.

        Every layer's activations are kept, so a stage costs its own rows' work.
        """
        told, count = self.tell(context), len(context)
        values = told.new_zeros(count + 1, self.values, dtype=torch.float32)
        kept = [told.new_zeros(count + 1, self.width) for _ in self.blocks]
        start = 0
        for end in followed(rows.ends, what):
            # Products of very few rows round in another way. Rows that come along too early come again.
            first = min(start, max(0, count - FEWEST_ROWS))
            part = slice(first, max(end, min(first + FEWEST_ROWS, count)))

            def keep(layer: int, own: Tensor, part: slice = part) -> Tensor:
                kept[layer][part] = own
                return kept[layer]

            outputs = self.outputs(rows.near[part], rows.far[part], values, told[part], keep)
            now = slice(start, end)
            values[now] = choose(now, outputs[start - first : end - first])
            start = end

    def outputs(
        self, near: Tensor, far: Tensor, values: Tensor, told: Tensor, keep: Callable[[int, Tensor], Tensor]
    ) -> Tensor:
        """What is to be said of some rows, whose neighbours are `near` and `far` among the `values` of all.

        `keep(layer, own)` takes the rows' activations and gives those of all; of all rows the last is zeros.
        """
        told_first, *told_blocks = told.split([self.width] + [2 * self.width] * len(self.blocks), 1)
        h = self.enter(_seen(values, far)) + told_first
        for layer, (block, told_block) in enumerate(zip(self.blocks, told_blocks, strict=True)):
            own = F.silu(h)
            h = block(h, own, _seen(keep(layer, own), near), told_block)
        return self.leave(F.silu(h)).float()


def _closed(rows: Tensor) -> Tensor:
    """With a last row of zeros, which is what a position sees where it may see nothing."""
    return F.pad(rows, (0, 0, 0, 1))


def _seen(rows: Tensor, neighbours: Tensor) -> Tensor:
    """The rows of all neighbours (R, T) side by side."""
    return rows.index_select(0, neighbours.flatten()).view(neighbours.shape[0], neighbours.shape[1] * rows.shape[1])
