"""What the tests of the web share: an application around a small model, pictures to send, a server to talk to."""

import io
import json
import os
import subprocess
import sys
import time
import urllib.request
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from commandline import MASK as HOLE
from commandline import PIXELS, ROOT
from PIL import Image
from starlette.testclient import TestClient

from manyfill.pipeline import Filler
from manyfill.web.app import create_app
from manyfill.web.settings import Access, Limits

EVENTS = {"Accept": "text/event-stream"}


def png(pixels: np.ndarray) -> bytes:
    with io.BytesIO() as buffer:
        Image.fromarray(pixels).save(buffer, "PNG")
        return buffer.getvalue()


def parts(image: bytes = png(PIXELS), mask: bytes | None = png(HOLE.astype(np.uint8) * 255)) -> dict[str, bytes]:
    return {"image": image} if mask is None else {"image": image, "mask": mask}


def write_parts() -> None:
    """As image.png and mask.png in the working directory, for the command line."""
    for name, content in parts().items():
        Path(f"{name}.png").write_bytes(content)


@contextmanager
def client(
    model: Path, limits: Limits | None = None, max_memory: int | None = None, **access: Any
) -> Iterator[TestClient]:
    app = create_app(Filler.from_pretrained(model, max_memory=max_memory), Access(**access), limits)
    with TestClient(app, base_url="http://localhost", raise_server_exceptions=True) as found:
        yield found


def filled(web: TestClient, **options: Any) -> tuple[str, dict[str, bytes]]:
    """The id of a result, and the files of its zip."""
    answer = web.post("/api/v1/fill", files=parts(), data={"n": 3, **options})
    assert answer.status_code == 200, answer.text
    return answer.headers["manyfill-result"], unzipped(answer.content)


def unzipped(content: bytes) -> dict[str, bytes]:
    with zipfile.ZipFile(io.BytesIO(content)) as zip:
        return {name: zip.read(name) for name in zip.namelist()}


def events(text: str) -> list[tuple[str, Any]]:
    """Names and data of a stream's events."""
    found = []
    for block in text.strip().split("\n\n"):
        name, data = block.split("\n")
        found.append((name.removeprefix("event: "), json.loads(data.removeprefix("data: "))))
    return found


@contextmanager
def server(model: Path | str, *arguments: str, log: Path | None = None, **variables: str) -> Iterator[tuple[str, int]]:
    """`manyfill serve` in a process of its own: its address and process id."""
    arguments = arguments if "--port" in arguments else (*arguments, "--port", "0")
    command = [sys.executable, "-m", "manyfill", "serve", "--model", str(model), *arguments]
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    with (log or Path(os.devnull)).open("w") as errors:
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        try:
            assert process.stdout
            line = process.stdout.readline()
            assert line.startswith("open http://"), line
            yield line.split()[1].split("#")[0].rstrip("/"), process.pid
        finally:
            process.terminate()
            process.wait(20)


def resident(what: str = "VmRSS") -> float:
    """Memory of this process in MB, or at most since the last time that this was forgotten."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


def wait_for(address: str, seconds: float = 30) -> None:
    end = time.monotonic() + seconds
    while True:
        try:
            urllib.request.urlopen(f"{address}/health", timeout=5).read()
            return
        except OSError:
            assert time.monotonic() < end, f"{address} does not answer"
            time.sleep(0.1)
