"""What a stranger installs: a wheel with the extra `onnx` alone fills a picture, and torch is not there."""

import os
import subprocess
import venv
from pathlib import Path

import numpy as np
import pytest
from commandline import MASK, PIXELS, ROOT
from exporting import MICRO, stored
from newcomer import distributions

from manyfill.cli import main
from manyfill.images import open_picture

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


@pytest.mark.slow
def test_the_wheel_with_onnx_alone(here: Path) -> None:
    assert main(["export", str(stored(MICRO, here / "model")), "--onnx", "exported"]) == 0
    wheel = distributions(here / "dist")["wheel"]
    venv.create(here / "venv", with_pip=True)
    programs = here / "venv" / "bin"
    pip = programs / "pip"
    ran(pip, "install", "--constraint", ROOT / "constraints.txt", f"{wheel}[onnx]", cwd=here)
    assert "torch" not in {line.split("==")[0].lower() for line in ran(pip, "freeze", cwd=here).split()}

    fill = "fill photo.png --mask mask.png -n 3 --seed 1 --out command --model exported"
    ran(programs / "manyfill", *fill.split(), cwd=here)
    ran(programs / "python", "-c", PYTHON, cwd=here)
    assert "sampler graph" in ran(programs / "manyfill", "info", "exported", cwd=here)
    for name in ("fill-00.png", "fill-02.png", "mean.png"):
        one, other = (open_picture(here / way / name).pixels for way in ("command", "python"))
        assert np.array_equal(one, other) and np.array_equal(one[~MASK], PIXELS[~MASK])
        assert not np.array_equal(one, PIXELS)
