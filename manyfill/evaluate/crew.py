"""Processes that share out the pictures: the networks are small, so that two processes do more than two threads."""

import multiprocessing
import signal
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from types import TracebackType
from typing import Any, TypeVar

import torch

from manyfill.errors import ManyfillError

Task = TypeVar("Task")
Result = TypeVar("Result")

MOST = 8
"""Each process holds the models: more are for whoever asks for them."""


def usual_size(device: torch.device) -> int:
    """As many as this machine's cores can keep busy, and one where a GPU does the work."""
    return min(MOST, torch.get_num_threads()) if device.type == "cpu" else 1


class Crew:
    """`size` processes that each hold a copy of `held`; with one, all is done in this process. A context manager."""

    def __init__(self, size: int, held: Any) -> None:
        self.held, self.pool = held, None
        if size > 1:
            # A forked child would wait for threads that it does not have; each starts afresh.
            self.pool = ProcessPoolExecutor(
                size, multiprocessing.get_context("spawn"), _hold, (held, max(1, torch.get_num_threads() // size))
            )

    def __enter__(self) -> "Crew":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.pool:
            self.pool.shutdown(cancel_futures=True)

    def each(self, work: Callable[[Any, Task], Result], tasks: Sequence[Task]) -> Iterator[Result]:
        """`work(held, task)` of every task, in order, `work` a function of a module; what it raises is raised here."""
        if self.pool is None:
            yield from (work(self.held, task) for task in tasks)
            return
        try:
            yield from self.pool.map(_do, [work] * len(tasks), tasks)
        except BrokenProcessPool:
            raise ManyfillError("a process of the evaluation was killed; run it again with fewer --workers") from None


_held: Any = None


def _hold(held: Any, threads: int) -> None:
    global _held
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all; the parent alone decides what it means
    torch.set_num_threads(threads)
    _held = held


def _do(work: Callable[[Any, Task], Result], task: Task) -> Result:
    return work(_held, task)
