"""What the tests of exported models share: models small enough to be exported in seconds."""

from pathlib import Path

import torch

from manyfill.checkpoint import save_model
from manyfill.models.config import LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE

SIZE = 16
MICRO = ModelConfig(
    size=SIZE,
    stages=(StageSpec(size=16, width=8, depth=0), StageSpec(size=8, width=8), StageSpec(size=1, width=8)),
    levels=tuple(LevelSpec(size=size, width=8, latent=3, lead=size % 2) for size in (1, 8, 8, 16)),
    mixtures=3,
    kinds=2,
)
PLAIN = {"canvas": False, "guide": False, "border": "conv", "down": "maxpool", "up": "bilinear", "norm": "batch"}
# What the default model has, and everything otherwise.
CHANGES = {"multiscale": {"head": "multiscale"}, "plain": PLAIN}
CONFIGS = {name: MICRO.model_copy(update=change) for name, change in CHANGES.items()}


def stored(config: ModelConfig, directory: Path) -> Path:
    """A model none of whose weights is 0, as some are before training."""
    torch.manual_seed(0)
    model = ConditionalHVAE(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
        model.temperatures.copy_(torch.linspace(0.7, 1.2, len(config.levels)))
        if model.expectation is not None and model.expectation.kinds is not None:
            model.expectation.kinds *= torch.rand_like(model.expectation.kinds) + 0.5
    save_model(directory, model, "# A card\n", {"bits_per_dim": 7.25})
    return directory
