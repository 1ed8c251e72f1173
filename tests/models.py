"""Models, pictures, holes and noise to test models with."""

import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from autoregression import tiny
from torch import Tensor

from manyfill.images import to_tensor
from manyfill.masks import draw
from manyfill.models.config import PRESETS, ModelConfig
from manyfill.models.hvae import ConditionalHVAE, Fills
from manyfill.rng import generator, numpy_generator

TINY = PRESETS["tiny32"]
PLAIN = PRESETS["tan2017"].model_dump(exclude={"stages", "levels", "norm"}, exclude_defaults=True)
VARIANTS = {
    "tiny32": TINY,
    "grey": TINY.model_copy(update={"channels": 1}),
    "batch": TINY.model_copy(update={"norm": "batch"}),
    "group": TINY.model_copy(update={"norm": "group"}),
    "plain": TINY.model_copy(update=PLAIN),
    "tan2017": PRESETS["tan2017"],
    "separate": TINY.model_copy(update={"extractor": "separate"}),
    "no borders": TINY.model_copy(update={"border": "none"}),
    "pixelvae": tiny("pixelcnn", priors=True),
    "multiscale": tiny("multiscale"),
}
each_variant = pytest.mark.parametrize("config", VARIANTS.values(), ids=VARIANTS.keys())
PARTS = ("stages", "levels")
# The same hierarchy at an eighth of its width, where the whole one takes too long.
NARROW = {
    part: [s.model_copy(update={"width": s.width // 8}) for s in getattr(PRESETS["large256"], part)] for part in PARTS
}
SHAPES = PRESETS | {"large256": ModelConfig.model_validate(PRESETS["large256"].model_dump() | NARROW)}
each_preset = pytest.mark.parametrize("preset", PRESETS)


def fresh(config: ModelConfig) -> ConditionalHVAE:
    """Initialised as `train` does it, from seed 0."""
    with torch.random.fork_rng():
        torch.default_generator.set_state(generator(0, "weights").get_state())
        return ConditionalHVAE(config)


@functools.cache
def shaken(config: ModelConfig) -> ConditionalHVAE:
    """In eval mode, away from its initial weights, so that nothing is zero or one by accident; do not change it."""
    model, g = fresh(config).eval(), generator(0, "shake")
    with torch.no_grad():
        for p in model.parameters():
            p.add_((0.5 * p.std(correction=0) or 0.05) * torch.randn(p.shape, generator=g))
    return model


def pictures(config: ModelConfig, count: int = 2, seed: int = 0) -> Tensor:
    """Smooth pictures with some noise (B, C, S, S), on the grid of 256 values."""
    rng = numpy_generator(seed, "pictures")
    coarse = torch.from_numpy(rng.uniform(0, 255, (count, config.channels, 4, 4)))
    smooth = F.interpolate(coarse, config.size, mode="bilinear") + torch.from_numpy(
        rng.normal(0, 8, (count, config.channels, config.size, config.size))
    )
    pixels = smooth.clamp(0, 255).to(torch.uint8).permute(0, 2, 3, 1).numpy()
    return torch.stack([to_tensor(picture) for picture in pixels])


def holes(config: ModelConfig, *kinds: str) -> Tensor:
    """Masks (B, 1, S, S)."""
    rng = numpy_generator(0, "holes")
    masks = [torch.from_numpy(draw(kind, config.size, config.size, rng)) for kind in kinds or ("centre", "boxes")]
    return torch.stack(masks)[:, None].float()


def noises(count: int, seed: int = 0) -> list[torch.Generator]:
    return [generator(seed, "noise", i) for i in range(count)]


@torch.inference_mode()
def fill(model: ConditionalHVAE, x: Tensor, m: Tensor, noise: Sequence[torch.Generator], **options: Any) -> Fills:
    return model.fill(model.encode_known(x, m), noise, **options)
