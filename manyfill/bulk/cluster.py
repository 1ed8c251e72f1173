"""The same on Ray Data: blocks stream through actors that keep the model; what an actor had when it died is done again.

A block that is done again finds the pictures that are on the disk already and writes only the others.
"""

import importlib.util
import json
import logging
import os
import socket
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from manyfill.bulk.fill import BulkFiller, Row
from manyfill.bulk.job import Job
from manyfill.bulk.pictures import Pictures
from manyfill.errors import ConfigError, ManyfillError
from manyfill.pipeline import Filler

MOST_BLOCKS = 8  # in a call: within one, reading and writing go on while the model draws
CALLS_AN_ACTOR = 4  # at least, so that all end at about the same time
# Nothing is sent home, only what is fatal is told, and actors run as this process would and not behind all others.
SETTINGS = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_BACKEND_LOG_LEVEL": "fatal", "RAY_worker_niceness": "0"}
STORE_BYTES = 100_000_000  # only numbers of blocks and lines of the report pass through it


@dataclass(frozen=True)
class Cluster:
    """Ray, started here for a while or running at `address`, and how many actors to have there (None: all that fit)."""

    address: str | None = None
    actors: int | None = None

    def __post_init__(self) -> None:
        if importlib.util.find_spec("ray") is None:
            raise ManyfillError("--ray needs Ray: pip install 'manyfill[ray]'")
        if self.actors is not None and self.actors < 1:
            raise ConfigError(f"--actors {self.actors}: must be 1 or more")

    def fill(self, job: Job, blocks: Iterable[int], scratch: Path) -> Iterator[Row]:
        """A row for each picture of the blocks, in order, when its fills are on the disk; raises ManyfillError."""
        import ray

        with self._connected():
            try:
                for row in self._stream(job, list(blocks), scratch).iter_rows():
                    line = json.loads(row["line"])
                    if "error" in line:  # errors are values: one that an actor raises is buried in a traceback
                        raise ManyfillError(line["error"])
                    yield line
            except ray.exceptions.RayError as error:
                reason = str(error).strip().splitlines()[-1:]
                raise ManyfillError(f"--ray: gave up ({' '.join(reason)}); run again to go on") from None

    def _stream(self, job: Job, blocks: list[int], scratch: Path) -> Any:
        """A Ray data set of the report's lines, worked out as it is read."""
        import ray

        resources = ray.cluster_resources()
        gpus, cpus = int(resources.get("GPU", 0)), int(resources.get("CPU", 0))
        # One processor is left for what else Ray Data does.
        actors = self.actors or gpus or max(1, cpus - 1)
        at_once = min(MOST_BLOCKS, -(-len(blocks) // (actors * CALLS_AN_ACTOR)))
        context = ray.data.DataContext.get_current()
        context.enable_progress_bars, context.execution_options.preserve_order = False, True
        calls = ray.data.from_items(blocks, override_num_blocks=-(-len(blocks) // at_once))
        return calls.map_batches(
            _Actor,
            fn_constructor_args=(job, scratch, Path.cwd()),
            batch_size=at_once,
            compute=ray.data.ActorPoolStrategy(size=actors),
            num_cpus=1,
            num_gpus=1 if gpus else None,
        )  # by default Ray Data starts an actor again, and its call with it, as often as need be

    @contextmanager
    def _connected(self) -> Iterator[None]:
        import ray.data
        import torch

        for name, value in SETTINGS.items():
            os.environ.setdefault(name, value)
        # A cluster of our own is a small one; of one that runs already nothing can be chosen.
        cpus = (self.actors or torch.cuda.device_count() or os.cpu_count() or 1) + 1
        local: dict[str, Any] = {"num_cpus": cpus, "object_store_memory": STORE_BYTES, "include_dashboard": False}
        try:
            ray.init(self.address, log_to_driver=False, logging_level="ERROR", **({} if self.address else local))
        except (ConnectionError, ValueError, RuntimeError) as error:
            place = self.address or "here"
            raise ManyfillError(f"--ray-address {place}: no Ray cluster answers ({error}); start one there") from None
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        try:
            yield
        finally:
            ray.shutdown()


class _Actor:
    """A model in a process of its own, filling blocks as Ray hands them out, `home` its working directory."""

    def __init__(self, job: Job, scratch: Path, home: Path) -> None:
        self.job, self.scratch, self.home = job, scratch, home

    @cached_property
    def bulk(self) -> BulkFiller:
        try:
            os.chdir(self.home)
        except OSError:
            raise ManyfillError(
                f"{self.home}: is not on {socket.gethostname()}; Ray's machines must share it"
            ) from None
        filler = Filler.from_pretrained(self.job.model, self.job.device)
        return BulkFiller(self.job, Pictures(self.job), filler, self.scratch)

    def __call__(self, batch: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            rows: list[Row] = list(self.bulk.fill(batch["item"].tolist()))
        except ManyfillError as error:
            rows = [{"error": str(error)}]
        return {"line": np.array([json.dumps(row) for row in rows])}
