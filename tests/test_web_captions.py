"""Captions over HTTP: the bytes of the command line, in the record, and through a re-roll."""

import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from captions import tiny
from serving import HOLE, PIXELS, client, parts, unzipped, write_parts
from starlette.testclient import TestClient

from manyfill import Filler
from manyfill.checkpoint import save_model
from manyfill.cli import main
from manyfill.images import open_picture


@pytest.fixture(scope="module")
def reads(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("reads") / "model"
    save_model(folder, tiny(), "# card", {})
    return folder


@pytest.fixture(scope="module")
def web(reads: Path, one_thread: None) -> Iterator[TestClient]:
    with client(reads) as found:
        yield found


def test_a_caption_gives_the_fills_of_the_library(web: TestClient, reads: Path) -> None:
    assert web.get("/api/v1/model").json()["captions"] is True
    answer = web.post("/api/v1/fill", files=parts(), data={"n": 2, "seed": 4, "caption": "a red car"})
    zipped = unzipped(answer.content)
    images = Filler.from_pretrained(reads)(PIXELS, HOLE, n=2, seed=4, caption="a red car").images
    assert all(np.array_equal(open_picture(zipped[f"fill-0{i}.png"]).pixels, image) for i, image in enumerate(images))
    record = json.loads(zipped["fill.json"])
    assert record["caption"] == record["steps"][0]["caption"] == "a red car"
    again = {"result": answer.headers["manyfill-result"], "fill": 1, "keep_levels": "all", "n": 1}
    rerolled = unzipped(web.post("/api/v1/reroll", data=again).content)
    assert (
        rerolled["fill-00.png"] == zipped["fill-01.png"] and json.loads(rerolled["fill.json"])["caption"] == "a red car"
    )


def test_guidance_gives_the_files_of_the_command_line_and_goes_on_through_a_reroll(
    web: TestClient, reads: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parts()
    told = ["--caption", "a red car", "--guidance", "2.5"]
    common = ["-n", "2", "--model", str(reads)]
    assert main(["fill", "image.png", "--mask", "mask.png", *told, "--out", "a", "--latents", *common]) == 0
    assert main(["reroll", "a/fill-01.safetensors", "--keep-levels", "1-2", "--out", "b", *common]) == 0
    said = {"caption": "a red car", "guidance": 2.5}
    answers = [web.post("/api/v1/fill", files=parts(), data={"n": 2, **said})]
    again = {"result": answers[0].headers["manyfill-result"], "fill": 1, "keep_levels": "1-2", "n": 2}
    answers.append(web.post("/api/v1/reroll", data=again))
    for folder, answer in zip("ab", answers, strict=True):
        zipped = unzipped(answer.content)
        record = json.loads(zipped.pop("fill.json"))
        assert record.items() >= said.items() and record["steps"][0].items() >= said.items()
        assert zipped == {f.name: f.read_bytes() for f in Path(folder).iterdir() if f.suffix != ".safetensors"}
    assert unzipped(answers[0].content)["fill-00.png"] != plain(web)["fill-00.png"]


def plain(web: TestClient) -> dict[str, bytes]:
    return unzipped(web.post("/api/v1/fill", files=parts(), data={"n": 2, "caption": "a red car"}).content)


def test_an_empty_caption_is_refused_in_the_words_of_the_web(web: TestClient) -> None:
    answer = web.post("/api/v1/fill", files=parts(), data={"n": 1, "caption": "  "})
    assert answer.status_code == 422 and answer.json()["detail"].startswith("caption: is empty")
    assert web.post("/api/v1/fill", files=parts(), data={"n": 1, "caption": "x" * 2001}).status_code == 422
