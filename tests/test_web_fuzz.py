"""Twenty thousand requests made by chance: none ends in 5xx."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from serving import client, parts
from starlette.testclient import TestClient
from test_web_hostile import multipart

pytestmark = pytest.mark.slow
DESCRIBED, MUTATED = 10_000, 10_000


@pytest.fixture(scope="module")
def web(model: Path, one_thread: None) -> Iterator[TestClient]:
    with client(model) as found:
        yield found


def test_requests_as_the_openapi_page_allows_them_and_as_it_does_not(web: TestClient) -> None:
    schema = schemathesis.openapi.from_asgi("/openapi.json", web.app, headers={"Host": "localhost"})
    operations = [operation.ok() for operation in schema.get_all_operations()]
    statuses: Counter[int] = Counter()
    for operation in operations:
        modes = schemathesis.GenerationMode
        for mode in (modes.POSITIVE, modes.NEGATIVE):

            @given(case=operation.as_strategy(generation_mode=mode))
            @settings(
                max_examples=DESCRIBED // len(operations) // 2,
                deadline=None,
                database=None,
                phases=[Phase.generate],
                suppress_health_check=list(HealthCheck),
            )
            def ask(case: schemathesis.Case) -> None:
                answer = case.call(headers={"Host": "localhost"})
                statuses[answer.status_code] += 1
                assert answer.status_code < 500, case.as_curl_command()

            try:
                ask()
            except schemathesis.errors.SchemathesisError:  # nothing of this operation can be wrong
                assert mode is modes.NEGATIVE
    print(dict(statuses))
    assert statuses.total() > DESCRIBED / 2


def test_mutated_bodies(web: TestClient) -> None:
    chance = random.Random(0)
    whole = multipart(parts(), n="1", seed="3", temperature="1", view="hole")
    fields = multipart({}, result="a" * 22, fill="0", keep_levels="1-2", n="1")
    statuses: Counter[int] = Counter()
    for _ in range(MUTATED):
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
    print(dict(statuses))
    assert statuses[200] > 0 and web.get("/health").status_code == 200


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
