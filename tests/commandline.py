"""What the tests of the command line share: a photograph with a mask, and the line with which it refuses."""

from pathlib import Path

import numpy as np
import pytest

import manyfill
from manyfill.cli import main
from manyfill.images import save_png
from manyfill.masks import write_mask

ROOT = Path(manyfill.__file__).parent.parent
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
MASK = np.zeros((40, 50), bool)
MASK[10:25, 20:40] = True


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with photo.png and mask.png."""
    monkeypatch.chdir(tmp_path)
    save_png(Path("photo.png"), PIXELS)
    write_mask(Path("mask.png"), MASK)
    return tmp_path


def refusal(capsys: pytest.CaptureFixture[str]) -> str:
    """All that was said since last asked: one line on the standard error."""
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith("error: ") and shown.err.count("\n") == 1 and "Traceback" not in shown.err
    return shown.err


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    """The one line with which these arguments are refused."""
    capsys.readouterr()
    assert main(arguments) == 2
    return refusal(capsys)
