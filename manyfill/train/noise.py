"""The posterior's noise, drawn picture by picture, so that no rank and no micro-batch has a say in it."""

import torch
from torch import Tensor

from manyfill.models.config import ModelConfig
from manyfill.rng import generator


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
