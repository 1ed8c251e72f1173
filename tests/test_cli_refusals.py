"""What a user can mend, refused by the command line: one line, exit code 2, nothing half-written."""

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from commandline import PIXELS, refused
from PIL import Image

from manyfill.images import save_png

pytestmark = pytest.mark.usefixtures("here")


def truncated(path: Path) -> None:
    path.write_bytes(Path("photo.png").read_bytes()[:1500])


def animated(path: Path) -> None:
    frames = [Image.fromarray(np.roll(PIXELS, i * 7, 1)) for i in range(3)]
    frames[0].save(path, "GIF", save_all=True, append_images=frames[1:])


BAD_PICTURES: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda _: None, "no such file"),
    "empty": (lambda path: path.touch(), "empty"),
    "truncated": (truncated, "truncated"),
    "no picture": (lambda path: path.write_text("hello"), "not a picture"),
    "a folder": (lambda path: path.mkdir(), "folder"),
    "animated": (animated, "animated"),
    "another size": (lambda path: save_png(path, PIXELS[:20]), "50x20"),
}


@pytest.mark.parametrize("what", ["photo", "mask", "truth"])
@pytest.mark.parametrize("case", BAD_PICTURES)
def test_bad_pictures_are_refused_by_name(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], case: str, what: str
) -> None:
    make, words = BAD_PICTURES[case]
    make(Path("bad.file"))
    names = {"photo": "photo.png", "mask": "mask.png", "truth": "photo.png", what: "bad.file"}
    common = ["--mask", names["mask"], "--truth", names["truth"], "--model", str(model)]
    message = refused(capsys, "fill", names["photo"], *common)
    assert words in message
    # Of a photo of another size than its mask, the mask is named.
    assert ("mask.png" if (case, what) == ("another size", "photo") else "bad.file") in message
    assert not (here / "photo-fills").exists() and not (here / "bad-fills").exists()


def test_bad_flags_are_refused_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fill = ["fill", "photo.png", "--mask", "mask.png", "--model", str(model)]
    assert "--max-pixels" in refused(capsys, *fill, "--max-pixels", "100")
    assert "-n 0" in refused(capsys, *fill, "-n", "0")
    assert "--format gif" in refused(capsys, *fill, "--format", "gif")
    assert "--quality 101" in refused(capsys, *fill, "--quality", "101")
    assert not Path("photo-fills").exists()
    assert "--temperature" in refused(capsys, *fill, "--temperature", "-1")
    assert "--seed" in refused(capsys, *fill, "--seed", "abc")
    assert "--msk" in refused(capsys, *fill, "--msk", "x")
    assert "PHOTO" in refused(capsys, "fill")
    assert "fil" in refused(capsys, "fil", "photo.png")
    assert "--mask" in refused(capsys, "fill", "photo.png", "--model", str(model))


def test_unwritable_output_is_refused_by_name_before_anything_is_drawn(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr("manyfill.pipeline.Filler.__call__")
    Path("taken").write_text("")
    fill = ["fill", "photo.png", "--mask", "mask.png", "-n", "1", "--model", str(model)]
    assert "taken" in refused(capsys, *fill, "--out", "taken")
    assert "taken: is no folder" in refused(capsys, *fill, "--out", "taken/sub")


def test_a_full_disk_leaves_no_half_file(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    message = refused(capsys, "fill", "photo.png", "--mask", "mask.png", "--model", str(model), "--out", "out")
    assert "No space left" in message
    assert list(Path("out").iterdir()) == []


@pytest.mark.parametrize("command", ["fill", "info"])
@pytest.mark.parametrize("file", ["config.json", "model.safetensors", "manifest.json"])
@pytest.mark.parametrize("damage", ["gone", "altered"])
def test_a_damaged_model_is_refused(
    here: Path, model: Path, capsys: pytest.CaptureFixture[str], command: str, file: str, damage: str
) -> None:
    shutil.copytree(model, "copy")
    path = Path("copy") / file
    if damage == "gone":
        path.unlink()
    else:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 0xFF
        path.write_bytes(bytes(content))
    rest = ["photo.png", "--mask", "mask.png", "--model", "copy"] if command == "fill" else ["copy"]
    assert "copy" in refused(capsys, command, *rest)
    assert not (here / "photo-fills").exists()


def test_a_missing_model_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    assert "./nothing" in refused(capsys, "info", "./nothing")
