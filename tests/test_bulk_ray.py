"""Filling on Ray: a local cluster of two actors, one of which is killed halfway."""

import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch

import manyfill
from manyfill.checkpoint import save_model
from manyfill.cli import main
from manyfill.images import save_png
from manyfill.masks import draw, write_mask
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("default")]
PICTURES = 48


def actors() -> list[int]:
    """The processes of Ray's actors that descend from this one."""
    return [int(path.name) for path in Path("/proc").glob("[0-9]*") if title(path).startswith("ray::") and ours(path)]


def title(process: Path) -> str:
    try:
        text = (process / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
    return text if "_Actor" in text or "MapWorker" in text else ""


def ours(process: Path) -> bool:
    """Whether this process started it, through whatever others."""
    while process.name not in ("0", "1"):
        if process.name == str(os.getpid()):
            return True
        try:
            process = process.parent / (process / "stat").read_text().rpartition(") ")[2].split()[1]
        except OSError:
            return False
    return False


def kill_one_halfway(out: Path, killed: list[tuple[int, int]]) -> None:
    while not killed:
        done = len(list(out.glob("*/fill.json")))
        running = actors() if done >= PICTURES // 8 else []
        if running:
            os.kill(running[0], signal.SIGKILL)
            killed.append((running[0], done))
        time.sleep(0.002)


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="finds the processes in /proc")
def test_a_killed_actor_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(manyfill.__file__).parent.parent))  # the actors' manyfill is this one
    torch.manual_seed(0)
    save_model(Path("model"), ConditionalHVAE(PRESETS["tiny32"]), "", {})
    rng = np.random.default_rng(0)
    for folder in ("in", "masks"):
        Path(folder).mkdir()
    for i in range(PICTURES):
        save_png(Path(f"in/{i:02d}.png"), rng.integers(0, 256, (40, 40, 3), dtype=np.uint8))
        write_mask(Path(f"masks/{i:02d}.png"), draw("brush", 40, 40, rng))
    Path("in/broken.png").write_text("hello")
    fill = ["fill-many", "in", "--masks", "masks", "--model", "model", "-n", "4", "--batch", "4"]
    assert main([*fill, "alone"]) == 0
    killed: list[tuple[int, int]] = []
    killer = threading.Thread(target=kill_one_halfway, args=(Path("out"), killed), daemon=True)
    killer.start()
    assert main([*fill, "out", "--ray", "--actors", "2"]) == 0
    killer.join(1)
    assert killed and killed[0][1] < PICTURES, "one was killed, with work left"
    alone, out = (
        {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(Path(folder).rglob("*.png"))}
        for folder in ("alone", "out")
    )
    assert len(alone) == 6 * PICTURES and out == alone
    reports = [Path(folder, "report-00000-of-00001.jsonl").read_text().splitlines() for folder in ("alone", "out")]
    assert len(reports[0]) == len(reports[1]) == PICTURES + 1
    assert "not a picture" in reports[1][-1] and not list(Path("out").rglob(".*"))
    patience = time.monotonic() + 20
    while actors() and time.monotonic() < patience:
        time.sleep(0.1)
    assert not actors()
