"""Holes of any size by a model of one size: coarse first, then octave by octave, in tiles.

The square around a hole is filled at the finest size at which a tile of the model still sees known pixels around any
piece of the hole. At each doubling from there the last answer, enlarged, is the guide, and tiles draw the detail. The
hole is cut into cells. A tile sees its cell in the middle and known pixels or the guide around it, and only its cell is
kept. Cells are drawn in two passes like the fields of a checkerboard: those of the second see what lies beside them.
What is drawn of an excerpt, except a first answer that more is made of, is bent to join what is known at the border.

Legend: S the model's size, s a square's size, C channels of the model, N fills, T cells of the first size, B a batch.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from time import perf_counter
from typing import NamedTuple

import numpy as np

from manyfill.crop import Part, enlarge, shrink, shrink_hole
from manyfill.images import to_levels, to_planes
from manyfill.membrane import bend
from manyfill.models.config import ModelConfig
from manyfill.recipe import Layer, Recipe
from manyfill.runtime import Masked, Noise, Runtime, Said

TILE_BATCH = 32
CALM = {1: 0.6, 2: 0.85}
"""Temperatures, on top of a fill's own, of the finest latents of the first size, by the pixels that a latent is wide.

The model learnt what a tile without a guide looks like mostly from pictures shrunk whole, whose neighbouring pixels
differ more than in an excerpt of a picture: at 1 it draws excerpts too rough. A tile that is a whole picture is drawn
as the model has it.
"""
AGAIN = 0.85
"""Temperature of all latents from the second doubling on. The guide is then as rough as a photograph or rougher; each
octave takes that for a sign of rough detail and would add more."""
PORTION = 16  # fills that share what is known of a tile
Tick = Callable[[int], None]


class Cell(NamedTuple):
    """A field of the board: its place, and the rows and columns of the square that it and its tile take."""

    row: int
    column: int
    core: tuple[slice, slice]
    tile: tuple[slice, slice]

    @property
    def within(self) -> tuple[slice, ...]:
        """The core's rows and columns in the tile."""
        return tuple(slice(c.start - t.start, c.stop - t.start) for c, t in zip(self.core, self.tile, strict=True))


def sizes(part: Part, size: int) -> list[int]:
    """The sizes at which a part is drawn, from the first to its own."""
    found = [part.box.side]
    while found[0] > size and _holds(shrink_hole(part.own, found[0]), size // 2 + 1):
        found.insert(0, max(size, -(-found[0] // 2)))
    return found


def rows(part: Part, plan: Sequence[int], size: int) -> int:
    """How many tiles a fill of a part takes, drawn at the sizes of the plan."""
    return sum(len(cells(shrink_hole(part.own, s), size)) for s in plan)


def _holds(hole: np.ndarray, side: int) -> bool:
    """Whether a square of so many pixels a side fits into the hole."""
    sums = np.pad(hole.cumsum(0, dtype=np.int32).cumsum(1, dtype=np.int32), ((1, 0), (1, 0)))
    within = sums[side:, side:] - sums[:-side, side:] - sums[side:, :-side] + sums[:-side, :-side]
    return bool((within == side * side).any())


def cells(own: np.ndarray, size: int) -> list[Cell]:
    """The cells that a hole (s, s) is cut into, row by row; of the model's own size there is one."""
    if len(own) == size:
        whole = (slice(0, size), slice(0, size))
        return [Cell(0, 0, whole, whole)]
    spans = [np.flatnonzero(own.any(axis)) for axis in (1, 0)]
    rows, columns = (_fields(int(at[0]), int(at[-1]) + 1, size) for at in spans)
    return [
        Cell(i, j, (row, column), (_around(row, size, len(own)), _around(column, size, len(own))))
        for i, row in enumerate(rows)
        for j, column in enumerate(columns)
        if own[row, column].any()
    ]


def _fields(start: int, stop: int, size: int) -> list[slice]:
    """A stretch in equal fields of three quarters of the model's size at most: an eighth is left on each side."""
    count = -(-(stop - start) // max(3 * size // 4, 1))
    edges = np.linspace(start, stop, count + 1).round().astype(int).tolist()
    return [slice(*edge) for edge in pairwise(edges)]


def _around(span: slice, size: int, length: int) -> slice:
    first = min(max((span.start + span.stop - size) // 2, 0), length - size)
    return slice(first, first + size)


class Canvas:
    """A part while it is drawn, at one size after the other.

    images (N, s, s, C) are the fills so far, guides the last answer enlarged, `known` (s, s) what tiles may build upon,
    `around` (s, s) what is known of the picture itself; mean (s, s, C) is the expectation of the pixel distributions,
    summed over the fills; latents by level (N, T, Z, size, size) are those of the first size, of which `given`
    (T, Z, size, size) are the first levels' if they are known. `said` is a caption, of every tile alike.
    """

    def __init__(
        self, part: Part, number: int, sizes: Sequence[int], recipes: Sequence[Recipe], config: ModelConfig
    ) -> None:
        self.part, self.number, self.sizes, self.recipes, self.config = part, number, sizes, recipes, config
        self.guides: np.ndarray | None = None
        self.given: Sequence[np.ndarray] = ()
        self.said: Said | None = None
        self.step = 0
        small, _ = self._enter()
        self.images = np.repeat(small[None], len(recipes), 0)
        # Far holes of other parts, which no tile may reach: any colour does.
        filler = self.images[0][self.known].mean(0) if self.known.any() else 127.5
        self.images[:, ~self.known] = np.rint(filler)
        self.latents = [
            np.empty((len(recipes), len(self.cells), level.latent, level.size, level.size), np.float32)
            for level in config.levels
        ]

    @property
    def excerpt(self) -> bool:
        """Whether tiles of the first size show something else than a whole picture."""
        return self.part.excerpt or self.part.box.side > self.config.size

    @property
    def last(self) -> bool:
        return self.step + 1 == len(self.sizes)

    def temperature(self, size: int) -> float:
        """Of latents of this size, on top of the fill's own."""
        if self.step == 0:
            return CALM.get(self.config.size // size, 1.0) if self.excerpt else 1.0
        return 1.0 if self.step == 1 else AGAIN

    def advance(self) -> None:
        """Go on to the next size."""
        self.step += 1
        small, missing = self._enter()
        self.guides = np.stack([enlarge(image, len(small)) for image in self.images])
        self.images = np.where(missing[..., None], self.guides, small)

    def _enter(self) -> tuple[np.ndarray, np.ndarray]:
        """The picture (s, s, C) and all that is missing of it (s, s) at this size."""
        s, config = self.sizes[self.step], self.config
        small, missing = shrink(self.part.pixels, self.part.missing, s)
        self.around, self.own = ~missing, shrink_hole(self.part.own, s)
        self.known = self.around.copy()
        self.cells = cells(self.own, config.size)
        # Whatever the order of its sums, they round to the same.
        self.mean = np.zeros((s, s, config.channels), np.float64)
        return np.broadcast_to(small, self.mean.shape), missing

    def keep(self, cell: Cell, fill: int, answer: np.ndarray, mean: np.ndarray) -> None:
        """Take a cell from a tile's answer and its expectation (S, S, C)."""
        within = cell.within
        new = ~self.known[cell.core]
        self.images[fill][cell.core][new] = np.rint(answer[within][new])
        self.mean[cell.core] += mean[within]

    def settle(self, cell: Cell) -> None:
        """From now on a cell counts as known."""
        self.known[cell.core] |= self.own[cell.core]

    def join(self) -> None:
        """Bend the fills to what is known around them; not a first answer that more is made of, nor the model's own."""
        if self.step == 0 and not (self.last and self.excerpt):
            return
        for image in self.images:
            by = bend(image, self.own, self.around)[self.own]
            image[self.own] = np.rint(image[self.own] + by).clip(0, 255)
            self.mean[self.own] += by
        self.mean.clip(0, 255 * len(self.images), self.mean)


class Row(NamedTuple):
    """A row of a batch: one cell of one fill."""

    canvas: Canvas
    place: int
    fill: int

    @property
    def cell(self) -> Cell:
        return self.canvas.cells[self.place]

    def layer(self, level: int) -> Layer:
        """The noise of a level of the model in this tile: that of the whole octave after the first size."""
        layers, levels, step = self.canvas.recipes[self.fill].layers, len(self.canvas.config.levels), self.canvas.step
        return layers[levels + step - 1 if step else level]

    @property
    def where(self) -> tuple[int, ...]:
        """What sets this tile's noise apart from others'."""
        return self.canvas.step, self.canvas.number, self.cell.row, self.cell.column


@dataclass(frozen=True)
class Batch:
    """Rows to draw at once; the first of every `copies` tells what is known to all of them."""

    rows: list[Row]
    copies: int


def draw(
    runtime: Runtime,
    canvases: Sequence[Canvas],
    tile_batch: int = TILE_BATCH,
    tick: Tick = lambda _: None,
) -> None:
    """Draw all parts to their own size, in common batches of `tile_batch` rows at most.

    `tick` is told after every batch how many rows it had.
    """
    active = list(canvases)
    while active:
        for colour in (0, 1):
            fields = [
                (canvas, place)
                for canvas in active
                for place, cell in enumerate(canvas.cells)
                if (cell.row + cell.column) % 2 == colour
            ]
            for batch in _batches(fields, colour == 0, tile_batch):
                _draw(runtime, batch)
                tick(len(batch.rows))
            for canvas, place in fields:
                canvas.settle(canvas.cells[place])
        for canvas in active:
            canvas.join()
        active = [canvas for canvas in active if not canvas.last]
        for canvas in active:
            canvas.advance()


def seconds_per_tile(runtime: Runtime) -> float:
    """How long a tile takes, by drawing a few that are all hole."""
    config, count = runtime.config, 4
    shape = config.size, config.size
    x, m = np.zeros((count, config.channels, *shape), np.float32), np.ones((count, 1, *shape), np.float32)
    levels = [np.zeros((count, level.latent, level.size, level.size), np.float32) for level in config.levels]
    noise = Noise(levels, 0, np.full((m.size, config.pixel_noise), 0.5, np.float32))
    times = []
    for _ in range(2):  # the first may have to warm up
        began = perf_counter()
        runtime.draw(runtime.tell(Masked(x, m)), 1, noise)
        times.append(perf_counter() - began)
    return min(times) / count


def _batches(fields: Sequence[tuple[Canvas, int]], first: bool, tile_batch: int) -> Iterator[Batch]:
    """Fills that still share what is known of a tile, which is read once for several, or each for itself."""
    if not fields:
        return
    fills = len(fields[0][0].recipes)
    portion = min(PORTION, tile_batch, fills) if first and fields[0][0].guides is None else 1
    for start in range(0, fills, portion):
        group = range(start, min(start + portion, fills))
        rows = [Row(*field, fill) for field in fields for fill in group]
        most = max(1, tile_batch // len(group)) * len(group)
        for at in range(0, len(rows), most):
            yield Batch(rows[at : at + most], len(group))


def _draw(runtime: Runtime, batch: Batch) -> None:
    """Draw the rows, and keep their cells."""
    shown = batch.rows[:: batch.copies]
    holes = [~row.canvas.known[row.cell.tile] for row in shown]
    told = runtime.tell(_masked(shown, holes))
    noise = _noise(runtime, batch.rows, [int(hole.sum()) for hole in holes for _ in range(batch.copies)])
    tiles = runtime.draw(told, batch.copies, noise)
    drawn, means = to_levels(tiles.x), to_levels(tiles.mean)
    latents = tiles.latents if batch.rows[0].canvas.step == 0 else []
    for number, row in enumerate(batch.rows):
        canvas = row.canvas
        # The pixels' own noise at a coarse size, enlarged, would be blotches: only the last size has it.
        answer = (drawn if canvas.last else means)[number]
        canvas.keep(row.cell, row.fill, answer, means[number])
        for level, z in zip(canvas.latents, latents, strict=False):
            level[row.fill, row.place] = z[number]


def _masked(rows: Sequence[Row], holes: Sequence[np.ndarray]) -> Masked:
    """The rows' tiles with these holes."""
    x = to_planes(np.stack([row.canvas.images[row.fill][row.cell.tile] for row in rows]))
    guided = [row.canvas.guides[row.fill][row.cell.tile] for row in rows if row.canvas.guides is not None]
    guide = to_planes(np.stack(guided)) if guided else None
    m = np.stack(holes)[:, None].astype(np.float32)
    kept = np.zeros_like(m)
    for own, hole, row in zip(kept, m, rows, strict=True):
        own[(0, *row.cell.within)] = hole[(0, *row.cell.within)]
    # Of the first size the latents are recorded, all over the tile.
    return Masked(x, m, guide, [row.canvas.said for row in rows], kept if rows[0].canvas.step else None)


def _noise(runtime: Runtime, rows: Sequence[Row], pixels: Sequence[int]) -> Noise:
    """Of rows with so many hole pixels each."""
    config, draws, first = runtime.config, runtime.draws, rows[0].canvas
    given = len(first.given) if first.step == 0 else 0

    def latents(level: int, calibrated: float) -> np.ndarray:
        if level < given:
            return np.stack([row.canvas.given[level][row.place] for row in rows])
        layers, spec = [row.layer(level) for row in rows], config.levels[level]
        shape = spec.latent, spec.size, spec.size
        noise = [layer.normal(draws, shape, level, *row.where) for layer, row in zip(layers, rows, strict=True)]
        warmths = [calibrated * row.canvas.temperature(spec.size) for row in rows]
        scales = [np.float32(warmth * layer.temperature) for warmth, layer in zip(warmths, layers, strict=True)]
        return np.stack([scale * own for scale, own in zip(scales, noise, strict=True)])

    last, width = len(config.levels) - 1, config.pixel_noise
    uniform = [
        draws.uniform(row.layer(last).pixels(*row.where), (count, width))
        for row, count in zip(rows, pixels, strict=True)
    ]
    return Noise([latents(*each) for each in enumerate(runtime.temperatures)], given, np.concatenate(uniform))
