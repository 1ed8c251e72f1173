"""Who is answered: hosts, origins, the token; and with which headers."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import client, parts
from starlette.testclient import TestClient

from manyfill.cli import main
from manyfill.web.guard import is_loopback


@pytest.fixture(scope="module")
def web(model: Path, one_thread: None) -> Iterator[TestClient]:
    with client(model, names=("fills.example.org",)) as found:
        yield found


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("localhost", 200),
        ("LOCALHOST:7860", 200),
        ("127.0.0.1:80", 200),
        ("[::1]:7860", 200),
        ("fills.example.org", 200),
        ("evil.example", 403),
        ("localhost.evil.example", 403),
        ("127.0.0.1.evil.example", 403),
        ("192.168.1.7", 403),
        ("169.254.169.254", 403),
        ("0.0.0.0", 403),
        ("localhost@evil.example", 400),
        ("evil.example@localhost", 400),
        ("localhost/evil", 400),
        ("localhost:port", 400),
        ("localhost:99999", 400),
        ("[::1", 400),
        ("", 400),
    ],
)
def test_only_names_of_the_server_are_answered(web: TestClient, host: str, status: int) -> None:
    assert web.get("/health", headers={"Host": host}).status_code == status


def test_a_second_host_is_refused(web: TestClient) -> None:
    answer = web.get("/health", headers=[("Host", "localhost"), ("Host", "evil.example")])
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("origin", "status"),
    [
        ("http://localhost", 422),  # answered, and found wanting an image
        ("https://localhost", 422),
        ("http://localhost:81", 403),
        ("http://evil.example", 403),
        ("null", 403),
        ("file://", 403),
        ("http://localhost.evil.example", 403),
        ("http://", 403),
        ("http://[", 403),
        ("ftp://localhost", 403),
    ],
)
def test_pages_from_elsewhere_may_not_send_requests(web: TestClient, origin: str, status: int) -> None:
    answer = web.post("/api/v1/fill", headers={"Origin": origin})
    assert answer.status_code == status
    assert "access-control-allow-origin" not in answer.headers


def test_no_preflight_allows_anything(web: TestClient) -> None:
    asked = {"Origin": "http://evil.example", "Access-Control-Request-Method": "POST"}
    answer = web.options("/api/v1/fill", headers=asked)
    assert answer.status_code == 403 and not any(name.startswith("access-control") for name in answer.headers)


def test_a_server_bound_beyond_loopback_is_known_by_any_address_but_not_by_any_name(model: Path) -> None:
    with client(model, host="0.0.0.0") as web:
        for host, status in {"192.168.1.7:7860": 200, "[fe80::1]": 200, "evil.example": 403, "localhost": 200}.items():
            assert web.get("/health", headers={"Host": host}).status_code == status


def test_with_a_token_only_those_who_show_it_are_answered(model: Path, one_thread: None) -> None:
    with client(model, token="open sesame") as web:
        for path in ("/api/v1/model", "/metrics", "/openapi.json", "/api/v1/examples", "/api/v1/results/x/y"):
            for shown in (None, "Bearer", "Bearer open", "Basic open sesame", "Bearer open sesame ", "Bearer \xff"):
                headers = {} if shown is None else {"Authorization": shown.encode("latin-1")}
                answer = web.get(path, headers=headers)
                accepted = shown == "Bearer open sesame "
                assert (answer.status_code == 401) is not accepted
                assert accepted or answer.headers["www-authenticate"] == "Bearer"
        assert web.post("/api/v1/fill", files=parts()).status_code == 401
        assert web.get("/health").status_code == web.get("/").status_code == 200
        good = {"Authorization": "bearer open sesame"}
        assert web.post("/api/v1/fill", files=parts(), data={"n": 1}, headers=good).status_code == 200


@pytest.mark.parametrize("path", ["/", "/health", "/nothing", "/api/v1/model", "/static/main.js"])
def test_every_answer_carries_the_policy(web: TestClient, path: str) -> None:
    for host in ("localhost", "evil.example"):
        headers = web.get(path, headers={"Host": host}).headers
        policy = headers["content-security-policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy and "http" not in policy
        assert headers["x-content-type-options"] == "nosniff" and headers["referrer-policy"] == "no-referrer"
        assert "server" not in headers


def test_the_page_names_nothing_from_elsewhere() -> None:
    static = Path(__file__).parent.parent / "manyfill" / "web" / "static"
    for file in static.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text and "eval(" not in text
        assert " style=" not in text and "onclick=" not in text  # the policy would not have them


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.8.8.8", True), ("::1", True), ("localhost", True), ("0.0.0.0", False), ("::", False)],
)
def test_what_only_this_machine_can_reach(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize("token", ["", " spaced ", "tab\t", "ü"])
def test_a_token_that_no_header_can_hold_is_refused(token: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", "--token", token]) == 2
    assert "error: --token" in capsys.readouterr().err
