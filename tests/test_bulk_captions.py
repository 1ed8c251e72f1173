"""Filling many pictures under their captions: as `fill --caption` fills each, and again where a caption has changed."""

import json
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
from captions import CAPTIONS, SMALL, tiny
from filling import NAMES, fill_many, pictures_below, refused, rows

from manyfill.bulk.cluster import _Actor
from manyfill.bulk.job import Job
from manyfill.checkpoint import save_model
from manyfill.cli import main
from manyfill.inputs import Sampling
from manyfill.models.hvae import ConditionalHVAE

TOLD = dict(zip(NAMES[:-1], CAPTIONS, strict=False))
"""All but the last picture have a caption."""


@pytest.fixture
def reads(gappy: Path) -> Path:
    """The folder's pictures have captions, the first two; a model that reads them."""
    for name, caption in TOLD.items():
        Path("in", name).with_suffix(".txt").write_text(f"{caption}\nsomething else\n")
    save_model(Path("reads"), tiny(), "# card", {})
    return Path("reads")


def captions(out: str = "out") -> dict[str, str | None]:
    return {row["picture"]: row.get("caption") for row in rows(out)}


def coco(told: dict[str, str | None]) -> dict[str, list[dict[str, object]]]:
    return {
        "images": [{"id": number, "file_name": name} for number, name in enumerate(told)],
        "annotations": [
            {"image_id": number, "caption": caption} for number, caption in enumerate(told.values()) if caption
        ],
    }


def test_every_picture_is_filled_as_fill_fills_it_under_its_caption(
    reads: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    flags = ["--captions", "--guidance", "2", "--batch", "1"]
    assert fill_many(reads, *flags) == 0
    assert "note: the picture has no caption: the model is told nothing of it (1 picture)" in capsys.readouterr().out
    assert captions() == {**TOLD, NAMES[-1]: None}
    for name in ("a", "f"):
        # The report tells what `fill` takes for the same fills, which then can be steered.
        row = next(row for row in rows() if row["folder"] == name)
        assert row.get("guidance") == (2 if name == "a" else None)
        told = ["--caption", row["caption"], "--guidance", str(row["guidance"])] if name == "a" else []
        fill = ["fill", f"in/{name}.png", "--mask", f"masks/{name}.png", "-n", "2", "--model", str(reads), *told]
        assert main([*fill, "--out", f"alone/{name}", "--latents"]) == 0
        assert pictures_below(f"out/{name}").items() <= pictures_below(f"alone/{name}").items()
    steer = ["reroll", "alone/a/fill-01.safetensors", "--keep-levels", "all", "-n", "1", "--model", str(reads)]
    assert main([*steer, "--out", "again"]) == 0
    assert pictures_below("again")["fill-00.png"] == pictures_below("out/a")["fill-01.png"]


@pytest.mark.parametrize("form", ["in.tar", "in/metadata.jsonl", "in.csv", "captions_in.json"])
def test_captions_come_as_train_takes_them(reads: Path, form: str) -> None:
    assert fill_many(reads, "--captions", out="plain") == 0
    data, told = Path(form), [(name, TOLD.get(name)) for name in sorted(NAMES)]
    if data.suffix == ".tar":
        with tarfile.open(data, "w") as tar:
            for path in sorted(path for path in Path("in").rglob("*") if path.is_file()):
                tar.add(path, path.relative_to("in").as_posix())
    elif data.suffix == ".jsonl":
        data.write_text("".join(json.dumps({"file_name": name, "text": caption}) + "\n" for name, caption in told))
        data = data.parent
    elif data.suffix == ".csv":
        data.write_text("".join(f"{name},{caption or ''}\n" for name, caption in told))
    else:
        data.write_text(json.dumps(coco(dict(told))))
    for path in list(Path("in").rglob("*.txt")):
        path.unlink()
    assert fill_many(reads, "--captions", data=str(data)) == 0
    assert captions() == captions("plain") and pictures_below("out") == pictures_below("plain")


def test_processes_are_told_what_one_is(reads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert fill_many(reads, "--captions", "--guidance", "2", out="alone") == 0
    job = Job(
        *(Path("in"), Path("ray"), Path("masks"), Sampling(2), "reads"),
        batch=4,
        device="cpu",
        captions=True,
        guidance=2,
    )
    actor = _Actor(pickle.loads(pickle.dumps(job)), Path("scratch"), Path.cwd())
    Path("scratch").mkdir()
    told = [json.loads(line) for line in actor({"item": np.arange(3)})["line"]]
    assert {row["picture"]: row.get("caption") for row in told} == captions("alone")
    monkeypatch.setenv("WORLD_SIZE", "2")
    for rank in ("0", "1"):
        monkeypatch.setenv("RANK", rank)
        assert fill_many(reads, "--captions", "--guidance", "2") == 0
    assert pictures_below("out") == pictures_below("ray") == pictures_below("alone")


def test_captions_are_read_by_a_reader_that_is_there_already(reads: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Several threads at once would each load a pretrained one."""
    asked: list[str | None] = []
    tokens = ConditionalHVAE.tokens
    monkeypatch.setattr(ConditionalHVAE, "tokens", lambda self, said: asked.extend(said) or tokens(self, said))
    assert fill_many(reads, "--captions") == 0
    assert asked[0] == TOLD["a.png"] and sorted(map(str, asked[1:])) == sorted(TOLD.values())


def test_another_caption_has_its_picture_filled_anew(reads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fill_many(reads, "--captions") == 0
    before = pictures_below("out")
    Path("in/b.txt").write_text("a red car\n")
    Path("in/f.txt").write_text("the sea\n")
    Path("in/sub/d.txt").unlink()
    changed = {"b.png", "f.png", "sub/d.jpg"}
    assert fill_many(reads, "--captions") == 0
    assert {row["picture"] for row in rows() if not row.get("reused")} == changed
    after = pictures_below("out")
    moved = {name.rpartition("/")[0] for name in before if before[name] != after[name]}
    assert before.keys() == after.keys() and moved == {"b", "f", "sub/d"}
    assert fill_many(reads, "--captions", "--json") == 0
    assert '"reused": 6' in capsys.readouterr().out
    # All of them under other words than before is another request.
    assert "captions: one for each there, None here" in refused(capsys, reads)
    assert "guidance: 1.0 there, 1.5 here" in refused(capsys, reads, "--captions", "--guidance", "1.5")
    assert pictures_below("out") == after


def test_what_cannot_be_told_is_refused_before_anything_is_written(
    reads: Path, model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "--captions: this model reads none; take one" in refused(capsys, model, "--captions")
    for weight in ("-1", "nan"):
        assert f"--guidance {float(weight)}: must be from 0 to 100" in refused(
            capsys, reads, "--captions", f"--guidance={weight}"
        )
    assert "--guidance 2.0: goes with --captions" in refused(capsys, reads, "--guidance", "2")
    for path in list(Path("in").rglob("*.txt")):
        path.write_text("\n")
    assert "--captions: none of the 6 pictures has one" in refused(capsys, reads, "--captions")
    assert not Path("out").exists()


def test_draws_one_after_the_other_are_not_guided(reads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    config = tiny().config
    levels = tuple(level.model_copy(update={"prior": "autoregressive"}) for level in config.levels[1:2])
    chained = ConditionalHVAE(
        config.model_copy(update={"levels": (config.levels[0], *levels, *config.levels[2:]), "captions": SMALL})
    )
    chained.vocabulary = tiny().vocabulary
    save_model(Path("chained"), chained, "# card", {})
    assert "one after the other" in refused(capsys, Path("chained"), "--captions", "--guidance", "2")
    assert not Path("out").exists()


def test_a_caption_that_is_no_text_leaves_its_picture_out(reads: Path, capsys: pytest.CaptureFixture[str]) -> None:
    Path("in/b.txt").write_bytes(b"gr\xf6\xdfer\n")
    assert fill_many(reads, "--captions") == 0
    assert {row["picture"]: row.get("reason") for row in rows()}["b.png"] == (
        "in/b.png: its captions are not UTF-8; save them as UTF-8 text"
    )
