"""Bodies of requests count against the memory that all requests may hold, from their first byte to their answer."""

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyfill.web.slot import Budget, Share


class Intake:
    """Gives every request its share of the budget, `request.state.share`, and takes it back in the end."""

    def __init__(self, app: ASGIApp, budget: Budget) -> None:
        self.app, self.budget = app, budget

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        share = Share(self.budget)
        scope.setdefault("state", {})["share"] = share

        async def counted() -> Message:
            message = await receive()
            share.take(len(message.get("body", b"")))
            return message

        try:
            await self.app(scope, counted, send)
        finally:
            share.give_back()
