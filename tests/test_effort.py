"""What a fill will take is told beforehand, kept to, and refused in one line where it cannot be."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from commandline import ROOT

from manyfill import Filler, octaves
from manyfill.cli import main
from manyfill.effort import RUNTIME, Effort, parse_memory
from manyfill.errors import ConfigError
from manyfill.images import save_png
from manyfill.masks import write_mask
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

PEAK = """
import resource, sys
import numpy as np
from manyfill import Filler

told = []
picture, hole = np.zeros((1500, 2000, 3), np.uint8), np.zeros((1500, 2000), bool)
hole[400:600, 400:600] = True
Filler.from_pretrained(device="cpu")(picture, hole, n=2, progress=lambda effort, done: told.append(effort.memory))
print(told[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
"""


def box(height: int, width: int, top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def tiny(**options: int) -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "tiny", **options)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_progress_is_told_the_effort_and_comes_to_its_end() -> None:
    told: list[tuple[Effort, int]] = []
    tiny(tile_batch=8)(noise(200, 300), box(200, 300, 40, 60, 90), n=2, progress=lambda *now: told.append(now))
    efforts, done = zip(*told, strict=True)
    assert done[0] == 0 and list(done) == sorted(set(done)) and done[-1] == efforts[0].tiles
    assert len(set(efforts)) == 1 and max(np.diff(done)) <= 8
    long: list[Effort] = []
    tiny()(noise(300, 300), box(300, 300, 60, 60, 150), n=6, progress=lambda effort, _: long.append(effort))
    assert long[0].tiles > 200 and long[0].seconds is not None and "s and up to" in str(long[0])
    assert efforts[0].seconds is None


def test_how_long_it_takes_is_found_out_only_for_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float | None] = []
    monkeypatch.setattr(octaves, "seconds_per_tile", lambda _: asked.append(0.5) or 0.5)
    told: list[Effort] = []
    tiny()(noise(300, 300), box(300, 300, 60, 60, 150), n=6, progress=lambda effort, _: told.append(effort))
    assert len(told) > 1 and not asked
    assert told[0].seconds == told[0].seconds == 0.5 * told[0].tiles and len(asked) == 1


def test_less_memory_means_smaller_batches_and_the_same_fills() -> None:
    picture, mask = noise(200, 300), box(200, 300, 40, 60, 90)
    told: list[Effort] = []
    free = tiny()(picture, mask, n=2, progress=lambda effort, _: told.append(effort))
    row = (told[0].memory - RUNTIME) // 40  # a little less than what a tile takes
    tight = tiny(max_memory=told[0].memory - 20 * row)
    kept = tight(picture, mask, n=2, progress=lambda effort, _: told.append(effort))
    assert told[-1].batch < told[0].batch and told[-1].memory <= told[0].memory - 20 * row
    for one, other in zip(free.images, kept.images, strict=True):
        assert (np.abs(one.astype(int) - other) > 1).mean() < 1e-3
    with pytest.raises(ConfigError, match="--max-memory"):
        tiny(max_memory=100 * 2**20)(picture, mask, n=2)


@pytest.mark.slow
def test_the_memory_that_is_told_is_about_what_it_takes() -> None:
    done = subprocess.run([sys.executable, "-c", PEAK], cwd=ROOT, capture_output=True, text=True, check=True)
    told, peak = map(int, done.stdout.split())
    assert 0.5 * told < peak < 1.1 * told


def test_sizes_of_memory_are_read() -> None:
    assert parse_memory("2G") == 2 << 30 and parse_memory("800m") == 800 << 20 and parse_memory("1.5GiB") == 3 << 29
    for wrong in ("much", "-1G", "2T", ""):
        with pytest.raises(ConfigError, match="--max-memory"):
            parse_memory(wrong)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--max-memory", "10M"], "--max-memory"),
        (["--max-memory", "lots"], "--max-memory lots"),
        (["--tile-batch", "0"], "--tile-batch 0"),
        (["--device", "abacus"], "--device abacus"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_written(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys, flags: list[str], words: str
) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), noise(60, 50))
    write_mask(Path("mask.png"), box(60, 50, 10, 10, 20))
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", str(model), *flags]) == 2
    told = capsys.readouterr().err
    assert told.startswith("error: ") and words in told and told.count("\n") == 1
    assert not Path("photo-fills").exists()


def test_an_interrupted_fill_leaves_nothing(model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), noise(60, 50))
    write_mask(Path("mask.png"), box(60, 50, 10, 10, 20))
    whole, seen = octaves._draw, []

    def interrupted(*arguments: object) -> None:
        whole(*arguments)  # type: ignore[arg-type]
        seen.append(1)
        raise KeyboardInterrupt

    monkeypatch.setattr(octaves, "_draw", interrupted)
    assert main(["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", str(model)]) == 130
    assert seen and sorted(path.name for path in Path().iterdir()) == ["mask.png", "photo.png"]
