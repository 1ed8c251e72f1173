"""Two threads at most, as the networks here are too small to gain from more; and the fixtures of training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from evaluating import saved
from training import Micro, smooth

from manyfill.images import resize, save_png
from manyfill.train.settings import Settings, load

torch.set_num_threads(min(2, torch.get_num_threads()))

# As small as a model can be and still have two sizes, so that a step takes milliseconds.
MICRO = """
[model]
size = 8
mixtures = 2
stages = [{size = 8, width = 4}, {size = 4, width = 4}]
levels = [{size = 4, width = 4, latent = 2}, {size = 8, width = 4, latent = 2}]
[train]
batch_size = 2
workers = 0
precision = "float32"
"""


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """Models this small lose more by sharing work than they gain."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six pictures of 40x40."""
    folder = tmp_path_factory.mktemp("data") / "photos"
    folder.mkdir()
    for i in range(6):
        save_png(folder / f"{i}.png", smooth(i, 40))
    return folder


@pytest.fixture(scope="session")
def micro_toml(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("configs") / "micro.toml"
    path.write_text(MICRO)
    return path


@pytest.fixture
def micro(photos: Path, micro_toml: Path) -> Micro:
    """Settings of a run of the smallest model, with `key=value` assignments."""

    def make(*assignments: str, **flags: Any) -> Settings:
        if flags.keys().isdisjoint({"steps", "minutes"}):
            flags["steps"] = 4
        data = flags.pop("data", [str(photos)])
        return load(data, config=micro_toml, assignments=assignments, **flags)

    return make


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight 40x40 pictures cut from photographs."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, count in {"astronaut": 3, "coffee": 3, "rocket": 2}.items():
        whole = getattr(skimage.data, name)()
        for index in range(count):
            part = whole[50 * index : 50 * index + 300, 60 * index : 60 * index + 300]
            save_png(folder / f"{name}-{index}.png", resize(np.ascontiguousarray(part), 40, 40))
    return folder


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(tmp_path_factory.mktemp("models") / "first", 0)
