"""How the server stands 32 clients at once: does it stay responsive, refuse what is too much, keep to its memory?

    python benchmarks/web_load.py [--requests 1000] [--clients 32] [--queue 8] [--json FILE]

`manyfill serve` runs in a process of its own, the clients in another, and a third asks for /health all the while, so
that nobody's waiting is counted as the server's. Each client asks for 4 fills of a 64x64 photograph, and when it is
told to come back later (429) it does so after 50 ms, much sooner than it was told. `taskset` puts all on some cores.
"""

import argparse
import asyncio
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import skimage.data
from common import check_writable, resident, run, write_json

from manyfill.benchmark import machine
from manyfill.device import processors
from manyfill.images import png_bytes, resize

FILLS, SIDE = 4, 64
PATIENCE = 0.05  # seconds after a 429
EVERY = 0.01  # seconds between two questions for /health
TICKS = os.sysconf("SC_CLK_TCK")


@contextmanager
def serving(*arguments: str) -> Iterator[tuple[str, int]]:
    """`manyfill serve` in a process of its own: its address and process id."""
    command = [sys.executable, "-m", "manyfill", "serve", "--port", "0", *arguments]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[1])
    try:
        assert process.stdout
        yield process.stdout.readline().split()[1], process.pid
    finally:
        process.terminate()
        process.wait(20)


def probe(address: str, stop: Connection) -> None:
    """Seconds that /health takes, until told to stop."""
    seconds = []
    with httpx.Client(base_url=address, timeout=60) as web:
        while not stop.poll(EVERY):
            began = time.perf_counter()
            assert web.get("health").status_code == 200
            seconds.append(time.perf_counter() - began)
    stop.send(seconds)


@contextmanager
def probed(address: str, seconds: list[float]) -> Iterator[None]:
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=probe, args=(address, theirs))
    process.start()
    yield
    ours.send(None)
    seconds += ours.recv()
    process.join()


def form() -> dict[str, bytes]:
    hole = np.zeros((SIDE, SIDE, 1), np.uint8)
    hole[SIDE // 4 : -SIDE // 4, SIDE // 4 : -SIDE // 4] = 255
    return {"image": png_bytes(resize(skimage.data.astronaut(), SIDE, SIDE)), "mask": png_bytes(hole)}


async def ask(address: str, pid: int, requests: int, clients: int) -> tuple[Counter[int], dict[str, float]]:
    """Statuses of the answers, and MiB of the server at a tenth of them and at the end."""
    statuses: Counter[int] = Counter()
    memory: dict[str, float] = {}
    sent, begun = form(), 0
    limits = httpx.Limits(max_connections=clients)

    async def client(web: httpx.AsyncClient) -> None:
        nonlocal begun
        while begun < requests:
            begun += 1
            answer = await web.post("api/v1/fill", files=sent, data={"n": FILLS})
            statuses[answer.status_code] += 1
            if statuses.total() == requests // 10:
                memory["at_a_tenth"] = resident(pid)
            if answer.status_code == 429:
                assert int(answer.headers["retry-after"]) >= 1
                await asyncio.sleep(PATIENCE)

    async with httpx.AsyncClient(base_url=address, timeout=120, limits=limits) as web:
        await asyncio.gather(*(client(web) for _ in range(clients)))
    return statuses, memory | {"at_the_end": resident(pid)}


def processor_seconds(pid: int) -> float:
    """Of a process and its threads so far. Linux only."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def measure(requests: int, clients: int, queue: int) -> dict[str, Any]:
    health: list[float] = []
    with serving("--queue", str(queue)) as (address, pid):
        began, used = time.perf_counter(), processor_seconds(pid)
        with probed(address, health):
            statuses, memory = asyncio.run(ask(address, pid, requests, clients))
        wall, used = time.perf_counter() - began, processor_seconds(pid) - used
    p50, p99, most = (1e3 * float(np.quantile(health, q)) for q in (0.5, 0.99, 1))
    return {
        "statuses": {str(status): count for status, count in sorted(statuses.items())},
        "health_ms": {"p50": p50, "p99": p99, "largest": most, "count": len(health)},
        "memory_mib": memory | {"growth": memory["at_the_end"] / memory["at_a_tenth"] - 1},
        "seconds": wall,
        "processor_seconds": used,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=1000)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--queue", type=int, default=8)
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    check_writable(asked.json)
    found = measure(asked.requests, asked.clients, asked.queue)
    health, memory = found["health_ms"], found["memory_mib"]
    print(f"{found['statuses']} in {found['seconds']:.1f} s, of the processors {found['processor_seconds']:.1f} s")
    print(f"/health: median {health['p50']:.0f} ms, p99 {health['p99']:.0f} ms of {health['count']}")
    print(f"memory: {memory['at_a_tenth']:.0f} to {memory['at_the_end']:.0f} MiB ({memory['growth']:+.1%})")
    write_json(asked.json, {"machine": machine() | {"processors": processors()}, "clients": asked.clients, **found})


if __name__ == "__main__":
    run(main)
