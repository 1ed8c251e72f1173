"""Requests made by chance, half as the OpenAPI page describes them or not, half mutated forms: none ends in 5xx.

MANYFILL_FUZZ=20000 says how many; few of them are sent otherwise. What came of them is printed (pytest -s).
"""

import os
import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis.errors import Unsatisfiable
from serving import parts, server
from test_web_hostile import multipart

pytestmark = pytest.mark.slow
MANY = int(os.environ.get("MANYFILL_FUZZ", "1000"))
UNSENT = (
    requests.exceptions.InvalidHeader,
    requests.exceptions.InvalidURL,
    UnicodeError,
)  # not even this client sends it


@pytest.fixture(scope="module")
def address(model: Path) -> Iterator[str]:
    """A server in a process of its own, alive and without a fault in the end."""
    with server(model) as (found, _):
        yield found
        counted = httpx.get(f"{found}/metrics", timeout=60).text
        assert 'status="5' not in counted and 'status="none"' not in counted
        assert "manyfill_held_bytes 0.0" in counted and "manyfill_requests_inside 0.0" in counted


def test_requests_as_the_openapi_page_allows_them_and_as_it_does_not(address: str) -> None:
    schema = schemathesis.openapi.from_url(f"{address}/openapi.json")
    operations = [operation.ok() for operation in schema.get_all_operations()]
    statuses: Counter[int] = Counter()
    session = requests.Session()
    for operation in operations:
        # Where nothing is asked for, nothing can be varied: that leaves four operations in two modes.
        simple = not (operation.body or operation.query or operation.path_parameters or operation.headers)
        for mode in (schemathesis.GenerationMode.POSITIVE, schemathesis.GenerationMode.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=1 if simple else max(1, MANY // 16),
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                try:
                    answer = case.call(base_url=address, session=session, timeout=60)
                except UNSENT:
                    return
                statuses[answer.status_code] += 1
                assert answer.status_code < 500, case.as_curl_command()

            try:
                ask()
            except (schemathesis.errors.SchemathesisError, Unsatisfiable):  # nothing of this operation can be wrong
                assert mode is schemathesis.GenerationMode.NEGATIVE
    print(f"described: {statuses.total()}, {dict(sorted(statuses.items()))}")
    assert statuses.total() > MANY / 4


def test_mutated_bodies(address: str) -> None:
    chance = random.Random(0)
    whole = multipart(parts(), n="1", seed="3", temperature="1", view="hole")
    fields = multipart({}, result="a" * 22, fill="0", keep_levels="1-2", n="1")
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=address, timeout=60) as web:
        for _ in range(MANY - MANY // 2):
            path, body = chance.choice((("fill", whole), ("fill", whole), ("reroll", fields)))
            answer = web.post(
                f"/api/v1/{path}",
                content=mutated(bytearray(body), chance),
                headers={
                    "Content-Type": chance.choice(("multipart/form-data; boundary=x",) * 9 + ("multipart/form-data",)),
                    "Accept": chance.choice(("*/*", "text/event-stream", "\xff", "")).encode("latin-1"),
                },
            )
            statuses[answer.status_code] += 1
            assert answer.status_code < 500
            assert "event: error" not in answer.text[-200:]
    print(f"mutated: {statuses.total()}, {dict(sorted(statuses.items()))}")
    assert statuses[200] > 0


def mutated(body: bytearray, chance: random.Random) -> bytes:
    """A few changes: bytes, cuts, repeats, and words that parsers trip over."""
    words = (
        b"\r\n",
        b"--x",
        b"--x--",
        b"\0",
        b"\xff\xfe",
        b'"',
        b"filename*=utf-8''%00",
        b"Content-Length: -1",
        b"9" * 40,
    )
    for _ in range(chance.choice((1, 1, 2, 5, 20))):
        at = chance.randrange(len(body) + 1)
        length = chance.choice((1, 4, 30))
        match chance.randrange(5):
            case 0:
                body[at : at + 1] = bytes([chance.randrange(256)])
            case 1:
                del body[at : at + length]
            case 2:
                body[at:at] = body[at : at + length]
            case 3:
                body[at:at] = chance.choice(words)
            case 4:
                del body[max(1, len(body) - chance.randrange(300)) :]
        body = body or bytearray(b"-")
    return bytes(body)
