"""A shard's index: stored once, and trusted only while it is whole and of that very tar."""

import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from pictures import patches, png, room_for, write_tar

from manyfill.data import index, open_source
from manyfill.data.index import ShardIndex, index_path, read_headers, shard_index
from manyfill.data.strings import Strings, printable
from manyfill.errors import DataError, PictureError

FILES = {f"{i:03}.png": png(p) for i, p in enumerate(patches(5))} | {"001.txt": b"one\nfirst\n", "004.txt": b"four"}


@pytest.fixture
def shard(tmp_path: Path) -> Path:
    return write_tar(tmp_path / "a.tar", FILES)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The shards whose headers were gone through."""
    seen: list[Path] = []
    monkeypatch.setattr(index, "read_headers", lambda path: (seen.append(path), read_headers(path))[1])
    return seen


def contents(found: ShardIndex) -> tuple[list[str], list[list[int]]]:
    return list(found.members), found.spans.tolist()


def test_the_index_says_where_every_file_lies(shard: Path) -> None:
    found = shard_index(shard)
    assert list(found.members) == [name for name in FILES if name.endswith("png")]
    raw = shard.read_bytes()
    for name, (at, size, text_at, text_size) in zip(found.members, found.spans.tolist(), strict=True):
        assert raw[at : at + size] == FILES[name]
        assert raw[text_at : text_at + text_size] == FILES.get(name.replace("png", "txt"), b"")


def test_it_is_stored_once_and_read_back_the_same(shard: Path, passes: list[Path]) -> None:
    first = shard_index(shard)
    assert index_path(shard) == shard.with_name("a.tar.index") and index_path(shard).is_file()
    written = index_path(shard).stat().st_mtime_ns
    second = shard_index(shard)
    assert passes == [shard] and index_path(shard).stat().st_mtime_ns == written
    assert contents(first) == contents(second)
    source = open_source(shard)
    assert [source[i].captions for i in range(5)] == [[], ["one", "first"], [], [], ["four"]]


def test_a_changed_tar_is_gone_through_again(shard: Path, passes: list[Path]) -> None:
    shard_index(shard)
    more = {**FILES, "005.png": FILES["000.png"]}
    write_tar(shard, more)
    assert len(shard_index(shard).members) == 6
    # The same size, but another time.
    write_tar(shard, {name.replace("00", "01"): content for name, content in more.items()})
    os.utime(shard, ns=(1, 1))
    assert shard_index(shard).members[0] == "010.png" and len(passes) == 3
    assert shard_index(shard).members[0] == "010.png" and len(passes) == 3


def test_every_byte_of_a_damaged_index_is_noticed(
    shard: Path, passes: list[Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    right = contents(shard_index(shard))
    whole = index_path(shard).read_bytes()
    monkeypatch.setattr(index, "save_bytes", lambda *_: None)  # this disk is asked often enough
    for at in range(0, len(whole), 7):
        index_path(shard).write_bytes(whole[:at] + bytes([whole[at] ^ 0x41]) + whole[at + 1 :])
        assert contents(shard_index(shard)) == right
    for damaged in (b"", whole[:100], whole[:-1], b"\x80\x04]\x94." * 40, b"PK\x03\x04" + whole):
        index_path(shard).write_bytes(damaged)
        assert contents(shard_index(shard)) == right
    assert len(passes) == 1 + len(range(0, len(whole), 7)) + 5


@pytest.mark.parametrize("harm", ["beyond", "negative", "falling", "short", "type"])
def test_an_index_that_makes_no_sense_is_made_anew_whatever_its_checksum(shard: Path, harm: str) -> None:
    right = shard_index(shard)
    spans, ends = right.spans.copy(), right.members.ends.copy()
    if harm in ("beyond", "negative"):
        spans[2, 1 if harm == "beyond" else 0] = 2**62 if harm == "beyond" else -1
    if harm == "falling":
        ends[1] = 10**6
    letters = right.members.letters[: -1 if harm == "short" else None]
    wrong = ShardIndex(Strings(letters, ends), spans.astype(np.float64) if harm == "type" else spans)
    with safetensors.safe_open(index_path(shard), "numpy") as file:
        stamp = {key: value for key, value in file.metadata().items() if key != "checksum"}
    index_path(shard).write_bytes(index._packed(wrong, stamp))
    assert contents(shard_index(shard)) == contents(right)


def test_where_nothing_can_be_written_the_index_stays_in_memory(shard: Path, passes: list[Path]) -> None:
    with room_for(0):
        assert len(open_source(shard.parent)) == 5
    assert [path.name for path in shard.parent.iterdir()] == ["a.tar"]
    shard_index(shard)
    assert len(passes) == 2 and index_path(shard).is_file()


def test_a_folder_in_the_place_of_the_index_is_no_error(shard: Path) -> None:
    index_path(shard).mkdir()
    assert len(shard_index(shard).members) == 5


def test_a_damaged_header_is_not_taken_for_the_end(shard: Path) -> None:
    raw = bytearray(shard.read_bytes())
    with tarfile.open(shard) as tar:
        at = tar.getmembers()[3].offset
    raw[at + 5] ^= 1
    shard.write_bytes(raw)
    with pytest.raises(DataError, match=rf"a\.tar: not a whole.*byte {at:,}"):
        shard_index(shard)
    assert not index_path(shard).exists()


def test_a_member_of_negative_size_does_not_lead_in_a_circle(shard: Path) -> None:
    raw = bytearray(shard.read_bytes())
    raw[124:136] = b"\xff" * 10 + b"\xf6\x00"  # base 256, less than zero
    raw[148:156] = b"%06o\0 " % (sum(raw[:148]) + sum(raw[156:512]) + 8 * 32)
    shard.write_bytes(raw)
    with pytest.raises(DataError, match="not a whole"):
        shard_index(shard)


def test_a_tar_that_shrinks_behind_its_index_is_a_picture_error(shard: Path) -> None:
    source = open_source(shard)
    shard.write_bytes(shard.read_bytes()[:1000])
    with pytest.raises(PictureError, match=r"a\.tar/004\.png"):
        source[4]


def test_names_of_any_bytes_come_back(tmp_path: Path) -> None:
    names = ["", "a", "größe.png", "x" * 300, os.fsdecode(b"\xff\xfe.png"), "tab\t.png"]
    strings = Strings.of(names)
    assert list(strings) == names and strings[-2] == names[-2] and strings[1:3] == names[1:3]
    with pytest.raises(IndexError):
        strings[6]
    assert [printable(name) for name in names[4:]] == ["\\udcff\\udcfe.png", "tab\\t.png"]
    with open(os.fsencode(tmp_path) + b"/\xff.png", "wb") as file:
        file.write(FILES["000.png"])
    source = open_source(tmp_path)
    assert source.name(0).endswith("\\udcff.png") and source[0].pixels.shape == (24, 20, 3)
