"""Validation while training: the bound on fixed pictures with fixed masks, and a sheet of fills to look at."""

from pathlib import Path

import torch

from manyfill.data import Batch, Source, fixed_batches
from manyfill.device import autocast
from manyfill.images import contact_sheet, save_png, to_pixels
from manyfill.models.bound import bits_per_dim
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import generator
from manyfill.train.settings import Settings

PICTURES_AT_ONCE = 32
SHEET_KINDS = ("centre", "brush")
SHEET_PICTURES, SHEET_FILLS = 4, 6


@torch.inference_mode()
def validation_bound(
    model: ConditionalHVAE, source: Source, settings: Settings, device: torch.device
) -> dict[str, float]:
    """Bits per hole value of the bound, its pixel term and each level's KL, with centre holes and no guide."""
    pixels, dims, kl = 0.0, 0.0, torch.zeros(len(model.config.levels), dtype=torch.float64)
    batches = fixed_batches(
        source,
        model.config.size,
        model.config.channels,
        settings.seed,
        "centre",
        PICTURES_AT_ONCE,
        limit=settings.train.validation_pictures,
    )
    for index, batch in enumerate(batches):
        batch = batch.to(device)
        noise = generator(settings.seed, "validation", index, device=device)
        with autocast(device, settings.train.precision):
            bound = model(batch.x, batch.m, generator=noise)
        pixels -= bound.pixels.double().sum().item()
        kl += bound.kl.double().sum(0).cpu()
        dims += bound.dims.double().sum().item()
    figures = {
        "bits_per_dim": bits_per_dim(pixels + kl.sum().item(), dims),
        "pixel_bits": bits_per_dim(pixels, dims),
    }
    return figures | {f"kl_{level + 1:02d}": bits_per_dim(value.item(), dims) for level, value in enumerate(kl)}


@torch.inference_mode()
def save_sheet(model: ConditionalHVAE, source: Source, settings: Settings, device: torch.device, path: Path) -> None:
    """A row per picture: the truth, the hole, and fills."""
    rows = []
    for kind in SHEET_KINDS:
        size, channels = model.config.size, model.config.channels
        batch = next(fixed_batches(source, size, channels, settings.seed, kind, SHEET_PICTURES, limit=SHEET_PICTURES))
        rows += _rows(model, batch.to(device), settings)
    save_png(path, contact_sheet(rows, tile=2 * model.config.size))


def _rows(model: ConditionalHVAE, batch: Batch, settings: Settings) -> list[list]:
    count = len(batch.x)
    noise = [generator(settings.seed, "sheet", i) for i in range(count * SHEET_FILLS)]
    with autocast(batch.x.device, settings.train.precision):
        fills = model.fill(model.encode_known(batch.x, batch.m), noise).x
    fills = fills.view(count, SHEET_FILLS, *batch.x.shape[1:]).cpu()
    shown = zip(batch.x.cpu(), batch.known.cpu(), fills, strict=True)
    return [[to_pixels(x), to_pixels(known), *(to_pixels(fill) for fill in row)] for x, known, row in shown]
