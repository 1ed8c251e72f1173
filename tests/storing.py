"""A small model to be written and read, and what there is to find in its directory."""

from pathlib import Path

import pytest
import torch

from manyfill.checkpoint import save_model
from manyfill.manifest import MANIFEST
from manyfill.models.config import LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE

FILES = ("config.json", "model.safetensors", "README.md", "figures.json", MANIFEST)
CARD, FIGURES = "# A card\n\nfor tests: äöü\n", {"bits_per_dim": 4.5, "steps": 7}


def config(width: int = 4) -> ModelConfig:
    return ModelConfig(
        size=8,
        stages=(StageSpec(size=8, width=width), StageSpec(size=4, width=width)),
        levels=(LevelSpec(size=4, width=width, latent=2), LevelSpec(size=8, width=width, latent=2)),
        norm="batch",  # for buffers, among them an integer one
        mixtures=2,
    )


def some_model(seed: int = 0) -> ConditionalHVAE:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ConditionalHVAE(config())
        model(torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8))  # moves the batch norms' statistics
    return model


@pytest.fixture
def stored(tmp_path: Path) -> Path:
    """The directory of a small model."""
    directory = tmp_path / "model"
    save_model(directory, some_model(), CARD, FIGURES)
    return directory
