"""What all requests share: the model, the queue before it, the results that are kept, the counters."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
from PIL import Image
from starlette.exceptions import HTTPException
from starlette.requests import Request

from manyfill.encode import Encoding
from manyfill.images import png_bytes
from manyfill.inputs import Sampling, Subject
from manyfill.pipeline import Filler
from manyfill.web.metrics import Metrics
from manyfill.web.result import Result, View, archive, volume, weight
from manyfill.web.results import Results
from manyfill.web.settings import Limits
from manyfill.web.slot import Budget, Slot, Turn
from manyfill.web.work import Drawing, Gone, open_subject

WARMING = 8  # fills
SWEEP, LOOK = 30.0, 0.2  # seconds between looks for results that nobody wants, and for clients that have gone
TOO_MUCH = "n: {} fills of this size are too many for one answer; ask for at most {}"

T = TypeVar("T")


async def while_present(request: Request, work: Awaitable[T]) -> T:
    """What comes of `work`; where the client goes away it is cancelled, and Gone raised."""
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=LOOK))[0]:
            if await request.is_disconnected():
                raise Gone
        return task.result()
    finally:
        task.cancel()


async def eagerly(items: AsyncGenerator[T]) -> AsyncGenerator[T]:
    """The same items, worked out however slowly they are taken."""
    ready: asyncio.Queue[T | Exception | None] = asyncio.Queue()

    async def work() -> None:
        try:
            async for item in items:
                ready.put_nowait(item)
            ready.put_nowait(None)
        except Exception as error:  # for whoever takes the items
            ready.put_nowait(error)

    task = asyncio.create_task(work())
    try:
        while (item := await ready.get()) is not None:
            if isinstance(item, Exception):
                raise item
            yield item
    finally:
        task.cancel()


@dataclass
class Service:
    """The parts of one server."""

    filler: Filler
    limits: Limits
    slot: Slot = field(init=False)
    budget: Budget = field(init=False)
    results: Results = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.slot, self.budget = Slot(self.limits.waiting), Budget(self.limits.held)
        self.results = Results(self.limits.kept, self.limits.results, self.limits.keeping)
        self.metrics = Metrics(self.slot, self.budget, self.results)

    def warm_up(self) -> None:
        """Fill a grey picture, each thread doing its part: a first time takes longer, and memory that it takes stays.

        In these threads and no others: where two have computed, OpenMP takes the processors for overbooked, and a fill
        takes twice as long.
        """
        size, channels = self.filler.config.size, self.filler.config.channels
        hole = np.zeros((size, size, 1), np.uint8)
        hole[size // 4 : -size // 4, size // 4 : -size // 4] = 255
        image, mask = png_bytes(np.full((size, size, channels), 127, np.uint8)), png_bytes(hole)
        Image.init()  # else the first file that is no picture makes PIL look for more formats
        subject = self.slot.decoding_thread.submit(open_subject, image, mask, size * size).result()
        drawing = Drawing(self.filler, subject, Sampling(n=min(WARMING, self.limits.fills)), Encoding())
        self.slot.model_thread.submit(lambda: list(drawing.portions(lambda: True))).result()
        self.slot.encoding_thread.submit(lambda: archive(drawing.whole().files())).result()

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Lets go of results in time; ends the threads at the end."""

        async def sweep() -> None:
            while True:
                await asyncio.sleep(SWEEP)
                self.results.sweep()

        sweeping = asyncio.create_task(sweep())
        try:
            yield
        finally:
            sweeping.cancel()
            self.slot.close()

    async def open(self, request: Request, image: bytes, mask: bytes | None, n: int, view: View) -> Subject:
        """Decode what was sent; PictureError, or HTTPException where its fills would be too large."""
        subject = await self.slot.decode(open_subject, image, mask, self.limits.pixels)
        request.state.share.take(weight(subject))
        self.check_volume(subject, n, view)
        return subject

    def check_volume(self, subject: Subject, n: int, view: View) -> None:
        """HTTPException where n fills would be too large."""
        if volume(subject, n, view) > self.limits.volume:
            raise HTTPException(422, TOO_MUCH.format(n, self.limits.volume // volume(subject, 1, view)))

    def levels(self, result: Result) -> list[int]:
        """The size of every level of these fills: the model's, coarsest first, then those of refinement."""
        config = self.filler.config
        own = [level.size for level in config.levels]
        count = len(result.part.fills[0].recipe.layers) if result.part.fills else len(own)
        return own + [config.size << octave for octave in range(1, count - len(own) + 1)]

    def draw(self, request: Request, turn: Turn, drawing: Drawing) -> AsyncGenerator[Result]:
        """Portions of a result as they are drawn, when its turn has come; Gone where the client has.

        The model does not wait for a client that takes them slowly.
        """
        return eagerly(self._drawn(request, turn, drawing))

    async def _drawn(self, request: Request, turn: Turn, drawing: Drawing) -> AsyncGenerator[Result]:
        await turn.begin()
        steps = drawing.portions(lambda: not turn.ended)
        try:
            while True:
                if await request.is_disconnected():
                    raise Gone
                result = await self.slot.work(next, steps, None)
                if result is None:
                    return
                self.metrics.fills.inc(result.n)
                yield result
        finally:
            turn.rest()
