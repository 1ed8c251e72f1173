"""What the tests of evaluations share: an untrained model, a request, and ways to run it."""

from pathlib import Path
from typing import Any

import numpy as np
import torch

from manyfill.checkpoint import save_model
from manyfill.data import open_source
from manyfill.evaluate.cases import Cases
from manyfill.evaluate.run import Evaluation, Request
from manyfill.images import resize, save_png
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler


def saved(folder: Path, seed: int, **changes: Any) -> Path:
    torch.manual_seed(seed)
    save_model(folder, ConditionalHVAE(PRESETS["tiny32"].model_copy(update=changes)), "# A card", {"steps": 0})
    return folder


def request_of(model: Path, data: Path, **changes: Any) -> Request:
    options: dict[str, Any] = {"masks": "centre", "samples": 5, "bound_samples": 3, "limit": 4, "baselines": ("mean",)}
    return Request(models={"first": Filler.from_pretrained(model)}, data=(data,), **(options | changes))


def done(evaluation: Evaluation) -> Evaluation:
    """The evaluation with all its rows."""
    evaluation.check()
    with evaluation.claimed():
        evaluation.run(silent)
    return evaluation


def cases_of(data: Path, kind: str, count: int, channels: int = 3) -> Cases:
    return Cases(open_source(data), kind, 32, channels, range(count), 0)


def silent(numbers: Any, what: str) -> Any:
    yield from numbers


def noise_folder(folder: Path, seed: int, count: int) -> Path:
    folder.mkdir()
    rng = np.random.default_rng(seed)
    for index in range(count):
        coarse = rng.integers(0, 256, (8, 8, 3)).astype(np.uint8)
        save_png(folder / f"{index:02d}.png", resize(coarse, 32, 32))
    return folder
