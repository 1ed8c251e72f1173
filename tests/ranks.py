"""Several ranks on this machine, as torchrun would start them, without the seconds that each would take to import."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from manyfill.errors import ManyfillError
from manyfill.train import loop
from manyfill.train.distributed import Ranks, joined
from manyfill.train.settings import Settings

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["ranks", "torch.utils.tensorboard"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def start(world: int, act: Callable[..., None], *arguments: Any, errors: Path | None = None) -> list[Any]:
    """`act(ranks, *arguments)` in every rank's process; what a rank complains of goes to the file `errors`-RANK."""
    port = free_port()
    ranks = [
        PROCESSES.Process(target=_rank, args=(rank, world, port, errors, act, arguments), daemon=True)
        for rank in range(world)
    ]
    for process in ranks:
        process.start()
    return ranks


def on_ranks(world: int, act: Callable[..., None], *arguments: Any, errors: Path | None = None) -> list[int]:
    """Wait for them all; their exit codes."""
    ranks = start(world, act, *arguments, errors=errors)
    for process in ranks:
        process.join(120)
    return [process.exitcode for process in ranks]


def _rank(
    rank: int, world: int, port: int, errors: Path | None, act: Callable[..., None], arguments: tuple[Any, ...]
) -> None:
    torch.set_num_threads(1)
    os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(world), "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    target = os.devnull if errors is None else f"{errors}-{rank}"
    os.dup2(os.open(target, os.O_WRONLY | os.O_CREAT), 2)
    try:
        with joined() as ranks:
            act(ranks, *arguments)
    except ManyfillError as error:
        if error.args and type(error).__name__ != "ElsewhereError":
            print("error:", error, file=sys.stderr)
        sys.exit(2)


def train(ranks: Ranks, settings: str, out: str, steps_between_logs: int = 1) -> None:
    loop.STEPS_BETWEEN_LOGS = steps_between_logs
    loop.run(Settings.model_validate_json(settings), Path(out), ranks)
