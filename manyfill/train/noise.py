"""The posterior's noise, drawn picture by picture, so that no rank and no micro-batch has a say in it; and dropout's,
drawn micro-batch by micro-batch."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from manyfill.models.config import ModelConfig
from manyfill.rng import generator, key
from manyfill.train.settings import Settings


def posterior_noise(
    model: ModelConfig, seed: int, purpose: str, index: int, places: range, device: torch.device
) -> Tensor:
    """Normal numbers for all latents (len(places), V) of the pictures at `places` of the batch `index`."""
    values = sum(level.latent * level.size**2 for level in model.levels)
    rows = [
        torch.randn(values, generator=generator(seed, purpose, index, place, device=device), device=device)
        for place in places
    ]
    return torch.stack(rows) if rows else torch.zeros(0, values, device=device)


@contextmanager
def dropped(settings: Settings, step: int, places: range, device: torch.device) -> Iterator[None]:
    """What layers of dropout draw within is fixed by the seed, the step and the first of the `places` in the batch."""
    if not (settings.model.dropout or settings.model.border_dropout):
        yield
        return
    # These layers know no generator but torch's own.
    with torch.random.fork_rng([device] if device.type == "cuda" else []):
        torch.manual_seed(key(settings.seed, "dropout", step, places.start))
        yield
