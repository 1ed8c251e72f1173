"""HTTP/1.1 in which a request must arrive whole in good time, and answers be read (against "slow loris" clients)."""

import asyncio
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

DETAIL = b'{"detail": "the request did not arrive whole in time; send it again on a quicker connection"}'
LATE = b"\r\n".join(
    (
        b"HTTP/1.1 408 Request Timeout",
        b"Content-Type: application/json",
        b"Content-Length: %d" % len(DETAIL),
        b"Connection: close",
        b"",
        DETAIL,
    )
)


def punctual(seconds: float) -> type[H11Protocol]:
    """uvicorn's protocol with a deadline for headers and body together, or for a body that was answered already.

    Who reads nothing of an answer for as long is left, too.
    """

    class Punctual(H11Protocol):
        deadline: asyncio.TimerHandle | None = None
        look: asyncio.TimerHandle | None = None

        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.deadline = self.loop.call_later(seconds, self.give_up)

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            arrived = self.conn.their_state in (h11.DONE, h11.MUST_CLOSE, h11.CLOSED)
            if self.deadline and arrived:
                self.deadline.cancel()
                self.deadline = None
            elif self.deadline is None and not arrived:
                self.deadline = self.loop.call_later(seconds, self.give_up)

        def give_up(self) -> None:
            if not self.transport.is_closing():
                if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
                    self.transport.write(LATE)
                self.transport.close()

        def pause_writing(self) -> None:
            super().pause_writing()
            self.look = self.loop.call_later(seconds, self.look_again, self.transport.get_write_buffer_size())

        def look_again(self, before: int) -> None:
            unread = self.transport.get_write_buffer_size()
            if unread < before:
                self.look = self.loop.call_later(seconds, self.look_again, unread)
            else:
                self.transport.abort()

        def resume_writing(self) -> None:
            super().resume_writing()
            if self.look:
                self.look.cancel()

        def connection_lost(self, exc: Exception | None) -> None:
            for timer in (self.deadline, self.look):
                if timer:
                    timer.cancel()
            super().connection_lost(exc)

    return Punctual


def options(seconds: float) -> dict[str, Any]:
    """uvicorn's settings for it."""
    return {"http": punctual(seconds), "ws": "none", "loop": "asyncio", "timeout_keep_alive": 15}
