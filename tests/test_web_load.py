"""Many at once: the server answers all the while, refuses what is too much with 429, and its memory does not grow."""

import http.client
import sys
import time
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest
from serving import server
from test_web_hostile import multipart

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import web_load

pytestmark = pytest.mark.slow
FLAT = 0.05
PATIENCE = 60  # seconds


def test_32_clients_send_1000_requests() -> None:
    found = web_load.measure(requests=1000, clients=32, queue=8)
    assert sum(found["statuses"].values()) >= 1000 and set(found["statuses"]) == {"200", "429"}
    assert found["health_ms"]["count"] > 0
    assert found["memory_mib"]["growth"] < FLAT


def counted(web: httpx.Client, name: str) -> float:
    return float(web.get("/metrics").text.split(f"\n{name} ")[1].split("\n")[0])


def until(happened: Callable[[], bool]) -> None:
    """Wait for it, but not for ever: a request that was refused is never inside."""
    end = time.monotonic() + PATIENCE
    while not happened():
        assert time.monotonic() < end, f"not within {PATIENCE} s"
        time.sleep(0.01)


@pytest.mark.parametrize("accept", ["text/event-stream", "application/zip"])
def test_who_goes_away_is_drawn_for_no_longer(accept: str) -> None:
    body = multipart(web_load.form(), n="64")
    headers = {"Accept": accept, "Content-Type": "multipart/form-data; boundary=x"}
    with server("default") as (address, _), httpx.Client(base_url=address, timeout=60) as web:
        leaving = http.client.HTTPConnection(*address.removeprefix("http://").split(":"))  # type: ignore[arg-type]
        leaving.request("POST", "/api/v1/fill", body, headers)
        until(lambda: counted(web, "manyfill_requests_inside") == 1)
        leaving.close()
        until(lambda: counted(web, "manyfill_requests_inside") == 0)
        assert counted(web, "manyfill_fills_total") < 64
        assert web.post("/api/v1/fill", files=web_load.form(), data={"n": "1"}).status_code == 200
