"""The one place where the model works, the bounded queue before it, and the memory that requests may hold."""

import asyncio
import math
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import ParamSpec, TypeVar

from starlette.exceptions import HTTPException

P = ParamSpec("P")
T = TypeVar("T")


class Busy(HTTPException):
    """More is asked than can be done now: 429, to be asked again in `seconds`."""

    def __init__(self, reason: str, seconds: int) -> None:
        super().__init__(429, f"the server is busy: {reason}; try again in {seconds} s", {"Retry-After": str(seconds)})


@dataclass
class Budget:
    """Bytes that all requests together may hold."""

    size: int
    taken: int = 0


@dataclass
class Share:
    """What one request holds of the budget."""

    budget: Budget
    taken: int = 0

    def take(self, size: int) -> None:
        """Hold `size` bytes more; Busy where others hold too much to add them."""
        others = self.budget.taken - self.taken
        if others and self.budget.taken + size > self.budget.size:
            raise Busy("its memory is in use by other requests", 2)
        self.taken += size
        self.budget.taken += size

    def give_back(self) -> None:
        self.budget.taken -= self.taken
        self.taken = 0


class Slot:
    """One thread each for the model, to decode and to encode; requests take turns, first come first served."""

    def __init__(self, waiting: int) -> None:
        self.waiting, self.inside, self.seconds = waiting, 0, 1.0
        self.lock = asyncio.Lock()
        self.model_thread = ThreadPoolExecutor(1, "model")
        self.decoding_thread = ThreadPoolExecutor(1, "decoding")
        self.encoding_thread = ThreadPoolExecutor(1, "encoding")

    def check(self) -> None:
        """Busy where no place is free."""
        if self.inside > self.waiting:
            raise Busy(f"{self.inside} requests are waiting", max(1, math.ceil(self.seconds * self.inside)))

    def admit(self) -> "Turn":
        """A place in the queue or at the model; Busy where there is none."""
        self.check()
        self.inside += 1
        return Turn(self)

    async def work(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job in the model's thread. Who goes away leaves it to end by itself: the next job waits for it."""
        return await asyncio.get_running_loop().run_in_executor(self.model_thread, partial(job, *args, **kwargs))

    async def decode(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job in the thread for what comes in."""
        return await asyncio.get_running_loop().run_in_executor(self.decoding_thread, partial(job, *args, **kwargs))

    async def encode(self, job: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Run a job in the thread for what goes out."""
        return await asyncio.get_running_loop().run_in_executor(self.encoding_thread, partial(job, *args, **kwargs))

    def close(self) -> None:
        for thread in (self.model_thread, self.decoding_thread, self.encoding_thread):
            thread.shutdown(wait=False, cancel_futures=True)


class Turn:
    """One request's place, from its admission to its end."""

    def __init__(self, slot: Slot) -> None:
        self.slot = slot
        self.ahead = slot.inside - 1
        self.began: float | None = None
        self.ended = False

    async def begin(self) -> None:
        """Wait for the model; those admitted come in order."""
        await self.slot.lock.acquire()
        self.began = time.perf_counter()

    def rest(self) -> None:
        """Leave the model to the next one, but keep the place."""
        if self.began is not None:
            self.slot.lock.release()
            self.slot.seconds += 0.2 * (time.perf_counter() - self.began - self.slot.seconds)  # a running mean
            self.began = None

    def end(self) -> None:
        """Leave the model and the queue."""
        self.ended = True
        self.slot.inside -= 1
        self.rest()
