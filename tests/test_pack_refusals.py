"""What cannot be packed is told in one line, and leaves nothing half-written under a name."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from commandline import refused
from packing import PER_SHARD, command, shards
from pictures import patches, png, room_for, write_folder, write_tar

from manyfill.cli import main
from manyfill.data import pack
from manyfill.data.pack import Packer, Packing
from manyfill.errors import ConfigError


def test_strict_names_the_first_that_cannot_be_used(
    assorted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "07b.jpg: not a picture" in refused(capsys, *command(assorted, tmp_path / "out", "--strict"))
    assert len(shards(tmp_path / "out")) == 1  # what came before it is whole
    assert main(command(assorted, tmp_path / "out")) == 0
    capsys.readouterr()
    assert "07b.jpg" in refused(capsys, *command(assorted, tmp_path / "out", "--strict"))


def missing(root: Path) -> tuple[Path, Path]:
    return root / "missing", root / "out"


def empty(root: Path) -> tuple[Path, Path]:
    (root / "empty").mkdir()
    return root / "empty", root / "out"


def broken(root: Path) -> tuple[Path, Path]:
    return write_folder(root / "broken", {"a.png": b"x", "b.png": b""}), root / "out"


def below_a_file(root: Path) -> tuple[Path, Path]:
    source = write_folder(root / "src", {"a.png": png(patches(1)[0])})
    return source, write_folder(root, {"file": b""}) / "file" / "out"


def within(root: Path) -> tuple[Path, Path]:
    source = write_folder(root / "src", {"a.png": png(patches(1)[0])})
    return source, source / "out"


def strangers(root: Path) -> tuple[Path, Path]:
    source, _ = below_a_file(root)
    (root / "out").mkdir()
    write_tar(root / "out" / "x.tar", {"a.txt": b"x"})
    return source, root / "out"


def unreadable_manifest(root: Path) -> tuple[Path, Path]:
    source, _ = below_a_file(root)
    return source, write_folder(root / "out", {"shards.jsonl": b"{nothing\n"})


def foreign_manifest(root: Path) -> tuple[Path, Path]:
    source, _ = below_a_file(root)
    return source, write_folder(root / "out", {"shards.jsonl": b'{"shards": [1]}\n[2]\n'})


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (missing, "missing: no such folder"),
        (empty, "empty: no pictures in it"),
        (broken, "none of the 2 pictures can be used"),
        (below_a_file, "cannot be made a folder"),
        (within, "lies within"),
        (strangers, "holds shards of another origin"),
        (unreadable_manifest, "shards.jsonl: cannot be read"),
        (foreign_manifest, "holds shards of other pictures or settings"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: Callable[[Path], tuple[Path, Path]], words: str
) -> None:
    source, out = make(tmp_path)
    before = sorted(out.glob("*.tar")) if out.is_dir() else []
    assert words in refused(capsys, "shard", str(source), str(out))
    assert (sorted(out.glob("*.tar")) if out.is_dir() else []) == before or make is broken


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--per-shard", "0"], "--per-shard"),
        (["--size", "-1"], "--size"),
        (["--workers", "0"], "--workers"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--images", "x"], "--images x: goes with a captions"),
    ],
)
def test_impossible_flags_are_refused(
    assorted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert words in refused(capsys, "shard", str(assorted), str(tmp_path / "out"), *more)
    assert not (tmp_path / "out").exists()
    for setting in ({"per_shard": 0}, {"size": 0}, {"max_pixels": 0}):
        with pytest.raises(ConfigError):
            Packing(**setting)


@pytest.mark.parametrize(
    ("flag", "setting"), [("--size", "size"), ("--max-pixels", "max_pixels"), ("--per-shard", "per_shard")]
)
def test_other_settings_do_not_go_on_with_these_shards(
    assorted: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str], flag: str, setting: str
) -> None:
    before = shards(undisturbed)
    per_shard = [] if flag == "--per-shard" else ["--per-shard", str(PER_SHARD)]
    words = refused(capsys, "shard", str(assorted), str(undisturbed), flag, "16", *per_shard)
    assert f"other pictures or settings ({setting})" in words
    assert shards(undisturbed) == before


def test_other_pictures_or_lost_shards_do_not_go_on(
    assorted: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = shutil.copytree(assorted, tmp_path / "src"), tmp_path / "out"
    assert main(command(source, out)) == 0
    capsys.readouterr()
    (out / "shard-000001.tar").write_bytes(b"cut")
    assert "shard-000001.tar: is gone or altered" in refused(capsys, *command(source, out))
    manifest = out / "shards.jsonl"
    manifest.write_text(manifest.read_text() + '{"file": "shard-000009.tar"}\n')
    (out / "shard-000001.tar").write_bytes(shards(undisturbed)["shard-000001.tar"])
    assert "shards.jsonl: is damaged" in refused(capsys, *command(source, out))
    (source / "03.jpg").rename(source / "03c.jpg")
    assert "other pictures or settings (names)" in refused(capsys, *command(source, out))


def test_max_pixels_leaves_larger_pictures_out(
    assorted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(assorted, tmp_path / "out", "--max-pixels", "500")) == 0
    assert "2 pictures, 5 shard(s); 21 left out" in capsys.readouterr().out


@pytest.mark.parametrize("room", [0, 3000, 20_000])
def test_a_full_disk_leaves_nothing_half_written_and_can_be_mended(
    assorted: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    out = tmp_path / "out"
    with room_for(room):
        message = refused(capsys, *command(assorted, out))
    assert "cannot be written" in message and str(out) in message
    whole = shards(undisturbed)
    assert all(content == whole[name] for name, content in shards(out).items()) and len(shards(out)) < 5
    assert {path.suffix for path in out.iterdir()} <= {".tar", ".index", ".jsonl", ""}
    assert main(command(assorted, out)) == 0
    assert shards(out) == whole


def test_a_manifest_that_cannot_grow_is_one_line(
    assorted: Path,
    undisturbed: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    note = Packer._note

    def full(self: Packer, line: dict) -> None:
        with room_for((self.out / pack.MANIFEST).stat().st_size + 10):
            note(self, line)

    monkeypatch.setattr(Packer, "_note", full)
    assert "shards.jsonl: cannot be written" in refused(capsys, *command(assorted, tmp_path / "out"))
    monkeypatch.undo()
    assert main(command(assorted, tmp_path / "out")) == 0
    assert shards(tmp_path / "out") == shards(undisturbed)
    lines = (tmp_path / "out" / "shards.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 6
