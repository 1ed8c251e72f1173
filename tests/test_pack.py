"""Packing: the same bytes whoever packs them, however often it is stopped."""

import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import numpy as np
import pytest
from packing import COUNT, PER_SHARD, command, shards
from pictures import encoded, jpeg, patches, png, write_folder
from PIL import Image

from manyfill.cli import main
from manyfill.data import open_source
from manyfill.data.pack import Packer, Packing
from manyfill.images import open_picture


def test_shards_hold_the_pictures_in_order_with_their_captions(assorted: Path, undisturbed: Path) -> None:
    loose, packed = open_source(assorted), open_source(undisturbed)
    usable = [i for i in range(COUNT) if not loose.name(i).endswith(("07b.jpg", "92.png"))]
    assert len(packed) == len(usable) == COUNT - 2
    for place, i in enumerate(usable):
        assert np.array_equal(packed[place].pixels, loose[i].pixels)
        assert packed[place].captions == loose[i].captions
    files = {p.name for p in undisturbed.iterdir()} - {".lock"}
    names = [f"shard-{k:06d}.tar" for k in range(5)]
    assert files == {*names, *(f"{name}.index" for name in names), "shards.jsonl", "skipped.tsv"}


def test_shards_are_plain_webdataset(assorted: Path, undisturbed: Path) -> None:
    with tarfile.open(undisturbed / "shard-000000.tar") as tar:
        assert tar.getnames() == [f"{i:09}{suffix}" for i in range(5) for suffix in (".jpg", ".txt")]
        text, picture = tar.extractfile("000000001.txt"), tar.extractfile("000000001.jpg")
        assert text is not None and text.read() == b"cat 1\nseen 1 times\n"
        assert picture is not None and picture.read() == (assorted / "01.jpg").read_bytes()  # not compressed twice
    with tarfile.open(undisturbed / "shard-000004.tar") as tar:
        assert tar.getnames() == ["000000020.png", "000000021.png"]  # the BMP became a PNG, without a loss


def test_what_was_left_out_is_told_in_a_line_and_a_file(
    assorted: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"
    assert main(command(assorted, out)) == 0
    shown = capsys.readouterr()
    assert shown.out == f"{out}: 21 pictures, 5 shard(s); 2 left out, see {out / 'skipped.tsv'}\n" and not shown.err
    rows = [line.split("\t") for line in (out / "skipped.tsv").read_text().splitlines()]
    assert [name for name, _ in rows] == [str(assorted / "07b.jpg"), str(assorted / "92.png")]
    assert "not a picture" in rows[0][1] and "empty" in rows[1][1]


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_nothing(assorted: Path, undisturbed: Path, tmp_path: Path, workers: int) -> None:
    assert main(command(assorted, tmp_path / "out", "--workers", str(workers))) == 0
    assert shards(tmp_path / "out") == shards(undisturbed)


@pytest.mark.parametrize("at", [0, 1, 4, 5, 6, 14, 15, 22])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    assorted: Path, undisturbed: Path, tmp_path: Path, at: int
) -> None:
    out, seen = tmp_path / "out", 0

    def stop(count: int) -> None:
        nonlocal seen
        if seen == at and count:
            raise KeyboardInterrupt
        seen += count

    source, packing = open_source(assorted), Packing(per_shard=PER_SHARD)
    with pytest.raises(KeyboardInterrupt):
        Packer(source, out, packing, 2).run(stop)
    assert len(shards(out)) == at // PER_SHARD and not list(out.glob(".manyfill-*"))
    before = {path: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert Packer(source, out, packing, 2).run().pictures == COUNT - 2
    assert shards(out) == shards(undisturbed)
    assert all(path.stat().st_mtime_ns == time_ for path, time_ in before.items())  # finished ones were left alone
    assert (out / "skipped.tsv").read_bytes() == (undisturbed / "skipped.tsv").read_bytes()


def test_a_killed_run_goes_on_to_the_same_bytes(assorted: Path, undisturbed: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    slowly = (
        "import sys, time; from manyfill.data.pack import Packer; from manyfill.cli import main; "
        "prepare = Packer._prepare; Packer._prepare = lambda *a: (time.sleep(0.02), prepare(*a))[1]; main(sys.argv[1:])"
    )
    process = subprocess.Popen([sys.executable, "-c", slowly, *command(assorted, out, "--workers", "1")])
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
    assert main(command(assorted, out)) == 0
    assert shards(out) == shards(undisturbed) and not list(out.glob(".manyfill-*"))
    assert manifest.read_bytes() == (undisturbed / "shards.jsonl").read_bytes()


def test_a_finished_run_is_left_as_it_is(assorted: Path, undisturbed: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.tar*")}
    assert main(command(assorted, undisturbed)) == 0
    assert "21 pictures" in capsys.readouterr().out
    assert before == {path: path.stat().st_mtime_ns for path in undisturbed.glob("*.tar*")}


def test_size_shrinks_the_shorter_side_and_enlarges_nothing(assorted: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert main(command(assorted, out, "--size", "24")) == 0
    packed, loose = open_source(out), open_source(assorted)
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


def test_shards_can_be_packed_anew(undisturbed: Path, tmp_path: Path) -> None:
    assert main(["shard", str(undisturbed), str(tmp_path / "out"), "--per-shard", "100"]) == 0
    again, before = open_source(tmp_path / "out"), open_source(undisturbed)
    assert len(again) == len(before) == 21
    assert all(again.file(i) == before.file(i) and again.captions(i) == before.captions(i) for i in range(21))
