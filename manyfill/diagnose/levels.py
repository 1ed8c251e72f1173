"""What each latent level does to a fill, as grids of pictures: the command `manyfill levels`.

Legend: S the model's size, C channels, L levels, N draws.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyfill.caption import Caption, tell
from manyfill.completions import hatched
from manyfill.device import autocast
from manyfill.diagnostics import Take, expected, spread, takes_of
from manyfill.errors import PictureError
from manyfill.files import make_folder, save_text
from manyfill.images import contact_sheet, save_png, to_pixels
from manyfill.inputs import PictureLike, Sampling, read
from manyfill.likelihood import at_once
from manyfill.pipeline import Filler

TILE, LOW_CELLS = 96, 8


@dataclass(frozen=True, eq=False)
class LevelGrids:
    """`alone`: a row for each level, which alone is drawn; `rest`: a row for each k, levels 1 to k fixed and the rest
    drawn anew; both uint8 (H', W', 3). `record` has each level's spread in grey levels."""

    alone: np.ndarray
    rest: np.ndarray
    record: dict[str, Any]


@torch.inference_mode()
def level_grids(
    filler: Filler,
    image: PictureLike,
    mask: PictureLike | None = None,
    n: int = 6,
    seed: int = 0,
    caption: str | None = None,
) -> LevelGrids:
    """Grids of N expected pictures a row, at the model's size. Raises PictureError and ConfigError."""
    Sampling(n, seed)
    said = Caption.of(caption)
    subject = read(image, mask)
    if not subject.hole.any():
        raise PictureError(f"{subject.picture.name}: nothing is missing; paint the hole white in --mask")
    model, specs = filler.model, filler.model.config.levels
    x, m = at_once(model, subject.picture.pixels, subject.hole)
    levels, names = len(specs), [f"{i}: {spec.size}x{spec.size}" for i, spec in enumerate(specs, 1)]
    with autocast(filler.device):
        known = model.encode_known(x, m, told=tell(model, said) if said else {})
        low = max(1, model.config.size // LOW_CELLS)
        moved, moved_low = (spread(model, known, max(n, 8), seed, cell)[:, 0].tolist() for cell in (1, low))

        def row(takes: list[Take], draws: int) -> list[np.ndarray]:
            return _pictures(expected(model, known, takes, draws, seed)[0])

        still = row(["mean"] * levels, 1)
        first = [hatched(to_pixels(x[0]), m[0, 0].cpu().numpy() > 0), *still]
        alone = [row(takes_of(levels, alone=level), n) for level in range(levels)]
        rest = [row(takes_of(levels, kept=level), n) for level in range(levels)]
    described = [f"{name}, moves {by:.1f}" for name, by in zip(names, moved, strict=True)]
    kept = ["all drawn", *(f"1 to {level} fixed" for level in range(1, levels))]
    record = [
        {"level": i, "size": spec.size, "spread": moved[i - 1], "low_frequency_spread": moved_low[i - 1]}
        for i, spec in enumerate(specs, 1)
    ]
    return LevelGrids(
        _sheet(first, alone, described), _sheet(first, rest, kept), {"model": filler.id, "levels": record}
    )


def _pictures(x: Tensor) -> list[np.ndarray]:
    return [to_pixels(picture) for picture in x]


def _sheet(first: list[np.ndarray], rows: list[list[np.ndarray]], names: list[str]) -> np.ndarray:
    labels = [["hole", "all at mean"], *([name, *[""] * (len(row) - 1)] for name, row in zip(names, rows, strict=True))]
    return contact_sheet([first, *rows], labels, tile=max(TILE, first[0].shape[0]))


def write_levels(
    model: str | os.PathLike[str],
    photo: Path,
    mask: Path | None,
    out: Path,
    n: int,
    seed: int,
    caption: str | None = None,
) -> str:
    """Write OUT/alone.png, OUT/rest.png and OUT/levels.json; returns a summary. Raises ManyfillError."""
    import json

    grids = level_grids(Filler.from_pretrained(model), photo, mask, n, seed, caption)
    make_folder(out)
    save_png(out / "alone.png", grids.alone)
    save_png(out / "rest.png", grids.rest)
    save_text(out / "levels.json", json.dumps(grids.record, indent=1) + "\n")
    lines = ["level  size  moves a fill by  at low frequencies (grey levels)"]
    for level in grids.record["levels"]:
        lines.append(
            f"{level['level']:5}  {level['size']:4}  {level['spread']:15.2f}  {level['low_frequency_spread']:18.2f}"
        )
    return "\n".join([*lines, f"look at {out / 'alone.png'} and {out / 'rest.png'}"])
