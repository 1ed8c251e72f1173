"""Runs as users start them, by torchrun and by the command: restarts, exits, and what is left of them."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from training import records, state, timeless, unequal

import manyfill
from manyfill.train.stop import SECONDS_BETWEEN_LOOKS, SECONDS_OF_GRACE

pytestmark = pytest.mark.slow

ROOT = Path(manyfill.__file__).parent.parent
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
SECONDS_TO_VANISH = 15


Begin = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def begin(photos: Path, micro_toml: Path, tmp_path: Path) -> Iterator[Begin]:
    """Start `manyfill train` behind a launcher, into tmp_path / out; what is left when the test ends is killed."""
    begun: list[subprocess.Popen[str]] = []

    def start(launcher: list[str], out: str, *arguments: str) -> subprocess.Popen[str]:
        command = [*launcher, "-m", "manyfill", "train", str(photos), "--config", str(micro_toml), *arguments]
        with (tmp_path / f"{out}.err").open("w") as errors:
            process = subprocess.Popen(
                [*command, "--out", str(tmp_path / out)],
                env=ENVIRONMENT,
                stderr=errors,
                text=True,
                start_new_session=True,
            )
        begun.append(process)
        return process

    yield start
    for pid in family(tmp_path):
        os.kill(pid, signal.SIGKILL)
    for process in begun:
        process.wait()


def family(folder: Path) -> set[int]:
    """The processes that train into a folder of `folder`: launchers, ranks and their data workers, orphaned or not."""
    listed = subprocess.run(["ps", "-wweo", "pid=,stat=,args="], capture_output=True, text=True, check=True)
    rows = (line.split(None, 2) for line in listed.stdout.splitlines())
    return {int(pid) for pid, stat, command in rows if f"--out {folder}/" in command and stat[0] != "Z"}


def wait_for(condition: Callable[[], object], seconds: float = 120) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it has not come about"
        time.sleep(0.1)


def ranks(process: subprocess.Popen[str]) -> list[int]:
    """The processes that a torchrun has started."""
    listed = subprocess.run(["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True)
    return sorted(map(int, listed.stdout.split()))


def logged(out: Path, step: int) -> bool:
    return (out / "log.jsonl").exists() and any(r["step"] >= step for r in records(out))


def test_torchrun_restarts_a_run_that_lost_a_rank_and_it_ends_as_if_undisturbed(begin: Begin, tmp_path: Path) -> None:
    recipe = ["--steps", "300", "--set", "train.checkpoint_every=30", "--set", "train.validate_every=100"]
    assert begin(TORCHRUN, "whole", *recipe).wait(300) == 0
    process = begin([*TORCHRUN, "--max-restarts", "2"], "run", *recipe)
    for step in (60, 200):
        wait_for(lambda step=step: logged(tmp_path / "run", step))
        os.kill(ranks(process)[-1], signal.SIGKILL)
    assert process.wait(300) == 0
    assert "going on from step" in (tmp_path / "run.err").read_text()
    (whole, record), (halves, again) = state(tmp_path / "whole"), state(tmp_path / "run")
    assert (
        record == again and unequal(whole, halves) == [] and timeless(tmp_path / "whole") == timeless(tmp_path / "run")
    )
    model = Path("model", "model.safetensors")
    assert (tmp_path / "whole" / model).read_bytes() == (tmp_path / "run" / model).read_bytes()


@pytest.mark.parametrize("launcher", [[sys.executable], TORCHRUN], ids=["alone", "torchrun"])
def test_nothing_outlives_a_killed_parent(
    launcher: list[str], begin: Begin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert SECONDS_BETWEEN_LOOKS + SECONDS_OF_GRACE < SECONDS_TO_VANISH
    process = begin(launcher, "run", "--steps", "1000000", "--set", "train.workers=2")
    wait_for(lambda: logged(tmp_path / "run", 20))
    assert len(family(tmp_path)) == (3 if launcher == [sys.executable] else 7), (
        "the parent, its ranks and their workers"
    )
    killed = time.monotonic()
    process.kill()
    process.wait()
    wait_for(lambda: not family(tmp_path), SECONDS_TO_VANISH)
    with capsys.disabled():
        print(f"{launcher[-1]}: no process left {time.monotonic() - killed:.1f} s after the parent's end")


def test_what_a_command_under_torchrun_refuses_is_said_once(begin: Begin, tmp_path: Path) -> None:
    assert begin(TORCHRUN, "run", "--set", "train.batch_size=3", "--steps", "2").wait(120) == 1
    said = (tmp_path / "run.err").read_text()
    assert said.count("error: train.batch_size=3: cannot be shared out equally among 2 processes") == 1
    assert not (tmp_path / "run").exists() and "exitcode  : 2" in said


def test_sigterm_to_torchrun_saves(begin: Begin, tmp_path: Path) -> None:
    process = begin(TORCHRUN, "run", "--steps", "1000000", "--set", "train.checkpoint_every=1h")
    wait_for(lambda: logged(tmp_path / "run", 20))
    for pid in family(tmp_path):  # as a cluster does; the ranks hear it from torchrun once more
        os.kill(pid, signal.SIGTERM)
    process.wait(60)
    assert "stopped at step" in (tmp_path / "run.err").read_text() and state(tmp_path / "run")[1]["step"] >= 20
