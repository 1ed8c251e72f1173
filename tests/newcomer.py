"""A newcomer's machine: an environment in which manyfill's wheel is installed and nothing of this checkout can be seen.

What the wheel depends on comes from the environment of the tests, by a path file, since tests have no network. Path
files found in there are not followed, so an editable install stays unseen.
"""

import os
import socket
import subprocess
import sys
import sysconfig
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from documented import ROOT, SERVE, Block

PORT = "7860"
MARK = "-- a block has ended --"
# Runs Python blocks one after the other, with common names, as a notebook does.
DRIVER = f"""
import ast, sys
names = {{"__name__": "__main__"}}
for line in sys.stdin:
    place, text = ast.literal_eval(line)
    exec(compile(text, place, "exec"), names)
    print({MARK!r}, flush=True)
"""


def distributions(folder: Path) -> dict[str, Path]:
    """Build the sdist, and the wheel from it: {"sdist": FILE, "wheel": FILE}."""
    folder.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(folder), str(ROOT)]
    built = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=600)
    assert built.returncode == 0, built.stdout + built.stderr
    return {"sdist": next(folder.glob("*.tar.gz")), "wheel": next(folder.glob("*.whl"))}


def environment(folder: Path, wheel: Path) -> Path:
    """The bin folder of a fresh environment with this wheel."""
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    asked = [str(python), "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip())
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    install = ["pip", "--python", str(python), "install", "--quiet", "--no-deps", "--no-index", "--ignore-installed"]
    subprocess.run([sys.executable, "-m", *install, str(wheel)], check=True)
    torchrun = folder / "bin" / "torchrun"
    torchrun.write_text(f'#!/bin/sh\nexec {python} -m torch.distributed.run "$@"\n')
    torchrun.chmod(0o755)
    return folder / "bin"


class Session:
    """A shell and a Python in one folder, and the server that they start."""

    def __init__(self, folder: Path, bin: Path) -> None:
        self.folder, self.bin = folder, bin
        hidden = dict.fromkeys(("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV"), "")
        path = os.pathsep.join([str(bin), os.environ["PATH"]])
        self.environment = {**os.environ, **hidden, "PATH": path, "OMP_NUM_THREADS": "1"}
        self.python: subprocess.Popen[str] | None = None
        self.server: subprocess.Popen[str] | None = None
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = str(probe.getsockname()[1])

    def start(self, *command: str) -> subprocess.Popen[str]:
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.STDOUT}
        return subprocess.Popen(command, cwd=self.folder, env=self.environment, text=True, **pipes)

    def execute(self, block: Block) -> str:
        """Run a block to its end and return what it printed; AssertionError where it fails."""
        text, place = block.shortened.replace(PORT, self.port), f"{block.page}:{block.line}"
        if block.language == "python":
            return self.calculate(place, text)
        if served := SERVE.search(text):
            self.serve(served.group(1))
        shell = self.start("bash", "-euo", "pipefail", "-c", SERVE.sub("", text))
        printed, _ = shell.communicate(timeout=3600)
        assert shell.returncode == 0, f"{place}\n{text}\n{printed}"
        return printed

    def calculate(self, place: str, text: str) -> str:
        self.python = self.python or self.start(str(self.bin / "python"), "-c", DRIVER)
        assert self.python.stdin and self.python.stdout
        self.python.stdin.write(repr((place, text)) + "\n")
        self.python.stdin.flush()
        printed = []
        for line in self.python.stdout:
            if line.strip() == MARK:
                return "".join(printed)
            printed.append(line)
        raise AssertionError(f"{place}\n{text}\n{''.join(printed)}")

    def serve(self, flags: str) -> None:
        """Start the server in the background, as a reader would in another window."""
        self.close()
        self.server = self.start("bash", "-c", f"exec manyfill serve --port {self.port} {flags} >server.log 2>&1")
        for _ in range(600):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5).close()
                return
            except OSError:
                assert self.server.poll() is None, (self.folder / "server.log").read_text()
                time.sleep(0.5)
        raise AssertionError("the server does not answer")

    def close(self) -> None:
        """End what still runs."""
        for process in (self.server, self.python):
            if process:
                process.terminate()
                process.communicate()
        self.server = self.python = None


@contextmanager
def session(folder: Path, bin: Path) -> Iterator[Session]:
    """A session that leaves nothing running."""
    opened = Session(folder, bin)
    try:
        yield opened
    finally:
        opened.close()
