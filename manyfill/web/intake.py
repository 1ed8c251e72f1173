"""Bodies of requests: of bounded size each, and all together within the memory that requests may hold."""

from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyfill.web.settings import MEGABYTE, Limits
from manyfill.web.slot import Budget, Share

TOO_LARGE = "the request is larger than {} MB; send smaller files"


class Intake:
    """Refuses what is too large, at its head if that tells, else on the way; nothing of it is decoded.

    Every request has its share of the budget, `request.state.share`, from its first byte to its answer.
    """

    def __init__(self, app: ASGIApp, budget: Budget, limits: Limits) -> None:
        self.app, self.budget, self.largest = app, budget, limits.body
        self.detail = TOO_LARGE.format(limits.body // MEGABYTE)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        length = Headers(scope=scope).get("content-length", "0")
        if not length.isdecimal() or int(length) > self.largest:
            await JSONResponse({"detail": self.detail}, 413)(scope, receive, send)
            return
        share, arrived = Share(self.budget), 0
        scope.setdefault("state", {})["share"] = share

        async def counted() -> Message:
            nonlocal arrived
            message = await receive()
            arrived += len(message.get("body", b""))
            if arrived > self.largest:
                raise HTTPException(413, self.detail)
            share.take(len(message.get("body", b"")))
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            share.give_back()
