"""The HTTP API: the bytes of the command line, events, results, re-rolls, and messages that say what is accepted."""

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from serving import EVENTS, HOLE, PIXELS, client, events, filled, parts, png, unzipped, write_parts
from starlette.testclient import TestClient

from manyfill import Filler
from manyfill.cli import main
from manyfill.encode import SUFFIXES, Encoding
from manyfill.images import open_picture
from manyfill.web.settings import Limits
from manyfill.web.words import plain


@pytest.fixture(scope="module")
def web(model: Path, one_thread: None) -> Iterator[TestClient]:
    with client(model) as found:
        yield found


def streamed(web: TestClient, path: str = "fill", **options: Any) -> list[tuple[str, Any]]:
    sent = {"files": parts()} if path == "fill" else {}
    answer = web.post(f"/api/v1/{path}", **sent, data={"n": 3, **options}, headers=EVENTS)
    assert answer.status_code == 200 and answer.headers["content-type"].startswith("text/event-stream"), answer.text
    return events(answer.text)


def opened(text: str) -> np.ndarray:
    return np.array(Image.open(io.BytesIO(base64.b64decode(text))))


# ------------------------------------------------------------------------------------------------ the same bytes


@pytest.mark.parametrize("options", [{}, {"seed": 7, "temperature": "0.5"}, {"temperature": "0.2,0.2,1"}])
def test_files_are_those_of_the_command_line(
    web: TestClient, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, options: dict[str, Any]
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parts()
    flags = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    command = ["fill", "image.png", "--mask", "mask.png", "-n", "3", "--out", "out", "--model", str(model), *flags]
    assert main(command) == 0
    written = {file.name: file.read_bytes() for file in Path("out").iterdir()}
    result, zipped = filled(web, **options)
    record = json.loads(zipped.pop("fill.json"))
    assert zipped == written
    for name, content in written.items():
        assert web.get(f"/api/v1/results/{result}/{name}").content == content
    assert [base64.b64decode(data["png"]) for name, data in streamed(web, **options) if name == "fill"] == [
        written[f"fill-0{i}.png"] for i in range(3)
    ]
    assert record["model"] == model.name and str(model.parent) not in json.dumps(record)


@pytest.mark.parametrize(
    ("options", "suffix"),
    [
        ({"format": "jpeg"}, ".jpg"),
        ({"format": "jpeg", "quality": 40}, ".jpg"),
        ({"format": "webp", "quality": 70}, ".webp"),
        ({"format": "tiff"}, ".tif"),
        ({"format": "npy"}, ".npy"),
    ],
)
def test_another_format_gives_the_files_of_the_command_line(
    web: TestClient,
    model: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    options: dict[str, Any],
    suffix: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parts()
    flags = ["-n", "3", "--json", "--model", str(model), *(w for k, v in options.items() for w in (f"--{k}", str(v)))]
    assert main(["fill", "image.png", "--mask", "mask.png", "--out", "a", "--latents", *flags]) == 0
    assert main(["reroll", "a/fill-02.safetensors", "--keep-levels", "1-3", "--out", "b", *flags]) == 0
    answers = [web.post("/api/v1/fill", files=parts(), data={"n": 3, **options})]
    asked = {"result": answers[0].headers["manyfill-result"], "fill": 2, "keep_levels": "1-3", "n": 3}
    answers.append(web.post("/api/v1/reroll", data={**asked, **options}))
    for folder, answer in zip("ab", answers, strict=True):
        result, files = answer.headers["manyfill-result"], unzipped(answer.content)
        record, told = (
            json.loads(content) for content in (files.pop("fill.json"), Path(folder, "fill.json").read_bytes())
        )
        assert record["notes"] == [plain(note) for note in told["notes"]]
        assert record["steps"][-1].items() >= options.items()
        written = {f.name: f.read_bytes() for f in Path(folder).iterdir() if f.suffix not in (".safetensors", ".json")}
        assert files == written and "fill-02" + suffix in written
        for name, content in written.items():
            assert web.get(f"/api/v1/results/{result}/{name}").content == content
    patches = [data["png"] for name, data in streamed(web, **options) if name == "fill"]
    shown = filled(web)[1]  # what is shown on the way is PNG
    assert [base64.b64decode(patch) for patch in patches] == [shown[f"fill-0{i}.png"] for i in range(3)]


def test_fills_are_those_of_the_library(web: TestClient, model: Path) -> None:
    images = Filler.from_pretrained(model)(PIXELS, HOLE, n=3, seed=4).images
    _, zipped = filled(web, seed=4)
    for i, image in enumerate(images):
        assert np.array_equal(open_picture(zipped[f"fill-0{i}.png"]).pixels, image)


def test_a_transparent_picture_needs_no_mask(web: TestClient) -> None:
    image = png(np.dstack([PIXELS, np.where(HOLE, 0, 255).astype(np.uint8)]))
    answer = web.post("/api/v1/fill", files=parts(image, None), data={"n": 1})
    fill = open_picture(unzipped(answer.content)["fill-00.png"])
    assert fill.alpha is not None and (fill.alpha == 255).all() and np.array_equal(fill.pixels[~HOLE], PIXELS[~HOLE])


def test_an_empty_mask_gives_the_picture_and_a_note(web: TestClient) -> None:
    answer = web.post("/api/v1/fill", files=parts(mask=png(np.zeros((40, 50), np.uint8))), data={"n": 2})
    zipped = unzipped(answer.content)
    assert np.array_equal(open_picture(zipped["fill-01.png"]).pixels, PIXELS)
    assert "the mask is empty" in json.loads(zipped["fill.json"])["notes"][0]


# --------------------------------------------------------------------------------------------------------- events


def test_events_come_in_order_and_show_the_hole_alone(web: TestClient) -> None:
    told = streamed(web, view="hole")
    assert [name for name, _ in told] == ["waiting", "start", *["fill"] * 3, "mean", "uncertainty", "done"]
    data = dict(told)
    assert data["start"]["view"] == {"top": 10, "left": 20, "height": 15, "width": 20}
    assert data["start"]["size"] == {"height": 40, "width": 50}
    _, zipped = filled(web)
    for index, patch in enumerate(data["png"] for name, data in told if name == "fill"):
        pixels, whole = opened(patch), open_picture(zipped[f"fill-0{index}.png"]).pixels
        assert pixels.shape == (15, 20, 4) and (pixels[..., 3] == 255).all()
        assert np.array_equal(pixels[..., :3], whole[10:25, 20:40])
    heat = open_picture(zipped["std.png"]).pixels
    assert np.array_equal(opened(data["uncertainty"]["png"])[..., :3], heat[10:25, 20:40])
    assert data["done"]["record"]["hole_pixels"] == HOLE.sum() and data["uncertainty"]["largest"] > 0
    assert data["done"]["levels"] == [level["size"] for level in web.get("/api/v1/model").json()["levels"]]


def test_a_patch_is_transparent_where_the_picture_is_known(web: TestClient) -> None:
    hole = np.zeros((40, 50), bool)
    hole[5, 5] = hole[8, 9] = True
    sent = parts(mask=png(hole.astype(np.uint8) * 255))
    answer = web.post("/api/v1/fill", files=sent, data={"n": 1, "view": "hole"}, headers=EVENTS)
    patch = opened(dict(events(answer.text))["fill"]["png"])
    assert np.array_equal(patch[..., 3] > 0, hole[5:9, 5:10]) and not patch[..., :3][patch[..., 3] == 0].any()


@pytest.mark.parametrize("alpha", [False, True])
def test_grey_pictures_stay_grey(web: TestClient, alpha: bool) -> None:
    grey = PIXELS[..., 0]
    image = png(np.dstack([grey, np.where(PIXELS[..., 1] > 200, 200, 255).astype(np.uint8)]) if alpha else grey)
    answer = web.post("/api/v1/fill", files=parts(image), data={"n": 1, "view": "hole"}, headers=EVENTS)
    assert opened(dict(events(answer.text))["fill"]["png"]).shape == (15, 20, 2)


def test_fills_of_a_large_hole_come_a_few_at_a_time_and_are_the_same(model: Path, one_thread: None) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (150, 160, 3), dtype=np.uint8)
    hole = np.zeros((150, 160), bool)
    hole[20:120, 30:140] = True
    sent = parts(png(pixels), png(hole.astype(np.uint8) * 255))
    whole = Filler.from_pretrained(model)(pixels, hole, n=3)
    with client(model) as web:
        service = web.app.state.service  # type: ignore[attr-defined]
        portions = []
        inner = service.filler.portions
        service.filler.portions = lambda *a: (portions.append(p) or p for p in inner(*a))
        answer = web.post("/api/v1/fill", files=sent, data={"n": 3})
    assert [len(portion.recipes) for portion in portions] == [1, 1, 1]
    zipped = unzipped(answer.content)
    for name, content in whole.files(Encoding()):
        assert zipped[name] == content, name
    assert json.loads(zipped["fill.json"])["crop"] == whole.record()["crop"]


# ------------------------------------------------------------------------------------------------ results, re-rolls


def test_keeping_all_levels_redraws_the_same_bytes_and_keeping_some_does_not(web: TestClient) -> None:
    result, zipped = filled(web)
    levels = len(web.get("/api/v1/model").json()["levels"])
    steps = {}
    for keep in ("all", "1-2", f"1-{levels}", "none"):
        answer = web.post("/api/v1/reroll", data={"result": result, "fill": 1, "keep_levels": keep, "n": 1, "seed": 3})
        assert answer.status_code == 200, answer.text
        steps[keep] = unzipped(answer.content)
    same = {keep: files["fill-00.png"] == zipped["fill-01.png"] for keep, files in steps.items()}
    assert same == {"all": True, "1-2": False, f"1-{levels}": True, "none": False}
    asked = json.loads(steps["1-2"]["fill.json"])["steps"]
    assert [step["command"] for step in asked] == ["fill", "reroll"]
    assert asked[1] == {"command": "reroll", "fill": 1, "keep_levels": "1-2", "n": 1, "seed": 3, "temperature": 1.0}


def test_a_reroll_is_that_of_the_command_line(
    web: TestClient, model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write_parts()
    named = ["--model", str(model)]
    assert main(["fill", "image.png", "--mask", "mask.png", "-n", "3", "--out", "a", "--latents", *named]) == 0
    options = ["--keep-levels", "1-3", "-n", "2", "--seed", "5", "--out", "b"]
    assert main(["reroll", "a/fill-02.safetensors", *options, *named]) == 0
    asked = {"result": filled(web)[0], "fill": 2, "keep_levels": "1-3", "n": 2, "seed": 5}
    zipped = unzipped(web.post("/api/v1/reroll", data=asked).content)
    for name in ("fill-00.png", "fill-01.png", "mean.png", "std.png", "sheet.png"):
        assert zipped[name] == Path("b", name).read_bytes()


def test_a_reroll_of_a_reroll_streams(web: TestClient) -> None:
    first = dict(streamed(web))["done"]["result"]
    second = dict(streamed(web, "reroll", result=first, fill=0, keep_levels="1-2"))["done"]["result"]
    told = streamed(web, "reroll", result=second, fill=2, keep_levels="3-", view="hole")
    assert [step["command"] for step in dict(told)["done"]["record"]["steps"]] == ["fill", "reroll", "reroll"]


def test_all_of_a_result_comes_with_picture_and_mask(web: TestClient) -> None:
    result, zipped = filled(web)
    found = unzipped(web.get(f"/api/v1/results/{result}/all.zip").content)
    assert np.array_equal(open_picture(found.pop("picture.png")).pixels, PIXELS)
    assert np.array_equal(open_picture(found.pop("mask.png")).pixels[..., 0] > 127, HOLE)
    assert found == zipped


@pytest.mark.parametrize("suffix", sorted(set(SUFFIXES.values())))
@pytest.mark.parametrize("kind", ["uint8", "float32"])
def test_each_file_of_a_result_comes_by_its_name(web: TestClient, suffix: str, kind: str) -> None:
    values = PIXELS if kind == "uint8" else np.where(HOLE, np.nan, 300.0 * PIXELS[..., 0]).astype(np.float32)
    if kind == "float32" and suffix not in (".npy", ".tif"):
        pytest.skip("holds no measurements")
    with io.BytesIO() as buffer:
        if suffix == ".npy":
            np.save(buffer, values)
        else:
            image = Image.fromarray(values)
            image.convert("P" if suffix == ".gif" else image.mode).save(buffer, Image.registered_extensions()[suffix])
        sent = parts(buffer.getvalue(), None if kind == "float32" else parts()["mask"])
    for asked, given in (({}, suffix), ({"format": "npy"}, ".npy")):
        answer = web.post("/api/v1/fill", files=sent, data={"n": 2, **asked})
        assert answer.status_code == 200, answer.text
        zipped = unzipped(answer.content)
        assert {"fill-00" + given, "std.png"} <= zipped.keys() and (kind == "uint8" or "std" + given in zipped)
        for name, content in zipped.items():
            found = web.get(f"/api/v1/results/{answer.headers['manyfill-result']}/{name}")
            assert found.status_code == 200 and (name == "fill.json" or found.content == content), name


def test_results_go_in_time_and_when_others_need_the_room(model: Path, one_thread: None) -> None:
    kept = 3 * (PIXELS.nbytes + HOLE.nbytes) * 8
    with client(model, Limits(kept=kept, keeping=60)) as web:
        names = [filled(web)[0] for _ in range(12)]
        gone = [web.get(f"/api/v1/results/{name}/mask.png").status_code for name in names]
        assert gone[0] == 404 and gone[-1] == 200
        service = web.app.state.service  # type: ignore[attr-defined]
        assert service.results.size <= kept and len(service.results) == gone.count(200)
        now = service.results.clock()
        service.results.clock = lambda: now + 61
        answer = web.get(f"/api/v1/results/{names[-1]}/mask.png")
        assert answer.status_code == 404 and "send the picture" in answer.json()["detail"]
        assert len(service.results) == 0 and service.results.size == 0


# ------------------------------------------------------------------------------------------------------ all the rest


def test_the_model_is_told_of(web: TestClient, model: Path) -> None:
    told = web.get("/api/v1/model").json()
    assert told["model"] == model.name and told["size"] == 32 and not told["captions"]
    assert told["levels"][0]["size"] < told["levels"][-1]["size"] == 32


def test_metrics_count_in_prometheus_text(model: Path, one_thread: None) -> None:
    with client(model) as web:
        filled(web)
        web.get("/nothing/here")
        text = web.get("/metrics").text
    assert 'manyfill_requests_total{path="/api/v1/fill",status="200"} 1.0' in text
    assert 'manyfill_requests_total{path="other",status="404"} 1.0' in text
    assert "manyfill_fills_total 3.0" in text and "manyfill_requests_inside 0.0" in text
    assert "manyfill_kept_results 1.0" in text and "manyfill_held_bytes 0.0" in text


def test_every_operation_is_described(web: TestClient) -> None:
    described = web.get("/openapi.json").json()["paths"]
    assert {"/api/v1/fill", "/api/v1/reroll", "/api/v1/model", "/health", "/metrics"} <= described.keys()
    for path in described.values():
        for operation in path.values():
            assert operation["description"]


def test_every_field_is_described_and_accepted(web: TestClient) -> None:
    described = web.get("/openapi.json").json()
    for path in ("fill", "reroll"):
        (body,) = described["paths"][f"/api/v1/{path}"]["post"]["requestBody"]["content"].values()
        fields = described["components"]["schemas"][body["schema"]["$ref"].rpartition("/")[2]]["properties"]
        assert all(field["description"] for field in fields.values())
        refused = web.post(f"/api/v1/{path}", files={"other": b""}, data={"n": 1}).json()["detail"]
        assert set(refused.rpartition("there are ")[2].split(", ")) == fields.keys()
        assert [fields[name]["anyOf"][0] for name in ("format", "quality")] == [
            {"type": "string", "enum": ["png", "jpeg", "webp", "tiff", "npy"]},
            {"type": "integer", "minimum": 1, "maximum": 100},
        ]


def test_the_page_and_its_files(web: TestClient) -> None:
    page = web.get("/")
    assert page.status_code == 200 and "<title>manyfill</title>" in page.text
    again = web.get("/", headers={"If-None-Match": page.headers["etag"]})
    assert again.status_code == 304 and not again.content
    for path in ("/static/main.js", "/static/base.css", "/static/icons.svg", "/static/heat.png", "/docs"):
        assert web.get(path).status_code == 200
    heat = open_picture(web.get("/static/heat.png").content).pixels
    assert heat.shape == (1, 256, 3) and heat[0, 0].sum() < heat[0, -1].sum()


def test_examples_are_photographs(web: TestClient) -> None:
    titles = web.get("/api/v1/examples").json()
    assert "cat" in titles
    assert open_picture(web.get("/api/v1/examples/cat").content).pixels.shape == (300, 451, 3)
    assert web.get("/api/v1/examples/dog").status_code == 404
