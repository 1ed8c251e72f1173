"""What is published: the wheel and the sdist, what is in them, and that the wheel works where it is installed."""

import subprocess
import tarfile
import zipfile
from pathlib import Path

import pytest
from documented import ROOT, furnish
from newcomer import distributions, environment

from manyfill import __version__

pytestmark = pytest.mark.slow
PACKAGE = ROOT / "manyfill"
PICTURES = (".png", ".jpg", ".jpeg", ".webp", ".tif", ".gif", ".npy")


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return distributions(tmp_path_factory.mktemp("dist"))


def files(path: Path) -> list[str]:
    """The names in a wheel, or in an sdist without the folder around them all."""
    if path.suffix == ".whl":
        return zipfile.ZipFile(path).namelist()
    with tarfile.open(path) as archive:
        return [member.name.partition("/")[2] for member in archive if member.isfile()]


@pytest.mark.parametrize("kind", ["wheel", "sdist"])
def test_all_that_is_needed_is_in_and_nothing_else(built: dict[str, Path], kind: str) -> None:
    names = set(files(built[kind]))
    wanted = {
        path.relative_to(ROOT).as_posix()
        for path in PACKAGE.rglob("*")
        if path.is_file() and path.suffix != ".pyc" and "__pycache__" not in path.parts
    }
    assert wanted <= names and "manyfill/web/static/index.html" in names
    assert {f"manyfill/weights/{name}/model.safetensors" for name in ("base64", "multiscale64")} <= names
    strangers = {name.split("/")[0] for name in names if "/" in name} - {"manyfill", "manyfill.egg-info"}
    assert strangers <= {f"manyfill-{__version__}.dist-info"}
    assert not [name for name in names if name.endswith(PICTURES)]
    assert any(name.split("/")[-1] == "LICENSE" for name in names)
    assert built[kind].stat().st_size < 25e6


def test_the_wheel_says_its_licence_and_what_it_needs(built: dict[str, Path]) -> None:
    with zipfile.ZipFile(built["wheel"]) as wheel:
        metadata = wheel.read(f"manyfill-{__version__}.dist-info/METADATA").decode()
        licence = wheel.read(f"manyfill-{__version__}.dist-info/licenses/LICENSE")
    assert licence == (ROOT / "LICENSE").read_bytes()
    assert "License-Expression: Apache-2.0" in metadata and "Requires-Dist: torch" in metadata
    assert "Provides-Extra: web" in metadata and "torchvision" not in metadata


def test_it_works_where_nothing_of_the_checkout_is(built: dict[str, Path], tmp_path: Path) -> None:
    bin = environment(tmp_path / "venv", built["wheel"])
    furnish(tmp_path)

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, env={"PATH": "/usr/bin:/bin"}, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(str(bin / "python"), "-c", "import manyfill; print(manyfill.__file__)")
    assert where.startswith(str(tmp_path))
    assert run(str(bin / "manyfill"), "--version").strip() == __version__
    run(str(bin / "manyfill"), "fill", "photo.jpg", "--mask", "mask.png", "-n", "1", "--out", "fills")
    assert (tmp_path / "fills" / "fill-00.jpg").is_file()
