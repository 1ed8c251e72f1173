"""The command `serve`: the web page and the HTTP API."""

import os
from typing import Annotated

from cyclopts import Parameter
from cyclopts.validators import Number

from manyfill.errors import ConfigError, ManyfillError

Port = Annotated[int, Parameter(validator=Number(gte=0, lte=65535))]
TOKEN = "MANYFILL_TOKEN"


def serve(
    *,
    model: str = "default",
    host: str = "127.0.0.1",
    port: Port = 7860,
    token: str | None = None,
    allow_host: list[str] | None = None,
    max_pixels: Annotated[int | None, Parameter(validator=Number(gte=1))] = None,
    max_memory: str | None = None,
    device: str | None = None,
    queue: Annotated[int, Parameter(validator=Number(gte=0))] = 8,
) -> None:
    """Serve a page to paint holes and look at fills, and an HTTP API (docs/web.md).

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    host
        The address to listen on; 127.0.0.1 can be reached from this machine alone.
    port
        The port to listen on; 0 takes one that is free.
    token
        Answer only those who show this token; MANYFILL_TOKEN in the environment does the same, unseen by others.
    allow_host
        A name that the server is known by, such as fills.example.org behind a proxy; may be repeated.
    max_pixels
        Refuse larger pictures; 40 million if left out.
    max_memory
        Keep the drawing to so much memory, such as 2G; requests that take more are refused.
    device
        Where to compute, such as cpu or cuda; the GPU if there is one.
    queue
        Requests that may wait for the model; more are asked to come back later.
    """
    try:
        from manyfill.web.server import serve as run
    except ImportError as error:
        raise ManyfillError(f"the web page needs {error.name}: pip install 'manyfill[web]'") from None
    from manyfill.effort import parse_memory
    from manyfill.web.settings import Access, Limits

    token = token if token is not None else os.environ.get(TOKEN)
    if token is not None and not (token.isascii() and token.isprintable() and token.strip() == token != ""):
        raise ConfigError("--token: must be printable ASCII without spaces around it")
    limits = Limits(waiting=queue) if max_pixels is None else Limits(waiting=queue, pixels=max_pixels)
    memory = None if max_memory is None else parse_memory(max_memory)
    run(model, port, Access(host, tuple(allow_host or ()), token), limits, device, memory)
