"""What the server counts, in Prometheus's text format."""

import time

from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyfill.web.results import Results
from manyfill.web.slot import Budget, Slot

SECONDS = (0.005, 0.02, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """Of one server: requests and their seconds by path, fills drawn, and what is held at present."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, slot: Slot, budget: Budget, results: Results) -> None:
        self.registry = CollectorRegistry()
        labels = ("path", "status")
        self.requests = Counter("manyfill_requests", "Requests answered", labels, registry=self.registry)
        self.seconds = Histogram(
            "manyfill_request_seconds",
            "Until a request was answered",
            ("path",),
            buckets=SECONDS,
            registry=self.registry,
        )
        self.fills = Counter("manyfill_fills", "Fills drawn", registry=self.registry)
        for name, what, value in (
            ("manyfill_requests_inside", "Requests at the model or waiting for it", lambda: slot.inside),
            ("manyfill_held_bytes", "Bodies and pictures of requests that are being answered", lambda: budget.taken),
            ("manyfill_kept_bytes", "Results kept to download or re-roll", lambda: results.size),
            ("manyfill_kept_results", "Results kept to download or re-roll", lambda: len(results)),
        ):
            Gauge(name, what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        return generate_latest(self.registry)


class Counted:
    """Counts every request by the path of its route, which is one of few, and the status of its answer."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app, self.metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began, status = time.perf_counter(), "none"  # of a client that went away

        async def note(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self.app(scope, receive, note)
        except Exception:
            status = "500"
            raise
        finally:
            path = getattr(scope.get("route"), "path", "other")
            self.metrics.requests.labels(path, status).inc()
            self.metrics.seconds.labels(path).observe(time.perf_counter() - began)
