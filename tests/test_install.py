"""What a stranger installs: a wheel with the extra `onnx` alone fills a picture, and torch is not there."""

import os
import shutil
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from exporting import MICRO, stored

import manyfill
from manyfill.cli import main
from manyfill.images import open_picture, save_png
from manyfill.masks import write_mask

ROOT = Path(manyfill.__file__).parent.parent
PYTHON = """
import importlib.util
from manyfill import Filler
assert importlib.util.find_spec("torch") is None
completions = Filler.from_pretrained("exported")("photo.png", "mask.png", n=3, seed=1)
completions.save("python")
"""


def ran(*command: str | Path, cwd: Path) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(list(map(str, command)), cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture
def here(tmp_path: Path) -> Path:
    """A folder with a photo, its mask and an exported model."""
    pixels, mask = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8), np.zeros((40, 50), bool)
    mask[8:30, 18:40] = True
    save_png(tmp_path / "photo.png", pixels)
    write_mask(tmp_path / "mask.png", mask)
    assert main(["export", str(stored(MICRO, tmp_path / "model")), "--onnx", str(tmp_path / "exported")]) == 0
    return tmp_path


@pytest.mark.slow
def test_the_wheel_with_onnx_alone(here: Path) -> None:
    source = here / "source"
    shutil.copytree(ROOT / "manyfill", source / "manyfill", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    venv.create(here / "venv", with_pip=True)
    programs = here / "venv" / "bin"
    pip = programs / "pip"
    ran(pip, "wheel", "--no-deps", "--wheel-dir", here, source, cwd=here)
    (wheel,) = here.glob("manyfill-*.whl")
    ran(pip, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[onnx]", cwd=here)
    assert "torch" not in {line.split("==")[0].lower() for line in ran(pip, "freeze", cwd=here).split()}

    fill = (
        "fill",
        "photo.png",
        "--mask",
        "mask.png",
        "-n",
        "3",
        "--seed",
        "1",
        "--out",
        "command",
        "--model",
        "exported",
    )
    ran(programs / "manyfill", *fill, cwd=here)
    ran(programs / "python", "-c", PYTHON, cwd=here)
    assert "sampler graph" in ran(programs / "manyfill", "info", "exported", cwd=here)
    whole, mask = open_picture(here / "photo.png").pixels, open_picture(here / "mask.png").pixels[..., 0] > 127
    for name in ("fill-00.png", "fill-02.png", "mean.png"):
        one, other = (open_picture(here / way / name).pixels for way in ("command", "python"))
        assert np.array_equal(one, other) and np.array_equal(one[~mask], whole[~mask])
        assert not np.array_equal(one, whole)
