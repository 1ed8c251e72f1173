"""Two threads at most, as the networks here are too small to gain from more; and the fixtures of training."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import torch
from browsing import address, browser, desk, page  # noqa: F401  fixtures
from commandline import here  # noqa: F401
from evaluating import saved
from filling import make_pictures
from packing import assorted, undisturbed  # noqa: F401
from storing import stored  # noqa: F401
from streams import seven, seven_files  # noqa: F401
from training import Micro, smooth
from untrained import filler  # noqa: F401

from manyfill.images import resize, save_png
from manyfill.train.settings import Settings, load

torch.set_num_threads(min(2, torch.get_num_threads()))


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
def micro_toml() -> Path:
    return Path(__file__).with_name("micro.toml")


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


@pytest.fixture
def gappy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, one_thread: None) -> Path:
    """A folder to work in, with pictures in `in` and a mask for each in `masks`."""
    monkeypatch.chdir(tmp_path)
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    make_pictures()
    return tmp_path
