"""Who may ask: the Host and Origin of every request, the token, and the headers of every answer."""

import ipaddress
import secrets
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from manyfill.web.settings import Access

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
OPEN_PATHS = ("/api/", "/metrics", "/openapi.json")  # all else is the page itself, which tells nothing
# Nothing is ever loaded from elsewhere, framed elsewhere, or run that is not a file of ours.
POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "manifest-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that is bound to `host`."""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


class Guard:
    """Answers requests that came under a foreign name, from a foreign page or without the token itself, with 4xx.

    Without the first two, any page in the user's browser could use a server on their machine (DNS rebinding,
    cross-site requests). Addresses cannot be rebound: a server bound beyond loopback is known by any.
    """

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self.app, self.access = app, access
        self.names = LOOPBACK | {name.lower() for name in (access.host, *access.names)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers[name] = value
                headers.setdefault("Cache-Control", "no-store")
            await send(message)

        refusal = self.refusal(scope["path"], Headers(scope=scope))
        await (refusal or self.app)(scope, receive, send_with_headers)

    def refusal(self, path: str, headers: Headers) -> JSONResponse | None:
        """Why this request is not answered, or None."""
        hosts = headers.getlist("host")
        host = _host(hosts[0]) if len(hosts) == 1 else None
        if host is None:
            return _refused(400, "Host: give the name or address of this server, once")
        if not self.known(host):
            return _refused(403, f"Host: {host[:100]} is no name of this server; start it with --allow-host to add one")
        for origin in headers.getlist("origin"):
            if origin.lower() not in {f"http://{hosts[0].lower()}", f"https://{hosts[0].lower()}"}:
                return _refused(403, "Origin: only pages of this server may send requests to it")
        if self.access.token and path.startswith(OPEN_PATHS) and not self.shown(headers):
            return _refused(401, "Authorization: send 'Bearer' and the server's token", {"WWW-Authenticate": "Bearer"})
        return None

    def known(self, host: str) -> bool:
        return host in self.names or (not is_loopback(self.access.host) and _is_address(host))

    def shown(self, headers: Headers) -> bool:
        kind, _, token = headers.get("authorization", "").partition(" ")
        expected = (self.access.token or "").encode()
        return kind.lower() == "bearer" and secrets.compare_digest(token.strip().encode(), expected)


def _host(header: str) -> str | None:
    """The name or address of a Host header, in lower case, without port and brackets; None if it is malformed."""
    try:
        parts = urlsplit(f"//{header}")
        _ = parts.port
    except ValueError:
        return None
    return parts.hostname if parts.netloc == header and parts.username is None else None


def _is_address(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False


def _refused(status: int, detail: str, headers: dict[str, str] | None = None) -> JSONResponse:
    return JSONResponse({"detail": detail}, status, headers)
