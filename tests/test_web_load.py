"""Many at once: the server stays responsive, refuses what is too much with 429, and its memory does not grow."""

import asyncio
import time
from collections import Counter

import httpx
import numpy as np
import pytest
from serving import parts, resident, server
from skimage import data

from manyfill.images import png_bytes, resize

pytestmark = pytest.mark.slow
CLIENTS, REQUESTS = 32, 1000
HEALTH_P99 = 0.15  # seconds
FLAT = 1.05


@pytest.fixture(scope="module")
def sent() -> dict[str, bytes]:
    photo = resize(data.astronaut(), 64, 64)
    hole = np.zeros((64, 64, 1), np.uint8)
    hole[16:48, 16:48] = 255
    return parts(png_bytes(photo), png_bytes(hole))


async def hammer(address: str, pid: int, sent: dict[str, bytes]) -> tuple[Counter[int], list[float], dict[int, float]]:
    """Statuses, seconds that /health took meanwhile, and the memory after 100 and after all requests."""
    statuses: Counter[int] = Counter()
    memory: dict[int, float] = {}
    health: list[float] = []
    limits = httpx.Limits(max_connections=CLIENTS + 1)
    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as web:

        async def client() -> None:
            while statuses.total() + CLIENTS <= REQUESTS:
                answer = await web.post("/api/v1/fill", files=sent, data={"n": "4"})
                statuses[answer.status_code] += 1
                assert answer.status_code != 429 or int(answer.headers["retry-after"]) >= 1
                if statuses.total() in (100, REQUESTS - CLIENTS):
                    memory[statuses.total()] = resident(pid)
                await asyncio.sleep(0.05 if answer.status_code == 429 else 0)

        async def probe() -> None:
            async with httpx.AsyncClient(base_url=address, timeout=120) as other:
                while True:
                    began = time.perf_counter()
                    assert (await other.get("/health")).status_code == 200
                    health.append(time.perf_counter() - began)
                    await asyncio.sleep(0.01)

        probing = asyncio.create_task(probe())
        await asyncio.gather(*(client() for _ in range(CLIENTS)))
        probing.cancel()
        memory[REQUESTS] = resident(pid)
    return statuses, health, memory


def test_32_clients_send_1000_requests(sent: dict[str, bytes]) -> None:
    with server("default") as (address, pid):
        statuses, health, memory = asyncio.run(hammer(address, pid, sent))
    p99 = sorted(health)[int(0.99 * len(health))]
    print(f"{dict(statuses)}, health p99 {1000 * p99:.0f} ms of {len(health)}, memory {memory} MB")
    assert statuses.total() >= REQUESTS - CLIENTS and set(statuses) == {200, 429}
    assert p99 < HEALTH_P99
    assert memory[REQUESTS] < FLAT * memory[100]


def test_who_goes_away_is_drawn_for_no_longer(sent: dict[str, bytes]) -> None:
    with server("default") as (address, _), httpx.Client(base_url=address, timeout=60) as web:
        with web.stream(
            "POST", "/api/v1/fill", files=sent, data={"n": "64"}, headers={"Accept": "text/event-stream"}
        ) as it:
            for line in it.iter_lines():
                if line.startswith("event: fill"):
                    break
        time.sleep(2)
        counted = web.get("/metrics").text
        drawn = float(counted.split("\nmanyfill_fills_total ")[1].split("\n")[0])
        assert 0 < drawn < 64
        assert "manyfill_requests_inside 0.0" in counted
        assert web.post("/api/v1/fill", files=sent, data={"n": "1"}).status_code == 200
