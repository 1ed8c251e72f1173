"""A thousand files, a hundred of them odd in ten ways: every command finishes and names those that cannot be used."""

import io
import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, jpeg, patches, png, write_folder
from PIL import Image

from manyfill.cli import main

UNUSABLE = ("truncated", "empty", "loop", "bomb", "text", "forbidden")


def bomb(side: int = 50_000) -> bytes:
    """A PNG of a few bytes that says it is of 2.5 billion pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")


def odd(pixels: np.ndarray, number: int) -> dict[str, bytes]:
    """One of each way in which a file can be odd, but for the loop, which is no content."""
    exif = Image.Exif()
    exif[0x0112] = 1 + number % 8
    whole = jpeg(pixels) if number % 2 else png(pixels)
    return {
        f"truncated{number}.{'jpg' if number % 2 else 'png'}": whole[: len(whole) // 2],
        f"empty{number}.jpg": b"",
        f"misnamed{number}.jpg": png(pixels),
        f"cmyk{number}.jpg": encoded(pixels, "JPEG", "CMYK"),
        f"deep{number}.png": png(pixels[:, :, 0].astype(np.uint16) * 257),
        f"turned{number}.jpg": jpeg(pixels, exif=exif),
        f"bomb{number}.png": bomb(),
        f"text{number}.jpg": b"<html>404</html>\n" * 10,
        f"forbidden{number}.png": png(pixels),
    }


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pictures = patches(100)
    files = {f"{i:03}.{'png' if i % 2 else 'jpg'}": (png if i % 2 else jpeg)(pictures[i % 100]) for i in range(900)}
    for number in range(10):
        files |= odd(pictures[number], number)
    root = write_folder(tmp_path_factory.mktemp("corpus") / "pictures", files)
    for number in range(10):
        os.symlink(f"loop{number}.png", root / f"loop{number}.png")
    assert len(list(root.iterdir())) == 1000
    return root


@pytest.fixture(autouse=True)
def no_permission(monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the system's refusal is played."""

    def refuse(self: Path, *args: object, **kwargs: object) -> io.IOBase:
        if self.name.startswith("forbidden"):
            raise PermissionError(13, "Permission denied", str(self))
        return opened(self, *args, **kwargs)  # type: ignore[arg-type, call-overload, no-any-return]

    opened = Path.open
    monkeypatch.setattr(Path, "open", refuse)


def expected(corpus: Path) -> set[str]:
    return {str(path) for path in corpus.iterdir() if path.name.startswith(UNUSABLE)}


def named(report: Path) -> list[str]:
    rows = [line.split("\t") for line in report.read_text().splitlines()]
    assert all(len(row) == 2 and row[0] in row[1] for row in rows)
    return [name for name, _ in rows]


def test_shard_leaves_out_exactly_those(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["shard", str(corpus), str(tmp_path / "out"), "--per-shard", "300"]) == 0
    assert "940 pictures, 4 shard(s); 60 left out" in capsys.readouterr().out
    left_out = named(tmp_path / "out" / "skipped.tsv")
    assert len(left_out) == 60 and set(left_out) == expected(corpus)
    assert main(["data", "inspect", str(tmp_path / "out"), "--out", str(tmp_path / "seen"), "--strict"]) == 0


def test_inspect_names_exactly_those(corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(corpus), "--out", str(tmp_path), "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["pictures"], record["usable"]) == (1000, 940)
    broken = [entry["name"] for entry in record["broken"]]
    assert len(broken) == 60 and set(broken) == expected(corpus)
    told = {note.split()[0]: count for note, count in record["notes"].items()}
    assert told == {"CMYK:": 10, "uint16": 10}
    reasons = {Path(entry["name"]).name[:-5]: entry["reason"] for entry in record["broken"]}
    for kind, words in {
        "truncated": "damaged or truncated",
        "empty": "is empty",
        "loop": "cannot be read",
        "bomb": "more than",
        "text": "not a picture",
        "forbidden": "Permission denied",
    }.items():
        assert words in reasons[kind]


@pytest.mark.slow
def test_train_leaves_out_exactly_those(corpus: Path, tmp_path: Path, micro_toml: Path) -> None:
    # 19 steps of 50 are one epoch of the 950 pictures that are not held out; validation sees the other 50.
    words = ["--config", str(micro_toml), "--steps", "19", "--set", "train.batch_size=50"]
    assert main(["train", str(corpus), "--out", str(tmp_path / "run"), *words]) == 0
    left_out = named(tmp_path / "run" / "skipped.tsv")
    assert len(left_out) == len(set(left_out)) and set(left_out) == expected(corpus)


@pytest.mark.parametrize("command", ["shard", "inspect", "train"])
def test_strict_is_no_success(
    corpus: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], micro_toml: Path, command: str
) -> None:
    arguments = {
        "shard": ["shard", str(corpus), str(tmp_path / "out")],
        "inspect": ["data", "inspect", str(corpus), "--out", str(tmp_path / "out")],
        "train": ["train", str(corpus), "--out", str(tmp_path / "run"), "--config", str(micro_toml), "--steps", "9"],
    }
    assert main([*arguments[command], "--strict"]) == (1 if command == "inspect" else 2)
    shown = capsys.readouterr()
    if command != "inspect":
        assert shown.err.startswith("error: ") and shown.err.count("\n") == 1
        assert any(name in shown.err for name in expected(corpus))
