"""From the holes of pictures to their fills: what is drawn together, at what cost, and how it comes together again.

Legend: H W a picture's size, C its channels, s the side of the square around a hole, N fills, T first cells.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from time import perf_counter

import numpy as np

from manyfill import octaves
from manyfill.crop import Box, Part, paste
from manyfill.effort import Effort, Progress, afford
from manyfill.models.config import ModelConfig
from manyfill.octaves import Canvas
from manyfill.recipe import Recipe, Recipes
from manyfill.runtime import Runtime, Said


@dataclass(frozen=True)
class Shown:
    """What the model is shown of a picture of `values` values: its holes, the sizes that each is drawn at, and the
    square `box` around all of them; and what is said of it, if anything."""

    box: Box
    parts: list[Part]
    sizes: list[list[int]]
    values: int
    said: Said | None = None


@dataclass(frozen=True)
class Drawn:
    """The fills of each part of a picture (N, s, s, C) and the sum of their expectations (s, s, C); of each fill its
    recipe, and by level the latents (N, T, Z, size, size) of all parts; and the seconds it took."""

    fills: list[np.ndarray]
    totals: list[np.ndarray]
    latents: list[np.ndarray]
    recipes: list[Recipe]
    seconds: float

    @property
    def means(self) -> list[np.ndarray]:
        """The expectation of each part, averaged over the fills, uint8."""
        return [np.rint(total / len(self.recipes)).astype(np.uint8) for total in self.totals]


def joined(portions: Sequence[Drawn]) -> Drawn:
    """One picture's fills, drawn in portions."""
    return Drawn(
        [np.concatenate(part) for part in zip(*(p.fills for p in portions), strict=True)],
        [np.sum(part, 0) for part in zip(*(p.totals for p in portions), strict=True)],
        [np.concatenate(level) for level in zip(*(p.latents for p in portions), strict=True)],
        [recipe for portion in portions for recipe in portion.recipes],
        sum(portion.seconds for portion in portions),
    )


def draw(
    runtime: Runtime,
    pictures: Sequence[Shown],
    recipes: Recipes,
    given: Sequence[np.ndarray],
    tile_batch: int,
    max_memory: int | None,
    progress: Progress | None = None,
) -> Iterator[list[Drawn]]:
    """Fills of each picture by these recipes, in portions of so many that their tiles make a batch: all pictures in
    common batches, fill by fill the same portions whoever asks. ConfigError for too little memory.

    `given` are the latents (T, Z, size, size) of the first levels of a single picture, if known.
    """
    config, done = runtime.config, 0
    own = [recipes(len(config.levels) + max(map(len, shown.sizes)) - 1) for shown in pictures]
    afforded = planned(config, pictures, len(own[0]), tile_batch, max_memory)
    effort = replace(afforded, pace=partial(octaves.seconds_per_tile, runtime))

    def tick(tiles: int) -> None:
        nonlocal done
        done += tiles
        if progress:
            progress(effort, done)

    tick(0)
    tiles = afforded.tiles // len(own[0])  # of a fill of every picture
    portion = min(max(1, tile_batch // tiles), octaves.PORTION)
    for start in range(0, len(own[0]), portion):
        began = perf_counter()
        chosen = [each[start : start + portion] for each in own]
        boards = [_canvases(config, shown, each, given) for shown, each in zip(pictures, chosen, strict=True)]
        octaves.draw(runtime, [canvas for board in boards for canvas in board], effort.batch, tick)
        seconds = (perf_counter() - began) / len(pictures)
        yield [_drawn(board, seconds) for board in boards]


def planned(
    config: ModelConfig, pictures: Sequence[Shown], fills: int, tile_batch: int, max_memory: int | None
) -> Effort:
    """What so many fills of each picture take; ConfigError for too little memory."""
    holes = [(part, plan) for shown in pictures for part, plan in zip(shown.parts, shown.sizes, strict=True)]
    tiles = fills * sum(octaves.rows(part, plan, config.size) for part, plan in holes)
    values = sum(shown.values for shown in pictures)
    around = config.channels * sum(part.box.side**2 for part, _ in holes)
    walks = 2 if any(shown.said and shown.said.guidance != 1 for shown in pictures) else 1
    return afford(tiles, values, around, fills, config, tile_batch, max_memory, walks)


def _canvases(
    config: ModelConfig, shown: Shown, recipes: Sequence[Recipe], given: Sequence[np.ndarray]
) -> list[Canvas]:
    board, first = [], 0
    for number, (part, plan) in enumerate(zip(shown.parts, shown.sizes, strict=True)):
        canvas = Canvas(part, number, plan, recipes, config)
        canvas.given = [z[first : first + len(canvas.cells)] for z in given]
        canvas.said = shown.said
        first += len(canvas.cells)
        board.append(canvas)
    return board


def _drawn(board: Sequence[Canvas], seconds: float) -> Drawn:
    totals = [canvas.mean for canvas in board]
    latents = [np.concatenate(level, 1) for level in zip(*(canvas.latents for canvas in board), strict=True)]
    return Drawn([canvas.images for canvas in board], totals, latents, list(board[0].recipes), seconds)


def pasted(pixels: np.ndarray, holes: Sequence[Part], fills: Sequence[np.ndarray]) -> np.ndarray:
    """The picture (H, W, C) with its holes filled, and every known pixel as it was."""
    image = pixels.copy()
    for part, fill in zip(holes, fills, strict=True):
        paste(image, part.own, part.box, fill)
    return image
