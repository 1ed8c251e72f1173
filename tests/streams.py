"""What the tests of the training stream share: seven pictures, how batches of them are read and compared."""

import itertools
from pathlib import Path

import pytest
import torch
from pictures import patches, png, write_folder

from manyfill.data import (
    Batch,
    StreamConfig,
    TrainingSamples,
    batches,
)

SIZE = 16
CONFIG = StreamConfig(size=SIZE, seed=7)


@pytest.fixture
def seven_files() -> dict[str, bytes]:
    """Seven small pictures, one in a subfolder, the first with two captions."""
    found = {f"{index:02}.png": png(pixels) for index, pixels in enumerate(patches(6))}
    found["00.txt"] = b"a ginger cat\n\n  green eyes \n"
    found["deep/er/06.png"] = png(patches(7)[6])
    return found


@pytest.fixture
def seven(tmp_path: Path, seven_files: dict[str, bytes]) -> Path:
    return write_folder(tmp_path / "pictures", seven_files)


def same(a: Batch, b: Batch) -> bool:
    tensors = all(torch.equal(getattr(a, k), getattr(b, k)) for k in ("x", "m", "guide", "guide_present"))
    return tensors and (a.captions, a.names, a.skipped) == (b.captions, b.names, b.skipped)


def take(samples: TrainingSamples, count: int, **options: int) -> list[Batch]:
    stream = batches(samples, batch_size=3, **{"workers": 0, **options})
    return list(itertools.islice(stream, count))
