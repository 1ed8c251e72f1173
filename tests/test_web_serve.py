"""`manyfill serve`: what it says at the start, and what it refuses before it listens."""

import json
import re
import socket
import urllib.request
from pathlib import Path

import pytest
from serving import server, wait_for

from manyfill.cli import main

STATIC = Path(__file__).parent.parent / "manyfill" / "web" / "static"


def test_it_answers_and_warns_when_anybody_could_ask(model: Path, tmp_path: Path) -> None:
    log = tmp_path / "log.txt"
    with server(model, "--host", "0.0.0.0", log=log) as (address, _):
        port = int(address.rsplit(":", 1)[1])
        wait_for(f"http://127.0.0.1:{port}")
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=20) as answer:
            assert json.load(answer) == {"status": "ok"} and "server" not in answer.headers
    assert "set a token with --token or MANYFILL_TOKEN" in log.read_text()


def test_a_port_in_use_is_one_line(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        assert main(["serve", "--model", str(model), "--port", str(port)]) == 2
    assert f"error: --port {port}: cannot be had on 127.0.0.1" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--port", "70000"], "--port"),
        (["--queue", "-1"], "--queue"),
        (["--max-pixels", "0"], "--max-pixels"),
        (["--device", "warp"], "--device warp: cannot be used here"),
        (["--max-memory", "lots"], "--max-memory lots: give a size"),
        (["--model", "nowhere"], "nowhere: no such model"),
    ],
)
def test_what_cannot_be_served_is_one_line(flags: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve", *flags]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and told in error and error.count("\n") == 1


@pytest.mark.parametrize("sheet", sorted(STATIC.glob("*.css")), ids=lambda sheet: sheet.name)
def test_style_sheets_close_every_brace(sheet: Path) -> None:
    depth = 0
    for mark in re.findall(r"[{}]", sheet.read_text()):
        depth += 1 if mark == "{" else -1
        assert depth >= 0
    assert depth == 0
