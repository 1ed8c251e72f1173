"""A look through a data set: what is counted, what is alike, what is broken."""

import json
from pathlib import Path

import numpy as np
import pytest
from pictures import encoded, jpeg, patches, png, write_folder, write_tar
from PIL import Image
from skimage import data as samples

from manyfill.cli import main
from manyfill.data import open_source
from manyfill.data.duplicates import content_hash, difference_hash, equal_groups, near_groups, without
from manyfill.data.survey import survey
from manyfill.images import open_picture


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Eight pictures of which three are one, a grey one, a 16-bit one, and two broken files."""
    cat, coffee = samples.chelsea(), samples.coffee()
    files = {
        "cat.png": png(cat),
        "same cat.bmp": encoded(cat, "BMP"),
        "poor cat.jpg": jpeg(cat, quality=50),
        "small cat.png": png(np.asarray(Image.fromarray(cat).resize((150, 100), Image.Resampling.LANCZOS))),
        "coffee.jpg": jpeg(coffee),
        "grey.png": png(samples.camera()[:20, :40]),
        "deep.png": png(samples.moon()[:70, :80].astype(np.uint16) * 257),
        "white.png": png(np.full((64, 64, 3), 255, np.uint8)),
        "black.png": png(np.zeros((64, 64, 3), np.uint8)),
        "cat.txt": b"a cat\nanother\n",
        "coffee.txt": b"a cup\n",
        "bad.png": b"no picture",
        "worse.jpg": b"",
    }
    return write_folder(tmp_path_factory.mktemp("survey") / "pictures", files)


def test_everything_is_counted(folder: Path) -> None:
    record = survey(open_source(folder), workers=2).record()
    assert (record["pictures"], record["usable"], record["grey"]) == (11, 9, 2)
    assert (record["with_captions"], record["captions"]) == (2, 3)
    assert record["notes"] == {"uint16 values: the model sees 256 levels of them": 1}
    assert [Path(entry["name"]).name for entry in record["broken"]] == ["bad.png", "worse.jpg"]
    assert all(entry["name"] in entry["reason"] for entry in record["broken"])
    sizes = record["sizes"]
    assert (sizes["smallest"], sizes["largest"], sizes["different"]) == ((40, 20), (600, 400), 6)
    assert sizes["commonest"][0] == {"size": (451, 300), "pictures": 3}
    sides = {row["from"]: row["pictures"] for row in record["shorter_side"]}
    assert sides == {1: 1, 32: 0, 64: 4, 128: 0, 256: 4, 512: 0, 1024: 0, 2048: 0, 4096: 0}


def test_equal_and_similar_pictures_are_told_apart(folder: Path) -> None:
    record = survey(open_source(folder), workers=2).record()

    def names(key: str) -> list[list[str]]:
        return [[Path(name).name for name in group] for group in record[key]]

    assert names("exact_duplicates") == [["cat.png", "same cat.bmp"]]
    assert names("near_duplicates") == [["cat.png", "poor cat.jpg", "small cat.png"]]  # black is not like white


def test_workers_change_nothing(folder: Path) -> None:
    one, many = (survey(open_source(folder), workers) for workers in (1, 4))
    assert one.record() == many.record()
    sheets = one.sheet(), many.sheet()
    assert sheets[0] is not None and sheets[1] is not None and np.array_equal(*sheets)


def test_the_sheet_shows_pictures_from_all_over(tmp_path: Path) -> None:
    grey = {f"{i:03}.png": png(np.full((30, 40, 3), i, np.uint8)) for i in range(200)}
    sheet = survey(open_source(write_tar(tmp_path / "a.tar", grey)), workers=1).sheet()
    assert sheet is not None
    tiles = [int(sheet[60 + 100 * row, 50 + 100 * column, 0]) for row in range(6) for column in range(8)]
    assert tiles == np.linspace(0, 199, 48).astype(int).tolist()


def test_command_writes_a_record_and_a_sheet(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "inspect", str(folder), "--json"]) == 0
    shown = capsys.readouterr()
    record = json.loads(shown.out)
    assert not shown.err and record["source"] == str(folder) and record["usable"] == 9
    out = tmp_path / "pictures-inspected"
    assert {path.name for path in out.iterdir()} == {"inspect.json", "sheet.png"}
    assert json.loads((out / "inspect.json").read_text()) == record
    assert open_picture(out / "sheet.png").pixels.shape[2] == 3


def test_command_prints_tables(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["data", "inspect", str(folder), "--out", str(tmp_path / "out")]) == 0
    shown = capsys.readouterr().out
    for words in (
        "2 (3 captions)",
        "64-127",
        "451x300 (3)",
        "bad.png: not a picture",
        "exact duplicate: ",
        "sheet.png",
    ):
        assert words in shown


def test_strict_is_exit_code_1_where_something_is_broken(folder: Path, tmp_path: Path) -> None:
    out = ["--out", str(tmp_path / "out"), "--strict"]
    assert main(["data", "inspect", str(folder), *out]) == 1
    sound = write_folder(tmp_path / "sound", {"a.png": png(patches(1)[0])})
    assert main(["data", "inspect", str(sound), *out]) == 0
    assert main(["data", "inspect", str(sound), *out, "--max-pixels", "100"]) == 1


def test_a_set_of_nothing_but_broken_files_is_still_a_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    bad = write_folder(tmp_path / "bad", {"a.png": b"x"})
    assert main(["data", "inspect", str(bad), "--out", str(tmp_path / "out")]) == 0
    assert "a.png: not a picture" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["inspect.json"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["missing"], "missing: no such folder"),
        (["empty"], "empty: no pictures"),
        (["a.png"], "a.png: neither a folder"),
        (["sound", "--out", "a.png"], "a.png: cannot be made a folder"),
        (["sound", "--images", "x"], "--images x: goes with a captions"),
        (["sound", "--out", "sound/out"], "sound/out: lies within sound"),
        (["."], "here-inspected: lies within ."),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    here = write_folder(tmp_path / "here", {"a.png": b"x", "sound/b.png": png(patches(1)[0])})
    (here / "empty").mkdir()
    monkeypatch.chdir(here)
    assert main(["data", "inspect", *arguments]) == 2
    shown = capsys.readouterr()
    assert words in shown.err and shown.err.startswith("error: ") and shown.err.count("\n") == 1 and not shown.out


# --------------------------------------------------------------------------------------------------- duplicates


def test_content_hash_is_of_values_and_shape() -> None:
    a = np.arange(24, dtype=np.uint8).reshape(2, 4, 3)
    assert content_hash(a) == content_hash(a.copy()) != content_hash(a.reshape(4, 2, 3))


def test_difference_hash_survives_small_changes_and_tells_pictures_apart() -> None:
    pictures = patches(30, 120, 160)
    hashes = [difference_hash(p) for p in pictures]
    assert all(h is not None and h.shape == (8,) and h.dtype == np.uint16 for h in hashes)

    def bits(a: np.ndarray | None, b: np.ndarray | None) -> int:
        assert a is not None and b is not None
        return int(np.unpackbits((a ^ b).view(np.uint8)).sum())

    for picture, h in zip(pictures, hashes, strict=True):
        half = np.asarray(Image.fromarray(picture).resize((80, 60), Image.Resampling.LANCZOS))
        assert bits(difference_hash(half), h) <= 7
        assert bits(difference_hash(open_picture(jpeg(picture, quality=50)).pixels), h) <= 4
        assert bits(difference_hash(np.ascontiguousarray(picture[:, ::-1])), h) > 20
    apart = [bits(a, b) for i, a in enumerate(hashes) for b in hashes[:i]]
    assert np.median(apart) > 40
    assert difference_hash(np.full((9, 9, 1), 7, np.uint8)) is None


def test_near_groups_are_those_of_a_comparison_of_all_with_all() -> None:
    rng = np.random.default_rng(3)
    hashes = rng.integers(0, 2**16, (60, 8), dtype=np.uint16)
    for _ in range(60):  # neighbours of neighbours, up to 11 bits away
        near = hashes[rng.integers(0, len(hashes))].copy()
        for bit in rng.integers(0, 128, rng.integers(0, 12)):
            near[bit // 16] ^= np.uint16(1 << (bit % 16))
        hashes = np.vstack([hashes, near])
    differing = np.unpackbits((hashes[:, None] ^ hashes[None]).view(np.uint8), axis=2).sum(2)
    label = np.arange(120)
    for _ in range(120):
        label = np.min(np.where(differing <= 7, label[None], 120), axis=1)
    assert 20 < len(near_groups(list(hashes))) < 60
    assert near_groups(list(hashes)) == equal_groups(label.tolist())
    assert near_groups([]) == []


def test_known_groups_are_not_told_twice() -> None:
    assert without([[0, 1], [2, 3, 4], [5, 6]], known=[[0, 1], [3, 4]]) == [[2, 3], [5, 6]]
