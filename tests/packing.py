"""What the tests of packing share: pictures of all sorts, the command, and the shards it makes of them."""

from pathlib import Path

import pytest
from pictures import encoded, jpeg, patches, png, write_folder

from manyfill.cli import main

COUNT, PER_SHARD = 23, 5


@pytest.fixture(scope="module")
def assorted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """JPEGs with captions, a PNG, a BMP, and two files that are no pictures."""
    files: dict[str, bytes] = {}
    for i, pixels in enumerate(patches(COUNT - 4, 40, 30)):
        files |= {f"{i:02}.jpg": jpeg(pixels), f"{i:02}.txt": f"cat {i}\nseen {i} times\n".encode()}
    a, b = patches(2)
    files |= {"90.png": png(a), "91.bmp": encoded(b, "BMP"), "07b.jpg": b"no picture", "92.png": b""}
    return write_folder(tmp_path_factory.mktemp("src") / "pictures", files)


def command(source: Path, out: Path, *more: str) -> list[str]:
    return ["shard", str(source), str(out), "--per-shard", str(PER_SHARD), *more]


def shards(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.glob("*.tar"))}


@pytest.fixture(scope="module")
def undisturbed(assorted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(command(assorted, out)) == 0
    return out
