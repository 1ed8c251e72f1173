"""The processes that train one model together, as torchrun starts them; alone, everything here does nothing.

Every rank takes its share of each global batch and holds the same weights. Decisions that need the clock, a signal or
the disk are taken once, by rank 0 or by the sum over ranks, so that no rank waits for one that went another way.
"""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

from manyfill.errors import ConfigError, ElsewhereError, ManyfillError
from manyfill.rank import Rank
from manyfill.train.stop import end_with_parent


@dataclass(frozen=True)
class Ranks:
    """This process's `rank` among `world`."""

    rank: int = 0
    world: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the rank that writes and speaks for all."""
        return self.rank == 0

    @property
    def alone(self) -> bool:
        return self.world == 1

    def sum(self, values: Tensor) -> Tensor:
        """The sum over ranks, in place."""
        if not self.alone:
            dist.all_reduce(values)
        return values

    def agree(self, number: float, flag: bool) -> tuple[float, bool]:
        """Rank 0's number, and whether the flag is up at any rank."""
        if self.alone:
            return number, flag
        mine = torch.tensor([number if self.first else 0.0, float(flag)], dtype=torch.float64)
        number, flags = self.sum(mine).tolist()
        return number, flags > 0

    def gather(self, record: Any) -> list[Any]:
        """What every rank has to say, in order of rank; anything that JSON can write."""
        if self.alone:
            return [record]
        text = torch.frombuffer(bytearray(json.dumps(record).encode()), dtype=torch.uint8)
        lengths = self.sum(torch.eye(self.world, dtype=torch.int64)[self.rank] * len(text)).tolist()
        rows = torch.zeros(self.world, max(lengths), dtype=torch.uint8)
        rows[self.rank, : len(text)] = text
        self.sum(rows)
        return [json.loads(bytes(row[:length].tolist())) for row, length in zip(rows, lengths, strict=True)]

    @contextmanager
    def together(self) -> Iterator[None]:
        """Leave at the same time; where a rank meets a ManyfillError it alone raises it, and others ElsewhereError."""
        failure: ManyfillError | None = None
        try:
            yield
        except ManyfillError as error:
            if self.alone:
                raise
            failure = error
        if self.alone:
            return
        failed = self.sum(torch.eye(self.world)[self.rank] * (failure is not None)).nonzero().flatten().tolist()
        if failure is not None and failed[0] == self.rank:  # one line is enough where all meet the same
            raise failure
        if failed:
            raise ElsewhereError(f"rank {failed[0]} tells why")


ALONE = Ranks()


@contextmanager
def joined() -> Iterator[Ranks]:
    """The ranks of a torchrun, connected (NCCL between GPUs, gloo between processors), or this process alone."""
    place = Rank.of()
    if place.size == 1:
        yield ALONE
        return
    end_with_parent()  # or a rank whose torchrun is killed would wait for the others for ever
    backend = "gloo"
    if torch.cuda.is_available():
        torch.cuda.set_device(place.local)
        backend = "cpu:gloo,cuda:nccl"
    try:
        _connect(backend)
        yield Ranks(place.index, place.size)
    except RuntimeError as error:
        if not _peer_lost(error):
            raise
        message = "another process of this run has ended, and so all do; the same command goes on where it stood"
        raise (ElsewhereError if place.index else ManyfillError)(message) from None
    dist.destroy_process_group()  # not after a failure: it would wait for those that are gone


def _connect(backend: str) -> None:
    store, rank, world = next(dist.rendezvous("env://"))
    if os.environ.get("GROUP_WORLD_SIZE") == "1":
        # After a restart torchrun hands out the same store, with addresses in it of processes that are dead. On several
        # machines restarts are counted differently; docs/training.md says how to have a new store there.
        store = dist.PrefixStore(f"attempt-{os.environ['TORCHELASTIC_RESTART_COUNT']}", store)
    dist.init_process_group(backend, store=store, rank=rank, world_size=world)


def _peer_lost(error: RuntimeError) -> bool:
    return isinstance(error, dist.DistError) or "gloo" in str(error)


def share(batch_size: int, accumulate: int, world: int) -> int:
    """Pictures of a rank's micro-batch; ConfigError if the global batch cannot be shared out equally."""
    if batch_size % (world * accumulate):
        parts = f"{world} processes" + (f" in {accumulate} micro-batches each" if accumulate > 1 else "")
        raise ConfigError(
            f"train.batch_size={batch_size}: cannot be shared out equally among {parts}; "
            f"make it a multiple of {world * accumulate}"
        )
    return batch_size // (world * accumulate)
