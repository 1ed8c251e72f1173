"""What the HTTP API refuses: every message names what was wrong and what is accepted."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from serving import EVENTS, PIXELS, client, events, filled, parts, png
from starlette.testclient import TestClient

from manyfill.web.settings import Limits


@pytest.fixture(scope="module")
def web(model: Path, one_thread: None) -> Iterator[TestClient]:
    with client(model) as found:
        yield found


LARGE = png(np.zeros((2001, 2000), np.uint8))
WIDE = parts(png(np.zeros((9, 17_000), np.uint8)), png(np.eye(9, 17_000, dtype=bool)))


@pytest.mark.parametrize(
    ("files", "data", "told"),
    [
        ({}, {}, "image: is missing"),
        (parts(b"text"), {}, "image: not a picture that can be read"),
        (parts(b""), {}, "image: the file is empty"),
        (parts(png(PIXELS)[:200]), {}, "image: damaged or truncated"),
        (parts(mask=b"text"), {}, "mask: not a picture that can be read"),
        (parts(mask=None), {}, "mask: is missing, and the image has no transparent pixels"),
        (parts(mask=png(np.zeros((9, 9), np.uint8))), {}, "mask: the mask is 9x9 but the picture is 50x40"),
        (parts(LARGE, LARGE), {}, "has more than 4,000,000 pixels; shrink it"),
        (parts(), {"n": "0"}, "n: input should be greater than or equal to 1"),
        (parts(), {"n": "65"}, "n: input should be less than or equal to 64"),
        (parts(), {"n": ""}, "n: is empty; give a value, or leave the field out"),
        (parts(), {"n": "many"}, "n: input should be a valid integer"),
        (parts(), {"seed": "1.5"}, "seed: input should be a valid integer"),
        (parts(), {"seed": "9" * 30}, "seed: input should be less than or equal to"),
        (parts(), {"temperature": "hot"}, "temperature hot: give a number"),
        (parts(), {"temperature": "-1"}, "temperature -1.0: must be from 0 to 100"),
        (parts(), {"temperature": "1e38"}, "temperature 1e+38: must be from 0 to 100"),
        (parts(), {"temperature": "nan"}, "temperature nan: must be from 0 to 100"),
        (parts(), {"format": "gif"}, "format gif: is none of png, jpeg, webp, tiff, npy"),
        (parts(), {"format": "x" * 21}, "format: string should have at most 20 characters"),
        (WIDE, {"n": "1", "format": "webp"}, "format webp: cannot hold this picture"),
        (parts(), {"quality": "0"}, "quality 0: must be from 1 to 100"),
        (parts(), {"quality": "best"}, "quality: input should be a valid integer"),
        (parts(), {"format": "png", "quality": "9"}, "quality: is for jpeg and webp, format png keeps all"),
        (parts(), {"guidance": "2"}, "guidance 2.0: goes with a caption; give one, or drop it"),
        (parts(), {"caption": "a cat", "guidance": "-1"}, "guidance -1.0: must be from 0 to 100"),
        (parts(), {"caption": "a cat", "guidance": "1e4"}, "guidance 10000.0: must be from 0 to 100"),
        (parts(), {"caption": "a cat", "guidance": "nan"}, "guidance nan: must be from 0 to 100"),
        (parts(), {"view": "all"}, "view: input should be 'picture' or 'hole'"),
        (parts(), {"temprature": "1"}, "'temprature': there is no such field; there are image, mask, n"),
        (parts(), {"n": ["1", "2"]}, "n: was sent 2 times"),
        (parts(), {"label": "a cat"}, "there is no such field"),
        (parts(), {"caption": "a cat"}, "caption: this model reads none"),
    ],
)
def test_refusals_name_what_is_wrong(
    model: Path, one_thread: None, files: dict[str, bytes], data: dict[str, Any], told: str
) -> None:
    with client(model, Limits(pixels=4_000_000)) as web:
        answer = web.post("/api/v1/fill", files=files, data=data)
        assert answer.status_code == 422, answer.text
        detail = answer.json()["detail"]
        assert told in detail and "--" not in detail and "\n" not in detail
        assert web.app.state.service.slot.inside == 0 == web.app.state.service.budget.taken  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("changes", "status", "told"),
    [
        ({"result": "x" * 22}, 404, "no longer kept"),
        ({"fill": 3}, 422, "fill 3: there is no such fill; this result has 0 to 2"),
        ({"fill": -1}, 422, "fill: input should be greater than or equal to 0"),
        ({"keep_levels": "some"}, 422, "keep_levels some: give levels such as"),
        ({"keep_levels": "1-99"}, 422, "there is no level"),
        ({"keep_levels": "1-999999999999"}, 422, "there is no level"),
        ({"format": "gif"}, 422, "format gif: is none of"),
        ({"caption": "a cat"}, 422, "'caption': there is no such field"),
    ],
)
def test_rerolls_that_cannot_be(web: TestClient, changes: dict[str, Any], status: int, told: str) -> None:
    asked = {"result": filled(web)[0], "fill": 0, "keep_levels": "1-2", "n": 1} | changes
    answer = web.post("/api/v1/reroll", data=asked)
    assert answer.status_code == status and told in answer.json()["detail"], answer.text


FORM = "multipart/form-data; boundary=x"


@pytest.mark.parametrize(
    ("asked", "status", "told"),
    [
        (("PUT", "fill", b"", FORM), 405, "PUT is not answered here; send POST"),
        (("POST", "model", b"", FORM), 405, "POST is not answered here; send GET"),
        (("GET", "nothing", b"", FORM), 404, "the page is at / and the API is told of at /docs"),
        (("GET", "results/short/all.zip", b"", FORM), 422, "result: there is none of this id; take that of the event"),
        (
            ("POST", "fill", b"x", FORM),
            400,
            r"the form cannot be read \(.+\); send multipart/form-data, as /docs tells",
        ),
        (("POST", "fill", b"x", "multipart/form-data"), 400, r"the form cannot be read \(Missing boundary"),
    ],
)
def test_requests_that_are_none_are_told_what_is_accepted(
    web: TestClient, asked: tuple[str, str, bytes, str], status: int, told: str
) -> None:
    method, path, content, kind = asked
    answer = web.request(method, f"/api/v1/{path}", content=content, headers={"Content-Type": kind})
    assert answer.status_code == status and re.search(told, answer.json()["detail"]), answer.text


def test_too_much_is_refused_before_it_is_drawn(model: Path, one_thread: None) -> None:
    with client(model, Limits(volume=5 * 2000)) as web:
        answer = web.post("/api/v1/fill", files=parts(), data={"n": 6})
        assert answer.status_code == 422 and "ask for at most 5" in answer.json()["detail"]
        told = web.post("/api/v1/fill", files=parts(), data={"n": 6, "view": "hole"}, headers=EVENTS)
        result = dict(events(told.text))["done"]["result"]  # of the hole alone, six are not too much
        assert web.get(f"/api/v1/results/{result}/fill-05.png").status_code == 200
        assert web.get(f"/api/v1/results/{result}/all.zip").status_code == 422


def test_more_memory_than_the_server_may_use_is_refused(model: Path, one_thread: None) -> None:
    with client(model, max_memory=2**20) as web:
        answer = web.post("/api/v1/fill", files=parts(), data={"n": 6})
        last = events(web.post("/api/v1/fill", files=parts(), data={"n": 6}, headers=EVENTS).text)[-1]
    assert answer.status_code == 422 and last == ("error", answer.json())
    assert "n: these fills take about" in last[1]["detail"] and "ask for fewer" in last[1]["detail"]
    assert "--" not in last[1]["detail"] and "-n" not in last[1]["detail"]


def test_where_no_place_is_free_a_body_is_not_even_looked_at(model: Path, one_thread: None) -> None:
    broken = {"content": b"no form", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}
    with client(model, Limits(waiting=1)) as web:
        slot = web.app.state.service.slot  # type: ignore[attr-defined]
        turns = [slot.admit(), slot.admit()]
        for path in ("fill", "reroll"):
            answer = web.post(f"/api/v1/{path}", **broken)
            assert answer.status_code == 429 and int(answer.headers["retry-after"]) >= 1
        assert web.get("/health").status_code == web.get("/api/v1/model").status_code == 200
        for turn in turns:
            turn.end()
        assert web.post("/api/v1/fill", **broken).status_code == 400
