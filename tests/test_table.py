"""A CSV of pictures and captions."""

from pathlib import Path

import pytest
from pictures import patches, png, write_folder

from manyfill.cli import main
from manyfill.data import open_source
from manyfill.errors import DataError

PNGS = {f"{i}.png": png(p) for i, p in enumerate(patches(4))}


def table(path: Path, text: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@pytest.mark.parametrize("place", [".", "captions", "images"])
@pytest.mark.parametrize("head", ["", "image,caption\n", "\N{BYTE ORDER MARK}file_name,text\r\n"])
def test_rows_give_pictures_their_captions(tmp_path: Path, place: str, head: str) -> None:
    write_folder(tmp_path / place, PNGS)
    rows = '2.png,"a dog, running"\n0.png,\n\n2.png, größer \ngone.png,x\n'
    source = open_source(table(tmp_path / "captions.csv", head + rows))
    assert [source.captions(i) for i in range(3)] == [["a dog, running", "größer"], [], ["x"]]
    assert source.name(0) == str(tmp_path / place / "2.png")


def test_captions_of_other_pictures_are_refused_with_the_names_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_folder(tmp_path, PNGS)
    path = table(tmp_path / "captions.csv", "".join(f"{name}.jpg,x\n" for name in "abcde"))
    assert main(["train", str(path), "--captions", "--out", str(tmp_path / "run")]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1 and not (tmp_path / "run").exists()
    assert "none of its 5 pictures (a.jpg, b.jpg, c.jpg, ...) is among the 4 in" in told
    assert "(0.png, 1.png, 2.png, ...)" in told and "--images" in told


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("0.png,a,b\n", "line 1: has 3 columns"),
        ("0.png,a\n1.png\n", "line 2: has 1 columns"),
        ('0.png,"a\n', "line 1: is no CSV"),
        (b"0.png,gr\xf6\xdfer\n", "is no UTF-8 text"),
        ("", "lists no pictures"),
        ("image,caption\n", "lists no pictures"),
    ],
)
def test_what_is_no_table_is_refused(tmp_path: Path, text: str | bytes, words: str) -> None:
    write_folder(tmp_path, PNGS)
    with pytest.raises(DataError, match=rf"captions\.csv.*{words}") as caught:
        open_source(table(tmp_path / "captions.csv", text))
    assert "\n" not in str(caught.value)
