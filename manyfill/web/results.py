"""Results that can still be downloaded and re-rolled: in memory, of bounded size, gone a while after their last use."""

import secrets
import time
from collections import OrderedDict
from collections.abc import Callable

from starlette.exceptions import HTTPException

from manyfill.web.result import Result

GONE = "result: this one is no longer kept; send the picture and its mask again"


class Results:
    """Results by ids that cannot be guessed, the least recently used first."""

    def __init__(self, size: int, count: int, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.largest, self.most, self.seconds, self.clock = size, count, seconds, clock
        self.kept: OrderedDict[str, tuple[Result, float]] = OrderedDict()
        self.size = 0

    def __len__(self) -> int:
        return len(self.kept)

    def put(self, result: Result) -> str:
        """Keep a result under a new id, and let go of the oldest ones that leave it no room."""
        name = secrets.token_urlsafe(16)
        self.kept[name] = result, self.clock()
        self.size += result.nbytes
        while (self.size > self.largest or len(self.kept) > self.most) and len(self.kept) > 1:
            self._drop(next(iter(self.kept)))
        return name

    def get(self, name: str) -> Result:
        """The result of this id, kept anew; HTTPException 404 where it is gone."""
        self.sweep()
        if name not in self.kept:
            raise HTTPException(404, GONE)
        result, _ = self.kept[name]
        self.kept[name] = result, self.clock()
        self.kept.move_to_end(name)
        return result

    def sweep(self) -> None:
        """Let go of what nobody asked for in time."""
        now = self.clock()
        while self.kept and now - next(iter(self.kept.values()))[1] > self.seconds:
            self._drop(next(iter(self.kept)))

    def _drop(self, name: str) -> None:
        result, _ = self.kept.pop(name)
        self.size -= result.nbytes
