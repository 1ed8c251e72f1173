"""What bulk filling skips or refuses, and how it says so."""

import json
from pathlib import Path

import numpy as np
import pytest
from filling import fill_many, make_pictures, pictures_below, refused, rows

from manyfill.masks import write_mask

pytestmark = pytest.mark.usefixtures("gappy")


def spoil() -> None:
    Path("in/a.png").write_text("hello")
    Path("masks/b.png").unlink()
    write_mask(Path("masks/sub/c.png"), np.ones((5, 6), bool))
    Path("masks/f.jpg").write_bytes(Path("masks/f.png").read_bytes())
    Path("masks/f.png").rename("masks/f.bmp")


def test_bad_pictures_are_told_and_skipped(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil()
    assert fill_many(model) == 0
    told = {row["picture"]: row.get("reason", row["status"]) for row in rows()}
    assert "in/a.png: not a picture" in told["a.png"]
    assert "b.png: has no mask in masks" in told["b.png"] and "b.png" in told["b.png"]
    assert "c.png: the mask is 6x5" in told["sub/c.png"]
    assert "more than one mask" in told["f.png"]
    assert told["sub/d.jpg"] == told["sub/deep/e.png"] == "filled"
    out = capsys.readouterr().out
    assert "2 filled, 4 skipped" in out and "in/a.png" in out and "and 3 more" in out
    assert sorted(path.name for path in Path("out").rglob("fill.json")) == ["fill.json"] * 2
    # Mended, the same command fills the rest.
    make_pictures()
    Path("masks/f.jpg").unlink()
    Path("masks/f.bmp").unlink()
    assert fill_many(model, "--json") == 0
    record = json.loads(capsys.readouterr().out)
    assert (record["filled"], record["skipped"], record["reused"]) == (6, 0, 2)


def test_strict_makes_the_first_an_error(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    spoil()
    assert "in/a.png: not a picture" in refused(capsys, model, "--strict")


def test_nothing_to_fill_is_an_error(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("empty").mkdir()
    assert "empty: no pictures" in refused(capsys, model, data="empty")
    assert "nowhere" in refused(capsys, model, data="nowhere")
    assert "--masks nowhere: no such" in refused(capsys, model, masks="nowhere")
    assert "--masks empty" in refused(capsys, model, masks="empty")
    Path("others").mkdir()
    write_mask(Path("others/zebra.png"), np.ones((4, 4), bool))
    assert "--masks others: holds a mask for none of the 6 pictures" in refused(capsys, model, masks="others")
    message = refused(capsys, model, masks=None)
    assert "none of the 6 pictures could be filled" in message and "--masks" in message


def test_places_that_cannot_be_are_refused(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("taken").write_text("")
    assert "taken" in refused(capsys, model, out="taken")
    assert "OUT in/out: lies in in" in refused(capsys, model, out="in/out")
    Path("masks").rename("in/masks")
    assert "--masks in/masks: lies in in" in refused(capsys, model, masks="in/masks")
    Path("in/masks").rename("masks")
    Path("out/b").mkdir(parents=True)
    Path("out/b/diary.txt").write_text("mine")
    assert "out/b: is in the way" in refused(capsys, model)
    assert Path("out/b/diary.txt").read_text() == "mine"


def test_a_full_disk_leaves_no_half_folder(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> int:
        if path.stem == "mean":
            raise OSError(28, "No space left on device")
        return write_bytes(path, content)

    monkeypatch.setattr(Path, "write_bytes", full)
    assert "out/a: cannot be written (No space left on device on the disk at /" in refused(capsys, model)
    assert pictures_below("out") == {}


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"RANK": "0"}, "WORLD_SIZE is not"),
        ({"WORLD_SIZE": "2"}, "RANK is not"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "RANK=2"),
        ({"RANK": "-1", "WORLD_SIZE": "2"}, "RANK=-1"),
        ({"RANK": "0", "WORLD_SIZE": "two"}, "WORLD_SIZE=two"),
    ],
)
def test_impossible_ranks_are_refused(
    model: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    environment: dict[str, str],
    words: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert words in refused(capsys, model)
    assert not Path("out").exists()


def test_bad_flags_are_refused_by_name(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "-n 0" in refused(capsys, model, "-n", "0")
    assert "--batch 0" in refused(capsys, model, "--batch", "0")
    assert "--workers 0" in refused(capsys, model, "--workers", "0")
    assert "--device warp" in refused(capsys, model, "--device", "warp")
    assert "--actors" in refused(capsys, model, "--actors", "2")
    assert not Path("out").exists()
