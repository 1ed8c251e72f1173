"""The page's own files, read once: no request ever reaches the file system."""

import hashlib
from functools import cache
from importlib.resources import files

import numpy as np
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from manyfill.images import heatmap, png_bytes

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".webmanifest": "application/manifest+json",
}
PAGES = {"/": "index.html", "/docs": "docs.html"}


@cache
def contents() -> dict[str, tuple[bytes, str]]:
    """Content and type of every file by its path."""
    found = {
        f"/static/{file.name}": (file.read_bytes(), TYPES["." + file.name.rpartition(".")[2]])
        for file in (files("manyfill.web") / "static").iterdir()
        if "." + file.name.rpartition(".")[2] in TYPES  # an editor or the system may have left others there
    }
    # The very colours of the heat maps, from 0 to the largest value.
    ramp = heatmap(np.linspace(0, 1, 256, dtype=np.float32)[None])
    found["/static/heat.png"] = png_bytes(ramp), "image/png"
    return found | {path: found[f"/static/{name}"] for path, name in PAGES.items()}


def routes() -> list[Route]:
    """A route for each of the page's files; a browser keeps them for as long as they stay the same."""
    return [Route(path, _sender(*content)) for path, content in contents().items()]


def _sender(content: bytes, kind: str):
    tag = f'"{hashlib.sha256(content).hexdigest()[:16]}"'
    headers = {"ETag": tag, "Cache-Control": "no-cache"}

    async def send(request: Request) -> Response:
        if request.headers.get("if-none-match") == tag:
            return Response(status_code=304, headers=headers)
        return Response(content, media_type=kind, headers=headers)

    return send
