"""Masked convolutions over the positions of a hole, each of which sees those drawn before it, with an activation cache.

Positions are drawn stage by stage. Those of one stage are independent given all earlier ones, so one pass draws them
all; in the order of a PixelCNN the stages are the skewed lines along which nothing sees its neighbour. Only hole
positions have a row here: a convolution is a product of each row's and its earlier neighbours' activations with a
matrix, so a training step costs nothing for known pixels, and a drawn position nothing for all others. Nor do
neighbours cost anything that no position of a kind ever sees.

Shapes: B batch, C channels, S size, R hole positions of the whole batch (rows), r those of one part, T taps, t those of
one kind of position, W width of the network.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from manyfill.models.blocks import dense, pasted, rows_at
from manyfill.models.window import Window
from manyfill.progress import followed

NEAR, FAR = 1, 3  # how far along each axis a convolution of activations, and the first one of raw values, reaches
FEWEST_ROWS = 8


@dataclass(frozen=True)
class Order:
    """The stage (S, S) in which each position of a map is drawn, and the spacing (S, S) of the neighbours it sees;
    stages whose positions see alike, give or take the edge, are of one of `kinds` kinds, and follow one another in
    turns."""

    stage: Tensor
    spacing: Tensor
    kinds: int = 1

    def kind(self, stage: Tensor) -> Tensor:
        """The kind of each stage; the first is but one position."""
        return (stage - 1).clamp(min=0) % self.kinds

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
    """The hole's positions in the order they are drawn, or those of a kind together: where (R,) they are among those of
    all B maps, their rank (R,) in the order of reading, their stage (R,), and the rows (R, T) of their earlier
    neighbours."""

    where: Tensor
    rank: Tensor
    stage: Tensor
    near: Tensor
    far: Tensor

    @property
    def passes(self) -> int:
        """In how many they are drawn."""
        return len(self.stage.unique())

    def take(self, x: Tensor) -> Tensor:
        """The rows (R, C) of maps (B, C, H, W)."""
        return rows_at(x, self.where)

    def put(self, rows: Tensor, x: Tensor) -> Tensor:
        """The maps x (B, C, H, W) with these rows (R, C) in their places."""
        return pasted(rows, self.where, x)


class CausalBlock(nn.Module):
    """A gated residual block (van den Oord et al. 2016, arXiv:1606.05328)."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.see = dense((1 + taps) * width, 2 * width)
        self.join = dense(width, width, gain=0.3)

    def forward(self, h: Tensor, own: Tensor, seen: Tensor, told: Tensor, matrices: tuple[Tensor, Tensor]) -> Tensor:
        """From rows' activations `own` (r, W) and those that they see (r, t * W), by the `matrices` of either, and from
        what the context adds (r, 2 W)."""
        mine, others = matrices
        value, gate = torch.addmm(torch.addmm(told, own, mine), seen, others).chunk(2, 1)
        return h + self.join(torch.tanh(value) * torch.sigmoid(gate))


Matrices = tuple[Tensor, list[tuple[Tensor, Tensor]]]
"""What values (t * values, W), and in every layer a row's own activations (W, 2 W) and others' (t * W, 2 W), are
multiplied by."""


@dataclass(frozen=True)
class Part:
    """Rows `now` of one kind: their neighbours (r, t), what the context tells them (r, ...), and their matrices.

    Where these are very few, r is larger, and they come again and again: products of very few rows round in another
    way, and what is drawn is not to depend on what is drawn with it.
    """

    now: slice
    near: Tensor
    far: Tensor
    told: Tensor
    matrices: Matrices

    def once(self, rows: Tensor) -> Tensor:
        return rows if self.now.stop is None else rows[: self.now.stop - self.now.start]


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
        kind, unseen = order.kind(order.stage).flatten(), len(self.near)
        self.near_of, self.far_of = (
            [_where((table[kind == each] != unseen).any(0)) for each in range(order.kinds)]
            for table in (self.near, self.far)
        )

    def rows(self, m: Tensor) -> Rows:
        """The positions where m (B, 1, S, S) is 1, as they are drawn."""
        return self.ordered(m.flatten().nonzero()[:, 0], len(m), Window.whole(m.shape[-1]))

    def ordered(self, read: Tensor, pictures: int, window: Window, drawn: bool = True) -> Rows:
        """Positions `read` (R,) among all B * H * W of a `window` of the maps, in the order of reading: as they are
        drawn, or those of a kind together."""
        count, places = read.shape[0], len(self.near)  # not len(read), which is a constant to a graph
        picture, place = window.places(read)
        turns = torch.arange(count, device=read.device)
        stage = self.order.stage.to(read.device).flatten()[place]
        first = stage if drawn else self.order.kind(stage)
        rank = (first * count + turns).argsort()  # no two are alike, so that any way of sorting does
        picture, place = picture[rank], place[rank]
        # The row of each position, with one more in every picture for what may not be seen.
        start = picture * (places + 1)
        row = rank.new_full((pictures * (places + 1),), count).index_copy(0, start + place, turns)
        near, far = (row[start[:, None] + table.to(read.device)[place]] for table in (self.near, self.far))
        return Rows(read[rank], rank, stage[rank], near, far)

    def forward(self, rows: Rows, values: Tensor, context: Tensor) -> Tensor:
        """The outputs (R, outputs) of all rows at once, for values (R, values) and context (R, context)."""
        told = self.told(context)
        parts = self.parts(rows, self.order.kind(rows.stage), told)
        return self.outputs(parts, _closed(values.to(told)), lambda _, own: _closed(own))

    def draw(self, rows: Rows, context: Tensor, choose: Callable[[slice, Tensor], Tensor], what: str) -> None:
        """Stage by stage: the outputs of its rows go to `choose(now, outputs)`, which gives their values.

        Every layer's activations are kept, so a stage costs its own rows' work.
        """
        told, count = self.told(context), len(context)
        values, *kept = (told.new_zeros(count + 1, width) for width in (self.values, *[self.width] * len(self.blocks)))
        for part in followed(self.parts(rows, rows.stage, told) if count else [], what):

            def keep(layer: int, own: Tensor, now: slice = part.now) -> Tensor:
                kept[layer][now] = own
                return kept[layer]

            values[part.now] = choose(part.now, self.outputs([part], values, keep)).to(values)

    def told(self, context: Tensor) -> Tensor:
        """What the context (R, context) adds in every layer (R, ...), the layers' own biases with it."""
        biases = torch.cat([self.enter.bias, *(layer.see.bias for layer in self._layers)])
        return F.linear(context, self.tell.weight, self.tell.bias + biases)

    def parts(self, rows: Rows, label: Tensor, told: Tensor) -> list[Part]:
        """The runs of rows that are labelled alike (R,), by their stage or their kind."""
        matrices = [self.matrices(told, each) for each in range(self.order.kinds)]
        ends, start = label.unique_consecutive(return_counts=True)[1].cumsum(0), 0
        kinds = self.order.kind(rows.stage)[ends - 1]
        parts: list[Part] = []
        for end, kind in zip(ends.tolist() or [0], kinds.tolist() or [0], strict=True):
            now = slice(start, end)
            tables = rows.near[now][:, self.near_of[kind]], rows.far[now][:, self.far_of[kind]], told[now]
            again = -(-FEWEST_ROWS // max(1, end - start))
            near, far, mine = (t if again == 1 else t.repeat(again, 1) for t in tables)
            parts.append(Part(now, near, far, mine, matrices[kind]))
            start = end
        return parts

    def matrices(self, like: Tensor, kind: int | None = None) -> Matrices:
        """Those of a kind, or of any, in the precision of `like`."""
        far, near = (slice(None) if kind is None else taps[kind] for taps in (self.far_of, self.near_of))
        layers = []
        for layer in self._layers:
            own, others = layer.see.weight.to(like).tensor_split([self.width], 1)
            layers.append((own.T.contiguous(), _columns(others, near, self.width).T.contiguous()))
        return _columns(self.enter.weight, far, self.values).to(like).T, layers

    def outputs(self, parts: Sequence[Part], values: Tensor, keep: Callable[[int, Tensor], Tensor]) -> Tensor:
        """What is to be said of the rows of some parts, given the `values` of all rows so far.

        `keep(layer, own)` takes the parts' activations and gives those of all rows; of all rows the last is zeros.
        """
        told = [part.told.split([self.width] + [2 * self.width] * len(self.blocks), 1) for part in parts]
        h = [
            torch.addmm(first, side_by_side(values, part.far), part.matrices[0])
            for part, (first, *_) in zip(parts, told, strict=True)
        ]
        for number, layer in enumerate(self._layers):
            own = [F.silu(each) for each in h]
            kept = keep(number, _joined(own, parts))
            h = [
                layer(each, mine, side_by_side(kept, part.near), more[1 + number], part.matrices[1][number])
                for each, mine, part, more in zip(h, own, parts, told, strict=True)
            ]
        return _joined([self.leave(F.silu(each)) for each in h], parts).float()

    @property
    def _layers(self) -> Sequence[CausalBlock]:
        return cast(Sequence[CausalBlock], self.blocks)


def _where(seen: Tensor) -> Tensor | slice:
    """Those of the taps (T,) that are seen."""
    return slice(None) if bool(seen.all()) else seen.nonzero()[:, 0]


def _columns(weight: Tensor, taps: Tensor | slice, width: int) -> Tensor:
    """Of a weight (O, T * width) what it makes of some taps (O, t * width)."""
    return weight.reshape(len(weight), -1, width)[:, taps].flatten(1)


def _joined(rows: Sequence[Tensor], parts: Sequence[Part]) -> Tensor:
    """The rows of all parts, each once."""
    once = [part.once(each) for part, each in zip(parts, rows, strict=True)]
    return torch.cat(once) if len(once) > 1 else once[0]


def side_by_side(rows: Tensor, neighbours: Tensor) -> Tensor:
    """The rows (., C) of all neighbours (r, t) in one row each (r, t * C)."""
    return rows.index_select(0, neighbours.flatten()).view(neighbours.shape[0], neighbours.shape[1] * rows.shape[1])


def _closed(rows: Tensor) -> Tensor:
    """With a last row of zeros, which is what a position sees where it may see nothing."""
    return F.pad(rows, (0, 0, 0, 1))
