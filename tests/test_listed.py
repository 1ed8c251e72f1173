"""Data sets in which a list names pictures and captions: COCO and Hugging Face's imagefolder."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pictures import patches, png, write_folder, write_tar

from manyfill.cli import main
from manyfill.data import open_source
from manyfill.errors import DataError, PictureError

PNGS = {f"{i}.png": png(p) for i, p in enumerate(patches(4))}


def coco(path: Path, **changes: Any) -> Path:
    record = {
        "images": [{"id": 10 + i, "file_name": name} for i, name in enumerate([*PNGS, "gone.png"])],
        "annotations": [
            {"id": 1, "image_id": 12, "caption": "third\n picture "},
            {"id": 2, "image_id": 10, "caption": "first picture"},
            {"id": 3, "image_id": 12, "caption": "again"},
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record | changes))
    return path


def imagefolder(root: Path, *lines: str | dict[str, Any]) -> Path:
    write_folder(root, PNGS)
    (root / "metadata.jsonl").write_text("".join((x if isinstance(x, str) else json.dumps(x)) + "\n" for x in lines))
    return root


@pytest.mark.parametrize("place", ["here", "here/train2017", "train2017", "images/train2017"])
def test_coco_pictures_are_found_where_coco_puts_them(tmp_path: Path, place: str) -> None:
    path = coco(tmp_path / "here" / "captions_train2017.json")
    write_folder(tmp_path / place, PNGS)
    source = open_source(path)
    assert len(source) == 5
    assert [source[i].captions for i in range(4)] == [["first picture"], [], ["third picture", "again"], []]
    assert all(np.array_equal(source[i].pixels, p) for i, p in enumerate(patches(4)))
    assert source.name(0) == str(tmp_path / place / "0.png")
    with pytest.raises(PictureError, match=r"gone\.png: no such file"):
        source[4]


def test_the_folder_of_coco_pictures_can_be_named(tmp_path: Path) -> None:
    path, pictures = coco(tmp_path / "a.json"), write_folder(tmp_path / "else", PNGS)
    with pytest.raises(DataError, match=r"a\.json: none of its 5 pictures .*--images"):
        open_source(path)
    assert np.array_equal(open_source(path, images=pictures)[1].pixels, patches(2)[1])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"images": None}, 'no list "images"'),
        ({"annotations": {}}, 'no list "annotations"'),
        ({"images": [{"id": 1}]}, "file_name"),
        ({"images": [{"id": [1], "file_name": "a"}]}, "id"),
        ({"annotations": [{"image_id": 10, "bbox": []}]}, "caption"),
        ({"annotations": [{"image_id": 99, "caption": "x"}]}, "image 99"),
    ],
)
def test_another_json_is_refused(tmp_path: Path, changes: dict[str, Any], words: str) -> None:
    write_folder(tmp_path, PNGS)
    with pytest.raises(DataError, match=rf"captions\.json: is no COCO.*{words}") as caught:
        open_source(coco(tmp_path / "captions.json", **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1, 2", "[]", "3", "[" * 100_000, b"\xff\xfe\x00"])
def test_what_is_no_json_is_refused(tmp_path: Path, text: str | bytes) -> None:
    (tmp_path / "a.json").write_bytes(text.encode() if isinstance(text, str) else text)
    with pytest.raises(DataError, match=r"a\.json"):
        open_source(tmp_path / "a.json")


def test_imagefolder_captions_go_with_their_pictures_and_nothing_is_lost(tmp_path: Path) -> None:
    root = imagefolder(
        tmp_path / "set",
        {"file_name": "2.png", "text": "third"},
        "",
        {"file_name": "sub/4.png", "captions": ["a", "b"], "label": 3},
        {"file_name": "0.png", "caption": "first"},
        {"file_name": "gone.png", "text": None},
        {"file_name": "2.png", "text": "once more"},
    )
    write_folder(root, {"sub/4.png": PNGS["3.png"], "3.txt": b"unlisted"})
    write_tar(root / "x.tar", {"9.png": PNGS["1.png"]})
    source = open_source(root)
    names = [source.name(i).removeprefix(f"{root}/") for i in range(len(source))]
    assert names == ["1.png", "3.png", "x.tar/9.png", "2.png", "sub/4.png", "0.png", "gone.png"]
    captions = [source.captions(i) for i in range(len(source))]
    assert captions == [[], ["unlisted"], [], ["third", "once more"], ["a", "b"], ["first"], []]
    with pytest.raises(PictureError, match=r"gone\.png: no such file"):
        source[6]


def test_each_split_of_an_imagefolder_has_a_list_of_its_own(tmp_path: Path) -> None:
    for split in ("train", "test"):
        imagefolder(tmp_path / "set" / split, {"file_name": "1.png", "text": split})
    source = open_source(tmp_path / "set")
    assert len(source) == 8
    told = {source.name(i): source.captions(i) for i in range(8) if source.captions(i)}
    assert told == {str(tmp_path / "set" / split / "1.png"): [split] for split in ("test", "train")}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is no JSON"),
        ("[" * 100_000, "is no JSON"),
        ("[]", "file_name"),
        ('{"text": "x"}', "file_name"),
        ('{"file_name": 3}', "file_name"),
        ('{"file_name": "1.png", "text": 5}', '"text" is neither'),
        ('{"file_name": "1.png", "captions": ["a", 5]}', '"captions" is neither'),
    ],
)
def test_a_malformed_line_is_named(tmp_path: Path, line: str, words: str) -> None:
    root = imagefolder(tmp_path / "set", {"file_name": "0.png", "text": "fine"}, "", line)
    with pytest.raises(DataError, match=rf"metadata\.jsonl line 3: .*{words}") as caught:
        open_source(root)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", ["../0.png", "sub/../../0.png", "{root}/0.png"])
def test_a_list_does_not_lead_out_of_its_folder(tmp_path: Path, name: str) -> None:
    write_folder(tmp_path, PNGS)
    name = name.format(root=tmp_path)
    source = open_source(imagefolder(tmp_path / "set", {"file_name": "3.png"}, {"file_name": name, "text": "not mine"}))
    with pytest.raises(PictureError, match="leads out of"):
        source[4]


@pytest.mark.parametrize("make", ["coco", "imagefolder"])
def test_missing_files_are_counted_and_named_by_shard(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], make: str
) -> None:
    if make == "coco":
        source, folder = coco(tmp_path / "captions.json"), write_folder(tmp_path / "pictures", PNGS)
        words = [str(source), str(tmp_path / "out"), "--images", str(folder)]
    else:
        folder = imagefolder(
            tmp_path / "set", {"file_name": "gone.png"}, {"file_name": "2.png", "text": "third picture"}
        )
        words = [str(folder), str(tmp_path / "out")]
    assert main(["shard", *words]) == 0
    assert "4 pictures, 1 shard(s); 1 left out" in capsys.readouterr().out
    (line,) = (tmp_path / "out" / "skipped.tsv").read_text().splitlines()
    assert line == f"{folder / 'gone.png'}\t{folder / 'gone.png'}: no such file; check the path"
    packed = open_source(tmp_path / "out")
    assert "third picture" in [caption for i in range(4) for caption in packed[i].captions]


@pytest.mark.parametrize("form", ["metadata.jsonl", "captions.csv", "captions.json"])
@pytest.mark.parametrize("command", ["train --steps=1 --out", "shard", "data inspect --out", "fill-many"])
def test_a_list_of_other_pictures_is_refused_with_counts_and_names_of_both(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], command: str, form: str
) -> None:
    names, source = ["x.png", "sub/y.png"], write_folder(tmp_path / "set", PNGS) / form
    if form == "metadata.jsonl":
        source = imagefolder(tmp_path / "set", *({"file_name": name} for name in names))
    elif form == "captions.csv":
        source.write_text("".join(f"{name},a dog\n" for name in names))
    else:
        coco(source, images=[{"id": number, "file_name": name} for number, name in enumerate(names)], annotations=[])
    verb, *flags = command.split(" --")
    assert main([*verb.split(), str(source), *(f"--{flag}" for flag in flags), str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert (
        "none of its 2 pictures (x.png, sub/y.png) is among the 4 in" in told and "(0.png, 1.png, 2.png, ...)" in told
    )
    assert told.count("\n") == 1 and not (tmp_path / "out").exists()


@pytest.mark.parametrize("make", ["coco", "imagefolder"])
def test_training_takes_lists_as_they_are(tmp_path: Path, micro_toml: Path, make: str) -> None:
    source = imagefolder(tmp_path, {"file_name": "2.png", "text": "x"}) if make == "imagefolder" else None
    if source is None:
        write_folder(tmp_path, PNGS)
        source = coco(tmp_path / "captions.json")
    words = ["--config", str(micro_toml), "--steps", "3"]
    assert main(["train", str(source), "--out", str(tmp_path / "run"), *words]) == 0
    assert (tmp_path / "run" / "model" / "model.safetensors").is_file()


@pytest.mark.parametrize("name", ["\ud83d.png", "\0.png", "x" * 300 + ".png", "", "\n.png"])
def test_names_that_no_file_can_have_are_missing_files(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str
) -> None:
    write_folder(tmp_path, PNGS)
    images = [{"id": 1, "file_name": name}, {"id": 2, "file_name": "0.png"}]
    source = coco(tmp_path / "a.json", images=images, annotations=[{"image_id": 2, "caption": "half \ud83d a face"}])
    assert main(["shard", str(source), str(tmp_path / "out")]) == 0
    assert "1 pictures, 1 shard(s); 1 left out" in capsys.readouterr().out
    assert (tmp_path / "out" / "skipped.tsv").read_text().count("\n") == 1
    assert open_source(tmp_path / "out").captions(0) == ["half ? a face"]
