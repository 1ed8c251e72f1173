"""Where pictures are read from: folders and tar shards, and one line on what is neither."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from pictures import patches, png, write_folder, write_tar
from PIL import Image
from streams import CONFIG, take

from manyfill.data import (
    TrainingSamples,
    open_source,
)
from manyfill.data.folder import EXTENSIONS, parse_captions
from manyfill.decode import ALLOWED_FORMATS
from manyfill.errors import DataError


def test_folder_is_read_recursively_in_order_with_captions(seven: Path) -> None:
    write_folder(seven, {"notes.md": b"x", ".hidden.png": b"x", "._01.png": b"x"})
    source = open_source(seven)
    names = [os.path.relpath(source.name(i), seven) for i in range(len(source))]
    assert names == ["00.png", "01.png", "02.png", "03.png", "04.png", "05.png", os.path.join("deep", "er", "06.png")]
    assert source[0].captions == ["a ginger cat", "green eyes"]
    assert source[1].captions == []
    assert all(np.array_equal(source[i].pixels, pixels) for i, pixels in enumerate(patches(6)))


@pytest.mark.parametrize("prefix", ["", "./"])
def test_tar_and_folder_give_the_same(seven: Path, seven_files: dict[str, bytes], tmp_path: Path, prefix: str) -> None:
    shard = write_tar(tmp_path / "shard.tar", seven_files, prefix)
    from_folder, from_tar = open_source(seven), open_source(shard)
    assert len(from_folder) == len(from_tar) == 7
    for i in reversed(range(7)):  # not in the order in which the bytes lie
        assert np.array_equal(from_folder[i].pixels, from_tar[i].pixels)
        assert from_folder[i].captions == from_tar[i].captions
    one, other = (take(TrainingSamples(source, CONFIG), 4) for source in (from_folder, from_tar))
    assert all(torch.equal(a.x, b.x) and torch.equal(a.m, b.m) for a, b in zip(one, other, strict=True))


def test_paths_are_joined_and_a_folder_may_hold_shards(
    seven: Path, seven_files: dict[str, bytes], tmp_path: Path
) -> None:
    (tmp_path / "shards").mkdir()
    for name in ("b.tar", "a.tar"):
        write_tar(tmp_path / "shards" / name, seven_files)
    source = open_source(seven, tmp_path / "shards")
    assert len(source) == 21
    assert [Path(source.name(i)).parts[-2] for i in (0, 7, 14)] == ["pictures", "a.tar", "b.tar"]
    assert np.array_equal(source[20].pixels, source[6].pixels)
    with pytest.raises(IndexError):
        source[21]


def cut_tar(path: Path) -> Path:
    write_tar(path, {f"{i}.png": png(p) for i, p in enumerate(patches(3))})
    path.write_bytes(path.read_bytes()[:700])
    return path


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda root: root / "absent", "no such"),
        (lambda root: write_folder(root / "bare", {"a.md": b"x"}), "no pictures"),
        (lambda root: write_tar(root / "bare.tar", {"a.json": b"x"}), "no pictures"),
        (lambda root: write_folder(root, {"a.zip": b"x"}) / "a.zip", "neither"),
        (lambda root: write_folder(root, {"a.tar": b"not a tar" * 200}) / "a.tar", "tar"),
        (lambda root: cut_tar(root / "cut.tar"), "tar"),
    ],
)
def test_unusable_paths_are_refused_in_one_line_that_names_them(
    tmp_path: Path, make: Callable[[Path], Path], words: str
) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError, match=words) as caught:
        open_source(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_every_extension_taken_is_of_an_allowed_format() -> None:
    formats = Image.registered_extensions()
    assert {formats[extension] for extension in EXTENSIONS} <= set(ALLOWED_FORMATS)


def test_a_mark_of_byte_order_is_no_part_of_a_caption() -> None:
    assert parse_captions("\ufeffa dog\n".encode()) == ["a dog"]
