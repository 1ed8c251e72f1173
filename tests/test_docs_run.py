"""The documentation, executed: every sh and python block, page by page from top to bottom, with small stand-ins."""

import os
import re
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from documented import PAGES, ROOT, Block, blocks, furnish

TESTED = {page: [b for b in blocks(page) if b.language in ("sh", "python") and not b.untested] for page in PAGES}
RUN = {page: found for page, found in TESTED.items() if found}
SERVE = re.compile(r"^manyfill serve(.*?)(#.*)?$", re.MULTILINE)
PORT = "7860"


class Session:
    """One page's shell and its Python, which remembers names from block to block, and the server it starts."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.names, self.servers = folder, {"__name__": "page"}, list[subprocess.Popen[bytes]]()
        tools = folder / ".tools"
        tools.mkdir()
        for name, program in {"manyfill": f"{sys.executable} -m manyfill", "python": sys.executable}.items():
            (tools / name).write_text(f'#!/bin/sh\nexec {program} "$@"\n')
            (tools / name).chmod(0o755)
        path = os.pathsep.join([str(tools), str(Path(sys.executable).parent), os.environ["PATH"]])
        self.environment = os.environ | {"PATH": path, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])

    def execute(self, block: Block) -> None:
        text = block.shortened.replace(PORT, self.port)
        if block.language == "python":
            exec(compile(text, f"{block.page}:{block.line}", "exec"), self.names)
            return
        served = SERVE.search(text)
        if served:
            self.serve(served.group(1))
        script = SERVE.sub("", text)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=3600,
        )
        assert done.returncode == 0, f"{block.page}:{block.line}\n{script}\n{done.stdout}"

    def serve(self, flags: str) -> None:
        """Start the server in the background, as a reader would in another window."""
        self.close()
        command = ["bash", "-c", f"exec manyfill serve --port {self.port} {flags}"]
        self.servers.append(subprocess.Popen(command, cwd=self.folder, env=self.environment))
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                assert self.servers[-1].poll() is None, "the server ended"
                time.sleep(0.5)
        raise AssertionError("the server does not answer")

    def close(self) -> None:
        while self.servers:
            server = self.servers.pop()
            server.terminate()
            server.wait()


@contextmanager
def session(folder: Path) -> Iterator[Session]:
    opened = Session(folder)
    try:
        yield opened
    finally:
        opened.close()


@pytest.mark.slow
@pytest.mark.usefixtures("one_thread")
@pytest.mark.parametrize("page", RUN, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_a_page_does_what_it_says(page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    if page.name != "tutorial.md":  # which makes its own pictures
        furnish(tmp_path)
    with session(tmp_path) as opened:
        for block in RUN[page]:
            opened.execute(block)


def test_readmes_first_snippet_fills_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    furnish(tmp_path)
    with session(tmp_path) as opened:
        opened.execute(next(block for block in RUN[ROOT / "README.md"] if block.language == "python"))
    assert (tmp_path / "fills" / "fill-00.jpg").is_file()
