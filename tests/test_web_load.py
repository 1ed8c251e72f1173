"""Many at once: the server answers all the while, refuses what is too much with 429, and its memory does not grow."""

import sys
import time
from pathlib import Path

import httpx
import pytest
from serving import server

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))

import web_load

pytestmark = pytest.mark.slow
FLAT = 0.05


def test_32_clients_send_1000_requests() -> None:
    found = web_load.measure(requests=1000, clients=32, queue=8)
    assert sum(found["statuses"].values()) >= 1000 and set(found["statuses"]) == {"200", "429"}
    assert found["health_ms"]["count"] > 0
    assert found["memory_mib"]["growth"] < FLAT


def test_who_goes_away_is_drawn_for_no_longer() -> None:
    with server("default") as (address, _), httpx.Client(base_url=address, timeout=60) as web:
        with web.stream(
            "POST", "/api/v1/fill", files=web_load.form(), data={"n": "64"}, headers={"Accept": "text/event-stream"}
        ) as it:
            for line in it.iter_lines():
                if line.startswith("event: fill"):
                    break
        time.sleep(2)
        counted = web.get("/metrics").text
        drawn = float(counted.split("\nmanyfill_fills_total ")[1].split("\n")[0])
        assert 0 < drawn < 64
        assert "manyfill_requests_inside 0.0" in counted
        assert web.post("/api/v1/fill", files=web_load.form(), data={"n": "1"}).status_code == 200
