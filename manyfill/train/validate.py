"""Validation while training: the bound on fixed pictures with fixed masks, and a sheet of fills to look at."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import torch

from manyfill.data import Batch, Skipped, Source, fixed_batches
from manyfill.device import autocast
from manyfill.diagnostics import LatentUse
from manyfill.images import contact_sheet, save_png, to_pixels
from manyfill.models.bound import Bound, bits_per_dim
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import generator
from manyfill.train.distributed import ALONE, Ranks
from manyfill.train.noise import posterior_noise
from manyfill.train.settings import Settings
from manyfill.train.tally import Tally

PICTURES_AT_ONCE = 32
SHEET_KINDS = ("centre", "brush")
SHEET_PICTURES, SHEET_FILLS = 4, 6


@torch.inference_mode()
def bound_figures(
    model: ConditionalHVAE, batches: Iterable[Batch], settings: Settings, device: torch.device, ranks: Ranks = ALONE
) -> tuple[dict[str, float], list[Skipped]]:
    """Bits per hole value (see `Tally.figures`) of whole batches without a guide, what their latents carry (see
    `LatentUse.figures`), and the pictures left out. Of a model with captions also what they gain (see `CaptionGain`).

    Each rank takes its share of every batch's pictures; the sums over all are exact, and every rank gets them.
    """
    levels, skipped = model.config.levels, []
    tally, use = Tally(len(levels), device), LatentUse([level.latent for level in levels], device)
    gain = CaptionGain(device)
    with ranks.together():
        for index, batch in enumerate(batches):
            skipped += batch.skipped
            mine = range(ranks.rank, len(batch.x), ranks.world)
            if not mine:
                continue
            noise = posterior_noise(model.config, settings.seed, "validation", index, mine, device)
            rows = slice(mine.start, mine.stop, mine.step)
            x, m, captions = batch.x[rows].to(device), batch.m[rows].to(device), batch.told[rows]
            with autocast(device, settings.train.precision):
                bound, steps = model.bound(model.encode(x, m), noise)
                if model.config.captions and any(captions):
                    tokens = model.tokens(captions).to(device)
                    gain.add(captions, bound, model(x, m, noise=noise, tokens=tokens))
            tally.add(bound)
            use.add(steps)
    for part in (tally, use, gain):
        ranks.sum(part.sums)
    return tally.figures() | use.figures() | gain.figures(), skipped


class CaptionGain:
    """What the first captions of pictures that have any gain: `caption_gain`, in bits per hole value, is the bound told
    nothing less the bound told them, under the same noise."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(2, dtype=torch.float64, device=device)  # nats, hole values

    def add(self, captions: list[str | None], untold: Bound, told: Bound) -> None:
        has = torch.tensor([caption is not None for caption in captions], device=self.sums.device)
        self.sums += torch.stack([(told.total - untold.total)[has].double().sum(), told.dims[has].double().sum()])

    def figures(self) -> dict[str, float]:
        """Nothing where no picture had a caption."""
        nats, dims = self.sums.tolist()
        return {"caption_gain": bits_per_dim(nats, dims)} if dims else {}


def validation_batches(
    source: Source, settings: Settings, kind: str = "centre", size: int = PICTURES_AT_ONCE, limit: int | None = None
) -> Iterator[Batch]:
    """The first `limit` pictures (`train.validation_pictures`) in batches of `size`, always the same; DataError if none
    can be read."""
    model, limit = settings.model, limit or settings.train.validation_pictures
    return fixed_batches(
        source, model.size, model.channels, settings.seed, kind, size, limit, strict=settings.data.strict
    )


@torch.inference_mode()
def save_sheet(model: ConditionalHVAE, source: Source, settings: Settings, device: torch.device, path: Path) -> None:
    """A row per picture: the truth, the hole, and fills."""
    rows: list[list[np.ndarray]] = []
    for kind in SHEET_KINDS:
        batch = next(validation_batches(source, settings, kind, SHEET_PICTURES))
        rows += _rows(model, batch.to(device), settings)
    save_png(path, contact_sheet(rows, tile=2 * model.config.size))


def _rows(model: ConditionalHVAE, batch: Batch, settings: Settings) -> list[list[np.ndarray]]:
    count = len(batch.x)
    noise = [generator(settings.seed, "sheet", i) for i in range(count * SHEET_FILLS)]
    with autocast(batch.x.device, settings.train.precision):
        fills = model.fill(model.encode_known(batch.x, batch.m), noise).x
    fills = fills.view(count, SHEET_FILLS, *batch.x.shape[1:]).cpu()
    shown = zip(batch.x.cpu(), batch.known.cpu(), fills, strict=True)
    return [[to_pixels(x), to_pixels(known), *(to_pixels(fill) for fill in row)] for x, known, row in shown]
