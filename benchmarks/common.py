"""What the benchmarks share: the clock and memory of this machine, the JSON record, the end of a script."""

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, suppress
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from manyfill.errors import ManyfillError, OutputError


def clock() -> tuple[float, float]:
    """Seconds on the wall, and of the processors for this process and its children that have ended."""
    times = os.times()
    return time.perf_counter(), times.user + times.system + times.children_user + times.children_system


def resident(pid: int | str = "self", what: str = "VmRSS") -> float:
    """MiB that a process holds in memory."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(what)) / 1024


@contextmanager
def watched(record: dict[str, float]) -> Iterator[None]:
    """Note what the block takes: seconds, and by how many MiB memory grows, at its peak and to stay."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    held, before = resident(), clock()
    yield
    wall, processor = (b - a for a, b in zip(before, clock(), strict=True))
    record |= {"seconds": wall, "processor_seconds": processor}
    record |= {"peak_mib": resident(what="VmHWM") - held, "held_mib": resident() - held}


def apart(task: Callable[..., dict[str, float]], *arguments: Any) -> dict[str, float]:
    """What a task returns in a fresh process, whose memory nothing else has touched."""
    with ProcessPoolExecutor(1, get_context("spawn")) as process:
        return process.submit(task, *arguments).result()


def check_writable(path: Path | None) -> None:
    """Raise OutputError before hours of work rather than after them."""
    if path is not None and (path.is_dir() or not path.absolute().parent.is_dir()):
        raise OutputError(f"--json {path}: is a folder or lies in none; name a file in an existing folder")


def write_json(path: Path | None, record: dict[str, Any]) -> None:
    """Write a record, if anywhere; OutputError where that fails."""
    if path is None:
        return
    try:
        path.write_text(json.dumps(record, indent=2, allow_nan=False) + "\n")
    except OSError as error:
        raise OutputError(f"--json {path}: cannot be written ({error.strerror}); choose another file") from None


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`; what a user can mend becomes one line and exit code 2."""
    try:
        main()
    except ManyfillError as error:
        print(error, file=sys.stderr)
        sys.exit(2)
