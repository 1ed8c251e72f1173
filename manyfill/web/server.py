"""The server: a model, the application, uvicorn."""

import logging
import sys
from concurrent.futures import ThreadPoolExecutor

import uvicorn

from manyfill.errors import ConfigError
from manyfill.pipeline import Filler
from manyfill.web.app import create_app
from manyfill.web.guard import is_loopback
from manyfill.web.protocol import options
from manyfill.web.settings import Access, Limits

UNGUARDED = """warning: whoever reaches {host}:{port} can use this server; set a token with --token or MANYFILL_TOKEN"""


def serve(
    model: str,
    port: int,
    access: Access,
    limits: Limits,
    device: str | None = None,
    max_memory: int | None = None,
) -> None:
    """Load the model and answer until interrupted; raises ModelError, ConfigError for a port in use."""
    with ThreadPoolExecutor(1) as apart:  # a thread that ends, and leaves it to others to compute: see Service.warm_up
        filler = apart.submit(Filler.from_pretrained, model, device, max_memory=max_memory).result()
    app = create_app(filler, access, limits)
    app.state.service.warm_up()
    if not access.token and not is_loopback(access.host):
        print(UNGUARDED.format(host=access.host, port=port), file=sys.stderr)
    logging.getLogger("python_multipart").setLevel(logging.ERROR)  # it warns of every malformed form
    config = uvicorn.Config(
        app,
        host=access.host,
        port=port,
        log_level="warning",
        server_header=False,
        timeout_graceful_shutdown=3,
        **options(limits.reading),
    )
    try:
        socket = config.bind_socket()
    except (OSError, SystemExit):
        raise ConfigError(f"--port {port}: cannot be had on {access.host}; choose another with --port") from None
    socket.listen(config.backlog)  # whoever comes as soon as they are told the address waits, and is not refused
    port = socket.getsockname()[1]
    name = f"[{access.host}]" if ":" in access.host else access.host
    token = f"#token={access.token}" if access.token else ""
    print(f"open http://{name}:{port}/{token}  (Ctrl-C ends)", flush=True)
    uvicorn.Server(config).run([socket])
