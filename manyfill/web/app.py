"""The application: the page, the API, and what stands before them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.middleware import Middleware
from starlette.responses import JSONResponse, Response

from manyfill import __version__
from manyfill.errors import ManyfillError
from manyfill.pipeline import Filler
from manyfill.web import api, page
from manyfill.web.guard import Guard
from manyfill.web.intake import Intake
from manyfill.web.metrics import Counted
from manyfill.web.service import Service
from manyfill.web.settings import Access, Limits
from manyfill.web.words import faults, in_full, plain

MultiPartParser.spool_max_size = 0  # never to a file, as tempfile takes it: bodies are of bounded size
ABOUT = """Many plausible fills for the hole in a picture, and how sure each pixel is. Pictures are sent as bytes:
paths and addresses are not read. With a token, send `Authorization: Bearer ...`."""


def create_app(filler: Filler, access: Access | None = None, limits: Limits | None = None) -> FastAPI:
    """The ASGI application of one model."""
    access, limits = access or Access(), limits or Limits()
    service = Service(filler, limits)

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        async with service.running():
            yield

    app = FastAPI(
        title="manyfill",
        version=__version__,
        description=ABOUT,
        docs_url=None,  # they load scripts from elsewhere; page.py has its own
        redoc_url=None,
        lifespan=lifespan,
        form_limits={"max_files": 8, "max_fields": 32, "max_part_size": limits.text},
        middleware=[
            Middleware(Counted, metrics=service.metrics),
            Middleware(Guard, access=access),
            Middleware(Intake, budget=service.budget, limits=limits),
        ],
        exception_handlers={
            ManyfillError: _unusable,
            RequestValidationError: _invalid,
            HTTPException: _refused,
        },
    )
    app.state.service = service
    for router in (api.queued, api.router):
        app.include_router(router)
    app.routes.extend(page.routes())
    _add_probes(app, service)
    return app


def _add_probes(app: FastAPI, service: Service) -> None:
    @app.get("/health")
    async def health() -> dict[str, str]:
        """Whether the server answers."""
        return {"status": "ok"}

    @app.get("/metrics", response_class=Response)
    async def metrics() -> Response:
        """What the server counts, in Prometheus's text format."""
        return Response(service.metrics.text(), media_type=service.metrics.content_type)


async def _unusable(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": plain(error)}, 422)


async def _invalid(request: Request, error: Any) -> JSONResponse:
    return JSONResponse({"detail": faults(error.errors())}, 422)


async def _refused(request: Request, error: Any) -> JSONResponse:
    detail = in_full(error.status_code, error.detail, request.method, (error.headers or {}).get("Allow", ""))
    return JSONResponse({"detail": detail}, error.status_code, error.headers)
