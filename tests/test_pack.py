"""Packing: the same bytes whoever packs them, however often it is stopped; and nothing half-written under a name."""

import json
import shutil
import signal
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, jpeg, patches, png, room_for, write_folder, write_tar
from PIL import Image

from manyfill.cli import main
from manyfill.data import open_source, pack
from manyfill.data.pack import Packer, Packing
from manyfill.errors import ConfigError
from manyfill.images import open_picture

COUNT, PER_SHARD = 23, 5


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
def undisturbed(pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("undisturbed") / "out"
    assert main(command(pictures, out)) == 0
    return out


def refused(capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == "" and shown.err.startswith("error: ") and shown.err.count("\n") == 1
    return shown.err


def test_shards_hold_the_pictures_in_order_with_their_captions(pictures: Path, undisturbed: Path) -> None:
    loose, packed = open_source(pictures), open_source(undisturbed)
    usable = [i for i in range(COUNT) if not loose.name(i).endswith(("07b.jpg", "92.png"))]
    assert len(packed) == len(usable) == COUNT - 2
    for place, i in enumerate(usable):
        assert np.array_equal(packed[place].pixels, loose[i].pixels)
        assert packed[place].captions == loose[i].captions
    files = {p.name for p in undisturbed.iterdir()} - {".lock"}
    names = [f"shard-{k:06d}.tar" for k in range(5)]
    assert files == {*names, *(f"{name}.index" for name in names), "shards.jsonl", "skipped.tsv"}


def test_shards_are_plain_webdataset(pictures: Path, undisturbed: Path) -> None:
    with tarfile.open(undisturbed / "shard-000000.tar") as tar:
        assert tar.getnames() == [f"{i:09}{suffix}" for i in range(5) for suffix in (".jpg", ".txt")]
        text, picture = tar.extractfile("000000001.txt"), tar.extractfile("000000001.jpg")
        assert text is not None and text.read() == b"cat 1\nseen 1 times\n"
        assert picture is not None and picture.read() == (pictures / "01.jpg").read_bytes()  # not compressed twice
    with tarfile.open(undisturbed / "shard-000004.tar") as tar:
        assert tar.getnames() == ["000000020.png", "000000021.png"]  # the BMP became a PNG, without a loss


def test_what_was_left_out_is_told_in_a_line_and_a_file(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(pictures, out)) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}: 21 pictures, 5 shard(s); 2 left out, see {out / 'skipped.tsv'}\n" and not shown.err
    rows = [line.split("\t") for line in (out / "skipped.tsv").read_text().splitlines()]
    assert [name for name, _ in rows] == [str(pictures / "07b.jpg"), str(pictures / "92.png")]
    assert "not a picture" in rows[0][1] and "empty" in rows[1][1]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(pictures: Path, undisturbed: Path, tmp_path: Path, workers: int) -> None:
    assert main(command(pictures, tmp_path / "out", "--workers", str(workers))) == 0
    assert shards(tmp_path / "out") == shards(undisturbed)


@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 14, 15, 22])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    pictures: Path, undisturbed: Path, tmp_path: Path, at: int
) -> None:
    out, seen = tmp_path / "out", 0

    def stop(count: int) -> None:
        nonlocal seen
        if seen == at and count:
            raise KeyboardInterrupt
        seen += count

    source, packing = open_source(pictures), Packing(per_shard=PER_SHARD)
    with pytest.raises(KeyboardInterrupt):
        Packer(source, out, packing, 2).run(stop)
    assert len(shards(out)) == at // PER_SHARD and not list(out.glob(".manyfill-*"))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert Packer(source, out, packing, 2).run().pictures == COUNT - 2
    assert shards(out) == shards(undisturbed)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())  # finished ones were left alone
    assert (out / "skipped.tsv").read_bytes() == (undisturbed / "skipped.tsv").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bytes(pictures: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slowly = (
        "import sys, time; from manyfill.data.pack import Packer; from manyfill.cli import main; "
        "prepare = Packer._prepare; Packer._prepare = lambda *a: (time.sleep(0.02), prepare(*a))[1]; main(sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", slowly, *command(pictures, out, "--workers", "1")])
    manifest = out / "shards.jsonl"
    try:
        end = time.monotonic() + 60
        while not (manifest.exists() and manifest.read_text().count("\n") >= 3 and list(out.glob(".manyfill-*.part"))):
            assert process.poll() is None and time.monotonic() < end
            time.sleep(0.005)
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert 2 <= len(shards(out)) < 5
    with manifest.open("a") as file:
        file.write('{"file": "shard-0000')  # as if killed in the middle of a line
    assert main(command(pictures, out)) == 0
    assert shards(out) == shards(undisturbed) and not list(out.glob(".manyfill-*"))
    assert manifest.read_bytes() == (undisturbed / "shards.jsonl").read_bytes()


def test_a_finished_run_is_left_as_it_is(pictures: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.tar*")}
    assert main(command(pictures, undisturbed)) == 0
    assert "21 pictures" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.tar*")}


def test_size_shrinks_the_shorter_side_and_enlarges_nothing(pictures: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(pictures, out, "--size", "24")) == 0
    packed, loose = open_source(out), open_source(pictures)
    assert packed[0].pixels.shape == (32, 24, 3)  # of 40x30
    reduced = Image.fromarray(loose[0].pixels).resize((24, 32), Image.Resampling.LANCZOS)
    assert np.abs(packed[0].pixels.astype(int) - np.asarray(reduced)).mean() < 4  # a JPEG again, of high quality
    assert packed[19].pixels.shape == (24, 20, 3) and np.array_equal(packed[19].pixels, patches(1)[0])


@pytest.mark.parametrize("kind", ["16-bit", "CMYK", "turned", "named wrongly"])
def test_unusual_pictures_stay_what_they_are_to_our_reader(tmp_path: Path, kind: str) -> None:
    pixels = patches(1)[0]
    exif = Image.Exif()
    exif[0x0112] = 6
    files = {
        "16-bit": ("a.png", encoded(pixels[:, :, 0].astype(np.uint16) * 257, "PNG")),
        "CMYK": ("a.jpg", encoded(pixels, "JPEG", "CMYK")),
        "turned": ("a.jpg", jpeg(pixels, exif=exif)),
        "named wrongly": ("a.jpg", png(pixels)),
    }
    name, content = files[kind]
    root = write_folder(tmp_path / "src", {name: content})
    assert main(command(root, tmp_path / "out")) == 0
    packed = open_source(tmp_path / "out")
    assert np.array_equal(packed[0].pixels, open_picture(root / name).pixels)
    assert packed.name(0).endswith(".png" if content.startswith(b"\x89PNG") else ".jpg")
    assert main(command(root, tmp_path / "small", "--size", "10")) == 0
    assert min(open_source(tmp_path / "small")[0].pixels.shape[:2]) == 10


def test_shards_can_be_packed_anew(pictures: Path, undisturbed: Path, tmp_path: Path) -> None:
    assert main(["shard", str(undisturbed), str(tmp_path / "out"), "--per-shard", "100"]) == 0
    again, before = open_source(tmp_path / "out"), open_source(undisturbed)
    assert len(again) == len(before) == 21
    assert all(again.file(i) == before.file(i) and again.captions(i) == before.captions(i) for i in range(21))


# ---------------------------------------------------------------------------------------------- what is refused


def test_strict_names_the_first_that_cannot_be_used(
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "07b.jpg: not a picture" in refused(capsys, *command(pictures, tmp_path / "out", "--strict"))
    assert len(shards(tmp_path / "out")) == 1  # what came before it is whole
    assert main(command(pictures, tmp_path / "out")) == 0
    capsys.readouterr()
    assert "07b.jpg" in refused(capsys, *command(pictures, tmp_path / "out", "--strict"))


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
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], more: list[str], words: str
) -> None:
    assert words in refused(capsys, "shard", str(pictures), str(tmp_path / "out"), *more)
    assert not (tmp_path / "out").exists()
    for setting in ({"per_shard": 0}, {"size": 0}, {"max_pixels": 0}):
        with pytest.raises(ConfigError):
            Packing(**setting)


@pytest.mark.parametrize(
    ("flag", "setting"), [("--size", "size"), ("--max-pixels", "max_pixels"), ("--per-shard", "per_shard")]
)
def test_other_settings_do_not_go_on_with_these_shards(
    pictures: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str], flag: str, setting: str
) -> None:
    before = shards(undisturbed)
    per_shard = [] if flag == "--per-shard" else ["--per-shard", str(PER_SHARD)]
    words = refused(capsys, "shard", str(pictures), str(undisturbed), flag, "16", *per_shard)
    assert f"other pictures or settings ({setting})" in words
    assert shards(undisturbed) == before


def test_other_pictures_or_lost_shards_do_not_go_on(
    pictures: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source, out = shutil.copytree(pictures, tmp_path / "src"), tmp_path / "out"
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
    pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(command(pictures, tmp_path / "out", "--max-pixels", "500")) == 0
    assert "2 pictures, 5 shard(s); 21 left out" in capsys.readouterr().out


@pytest.mark.parametrize("room", [0, 3000, 20_000])
def test_a_full_disk_leaves_nothing_half_written_and_can_be_mended(
    pictures: Path, undisturbed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], room: int
) -> None:
    out = tmp_path / "out"
    with room_for(room):
        message = refused(capsys, *command(pictures, out))
    assert "cannot be written" in message and str(out) in message
    whole = shards(undisturbed)
    assert all(content == whole[name] for name, content in shards(out).items()) and len(shards(out)) < 5
    assert {path.suffix for path in out.iterdir()} <= {".tar", ".index", ".jsonl", ""}
    assert main(command(pictures, out)) == 0
    assert shards(out) == whole


def test_a_manifest_that_cannot_grow_is_one_line(
    pictures: Path,
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
    assert "shards.jsonl: cannot be written" in refused(capsys, *command(pictures, tmp_path / "out"))
    monkeypatch.undo()
    assert main(command(pictures, tmp_path / "out")) == 0
    assert shards(tmp_path / "out") == shards(undisturbed)
    lines = (tmp_path / "out" / "shards.jsonl").read_text().splitlines()
    assert len([json.loads(line) for line in lines]) == 6
