"""Requests that mean no good: no file is read, nothing asked elsewhere, and each is answered 4xx, quickly, cheaply."""

import functools
import http.client
import io
import itertools
import json
import socket
import sys
import threading
import time
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import uvicorn
from hostile import TRAVERSALS, bombs, deflated
from PIL import Image
from serving import PIXELS, parts, png, resident

from manyfill.pipeline import Filler
from manyfill.web.app import create_app
from manyfill.web.protocol import options
from manyfill.web.settings import MEGABYTE, Limits

OURS = ("server", "model", "decoding", "encoding")  # threads that serve
LIMITS = Limits(reading=3.0)
GROWTH = 50  # MB that a refusal may take
touched: list[str] = []


def spent() -> float:
    """Processor seconds of the server's threads alone; the clock runs on while others work."""
    mine = (thread for thread in threading.enumerate() if thread.name.split("_")[0] in OURS)
    return sum(time.clock_gettime(time.pthread_getcpuclockid(thread.ident)) for thread in mine if thread.ident)


@functools.cache
def unpacking() -> float:
    """Processor seconds that it takes on this machine to unpack one bomb, which a refusal has to stay far below."""
    rest, unpacker, before = deflated(537 * 2**20), zlib.decompressobj(), time.thread_time()
    while rest:
        unpacker.decompress(rest, MEGABYTE)
        rest = unpacker.unconsumed_tail
    return time.thread_time() - before


@contextmanager
def modestly() -> Iterator[None]:
    """What is refused within is so by little work, and little memory, also on the way."""
    Path("/proc/self/clear_refs").write_text("5")  # forget the peak so far
    memory, seconds = resident(), spent()
    yield
    seconds, memory = spent() - seconds, resident(what="VmHWM") - memory
    assert memory < GROWTH and seconds < unpacking() / 4


def _note(event: str, arguments: tuple[Any, ...]) -> None:
    if event not in ("open", "socket.connect", "socket.getaddrinfo", "subprocess.Popen", "os.listdir", "os.scandir"):
        return
    if threading.current_thread().name.split("_")[0] in OURS:
        touched.append(f"{event} {arguments[0]!r} {arguments[1:2]!r}")


sys.addaudithook(_note)


@pytest.fixture(scope="module")
def port(model: Path, one_thread: None) -> Iterator[int]:
    """A server in a thread of this process, warm."""
    app = create_app(Filler.from_pretrained(model), limits=LIMITS)
    config = uvicorn.Config(app, log_level="critical", port=0, **options(LIMITS.reading))
    listening, server = config.bind_socket(), uvicorn.Server(config)
    thread = threading.Thread(target=server.run, args=([listening],), name="server")
    thread.start()
    while not server.started:
        time.sleep(0.01)
    try:
        number = listening.getsockname()[1]
        Image.init()  # what PIL loads late
        for form in ("PNG", "JPEG"):
            assert post(number, multipart(parts(image=picture(form)), n="1"))[0] == 200
        for path in ("/openapi.json", "/metrics"):
            get(number, path)
        yield number
    finally:
        server.should_exit = True
        thread.join(20)


@pytest.fixture(autouse=True)
def untouched() -> Iterator[None]:
    touched.clear()
    yield
    assert touched == [], "a request made the server open or call something"


def picture(form: str) -> bytes:
    with io.BytesIO() as buffer:
        Image.fromarray(PIXELS).save(buffer, form)
        return buffer.getvalue()


def multipart(files: dict[str, bytes], **fields: str) -> bytes:
    lines = [
        f'--x\r\nContent-Disposition: form-data; name="{name}"; filename="{name}"\r\n\r\n'.encode() + content + b"\r\n"
        for name, content in files.items()
    ]
    lines += [
        f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{value}\r\n'.encode()
        for name, value in fields.items()
    ]
    return b"".join(lines) + b"--x--\r\n"


def post(port: int, body: Any, kind: str = "multipart/form-data; boundary=x", **headers: str) -> tuple[int, str]:
    return ask(port, "POST", "/api/v1/fill", body, {"Content-Type": kind, **headers})


def get(port: int, path: str) -> tuple[int, str]:
    return ask(port, "GET", path)


def ask(port: int, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request(method, path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read().decode("utf-8", "replace")
    finally:
        connection.close()


def told(answer: tuple[int, str]) -> str:
    status, text = answer
    assert 400 <= status < 500, text
    return json.loads(text)["detail"]


@pytest.mark.parametrize("path", TRAVERSALS)
def test_no_path_leads_to_a_file(port: int, path: str) -> None:
    with modestly():
        status, text = get(port, path)
    assert 400 <= status < 500
    assert "root:" not in text and "PATH=" not in text and "class ManyfillError" not in text and "[project]" not in text


def test_there_are_fifty_and_more() -> None:
    assert len(set(TRAVERSALS)) >= 50


@pytest.mark.parametrize("name", ["../../etc/passwd", "/etc/passwd", "C:\\boot.ini", "http://127.0.0.1:1/x.png", "\0"])
def test_names_of_files_mean_nothing(port: int, name: str) -> None:
    body = multipart(parts(), n="1").replace(b'filename="image"', b'filename="%b"' % name.encode())
    assert post(port, body)[0] in (200, 400)


@pytest.mark.parametrize("value", ["http://127.0.0.1:1/x.png", "file:///etc/passwd", "/etc/passwd", "\\\\host\\share"])
def test_addresses_and_paths_are_not_read(port: int, value: str) -> None:
    with modestly():
        assert "paths and addresses are not read" in told(post(port, multipart({}, image=value)))
        assert told(post(port, multipart(parts(image=value.encode())))).startswith("image: not a picture")


@pytest.mark.parametrize("name, content", bombs().items(), ids=bombs())
def test_bombs_do_not_go_off(port: int, name: str, content: bytes) -> None:
    assert len(content) < 2 * MEGABYTE
    for sent in (parts(image=content), parts(mask=content)):
        body = multipart(sent, n="1")
        with modestly():
            assert told(post(port, body)), name


def test_a_body_of_200_mb_is_refused_at_its_head_and_on_the_way(port: int) -> None:
    with modestly():
        assert "larger than 40 MB" in told(post(port, None, **{"Content-Length": str(200 * MEGABYTE)}))
    with modestly():  # without saying so: in chunks
        pieces = itertools.chain([multipart({"image": b""})[:-9]], itertools.repeat(bytes(MEGABYTE), 48))
        assert "larger than 40 MB" in told(post(port, pieces))


def test_ten_thousand_parts(port: int) -> None:
    many = b"".join(b'--x\r\nContent-Disposition: form-data; name="n"\r\n\r\n1\r\n' for _ in range(10_000))
    files = many.replace(b'name="n"', b'name="n"; filename="n"')
    for body, detail in (
        (many + b"--x--\r\n", "Too many"),
        (files + b"--x--\r\n", "Too many"),
        (multipart({}, n="1" * MEGABYTE), "Part exceeded"),
    ):
        with modestly():
            assert detail in told(post(port, body))


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"", "multipart/form-data; boundary=x"),
        (b"x", "multipart/form-data"),
        (b"--x", "multipart/form-data; boundary=x"),
        (multipart(parts())[:-300], "multipart/form-data; boundary=x"),
        (multipart(parts()), "multipart/form-data; boundary=y"),
        (multipart(parts()), "multipart/form-data; boundary=" + "y" * 5000),
        (multipart(parts()), "application/json"),
        (multipart(parts()), "text/plain"),
        (multipart(parts()), "image/png"),
        (b'{"image": "x"}', "application/json"),
        (b"{" * 100_000, "application/json"),
        (b"image=x&mask=y", "application/x-www-form-urlencoded"),
        (b"&".join(b"n=1" for _ in range(10_000)), "application/x-www-form-urlencoded"),
        (b"<!DOCTYPE a [<!ENTITY b SYSTEM 'file:///etc/passwd'>]><a>&b;</a>", "application/xml"),
        (b"\xff" * 1000, "multipart/mixed; boundary=x"),
    ],
)
def test_forms_that_are_none(port: int, body: bytes, kind: str) -> None:
    with modestly():
        assert told(post(port, body, kind))


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "BREW"])
def test_other_methods(port: int, method: str) -> None:
    with modestly():
        assert 400 <= ask(port, method, "/api/v1/fill")[0] < 500


def test_who_sends_too_slowly_is_told_so_and_left(port: int) -> None:
    head = f"POST /api/v1/fill HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nContent-Type: multipart/form-data; boundary=x\r\n"
    beginnings = [b"", head.encode(), f"{head}Content-Length: 1000\r\n\r\n--x\r\n".encode()]
    slow = [socket.create_connection(("127.0.0.1", port)) for _ in range(60)]
    for number, connection in enumerate(slow):
        connection.sendall(beginnings[number % len(beginnings)])
    for _ in range(7):
        for connection in slow[2::3]:
            connection.sendall(b"a")
        time.sleep(0.1)
    assert post(port, multipart(parts(), n="1"))[0] == 200  # meanwhile others are served
    for connection in slow:
        connection.settimeout(10)
        assert connection.recv(1000).startswith(b"HTTP/1.1 408 ")
        while connection.recv(1000):
            pass
        connection.close()


def test_who_reads_nothing_holds_up_nobody_and_is_left(port: int) -> None:
    large = np.random.default_rng(0).integers(0, 256, (400, 400, 3), dtype=np.uint8)
    hole = np.zeros((400, 400), np.uint8)
    hole[:9, :9] = 255
    body = multipart(parts(png(large), png(hole)), n="16")
    head = f"POST /api/v1/fill HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nAccept: text/event-stream\r\n"
    head += f"Content-Type: multipart/form-data; boundary=x\r\nContent-Length: {len(body)}\r\n\r\n"
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", port))
        connection.sendall(head.encode() + body)
        assert connection.recv(12) == b"HTTP/1.1 200"
        assert post(port, multipart(parts(), n="1"))[0] == 200  # meanwhile others are served
        end = time.monotonic() + 10 * LIMITS.reading
        while "manyfill_requests_inside 0.0" not in get(port, "/metrics")[1]:
            assert time.monotonic() < end
            time.sleep(0.1)


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.0\r\n\r\n",
        b"GET /\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"y" * 1_000_000,
        b"POST /api/v1/fill HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n",
        b"POST /api/v1/fill HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"POST /api/v1/fill HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
        b"GET http://evil.example/ HTTP/1.1\r\nHost: evil.example\r\n\r\n",
    ],
)
def test_what_is_no_proper_http(port: int, sent: bytes) -> None:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        connection.sendall(sent)
        assert connection.recv(1000).startswith(b"HTTP/1.1 4")


def test_the_server_is_as_it_was(port: int) -> None:
    status, text = get(port, "/metrics")
    assert status == 200 and 'status="5' not in text
    assert "manyfill_held_bytes 0.0" in text and "manyfill_requests_inside 0.0" in text
