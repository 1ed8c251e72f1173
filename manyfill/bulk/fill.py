"""Many pictures through one model: several in a batch, and others read and written while the model draws.

Where torch's threads take every core there is no such while: they share out each layer evenly and wait for the last
of them, so whoever reads on one core holds up all. Pictures are then read and written between draws, on all cores.

Block b holds the pictures b * P, ..., b * P + P - 1, which share a batch of the model; whoever fills a block, and after
whatever interruption, gives the model the same batch. So the last bit of a sum does not depend on it either.
"""

import json
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from shutil import rmtree
from time import perf_counter
from typing import Any, TypeVar

from manyfill.bulk.job import Job
from manyfill.bulk.pictures import Pictures
from manyfill.caption import check
from manyfill.completions import Completions, Timings
from manyfill.drawing import Drawn, Shown
from manyfill.errors import OutputError, PictureError
from manyfill.files import save_folder
from manyfill.inputs import Subject
from manyfill.octaves import PORTION
from manyfill.pipeline import Filler

RECORD = "fill.json"
AHEAD = 2  # blocks that are read, and as many that are written, while the model draws one
STATUSES = FILLED, UNCHANGED, SKIPPED = "filled", "unchanged", "skipped"

Row = dict[str, Any]
"""A line of the report: a picture's name, its status, and what else there is to say."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class Case:
    """A picture as it was read, or `row` where there is nothing more to do."""

    number: int
    row: Row | None
    subject: Subject | None = None
    shown: Shown | None = None
    seconds: float = 0.0


class BulkFiller:
    """A model filling the blocks of a job; `scratch` is a folder for what is not whole yet. ConfigError for a model
    that cannot be told the pictures' captions."""

    def __init__(self, job: Job, pictures: Pictures, filler: Filler, scratch: Path) -> None:
        self.job, self.pictures, self.filler, self.scratch = job, pictures, filler, scratch
        check(filler.config, pictures.example, "--captions")
        if pictures.example:  # what captions are read by is loaded now, not by several threads at once
            filler.runtime.read(pictures.example)

    def fill(self, blocks: Iterable[int]) -> Iterator[Row]:
        """A row for each picture of the blocks, in order, when its fills are on the disk; raises ManyfillError."""
        pool = ThreadPoolExecutor(self.job.workers)
        count = AHEAD if self.filler.runtime.spares_a_core else 0
        try:
            reading = ahead(map(partial(self._start, pool), blocks), count)
            for block in ahead(map(partial(self._draw, pool), reading), count):
                for row in block:
                    yield row.result()
        finally:
            pool.shutdown(cancel_futures=True)

    def _start(self, pool: ThreadPoolExecutor, block: int) -> list[Future[Case]]:
        size = pictures_at_once(self.job)
        numbers = range(block * size, min(block * size + size, len(self.pictures)))
        return [pool.submit(self._read, number) for number in numbers]

    def _read(self, number: int) -> Case:
        began = perf_counter()
        try:
            subject = self.pictures.read(number)
            shown = self.filler.show(subject)
        except PictureError as error:
            if self.job.strict:
                raise
            return Case(number, self._row(number, SKIPPED, perf_counter() - began, reason=str(error)))
        return Case(number, self._stored(number, subject), subject, shown, perf_counter() - began)

    def _draw(self, pool: ThreadPoolExecutor, reading: list[Future[Case]]) -> list[Future[Row]]:
        cases = [case.result() for case in reading]
        drawn: dict[int, Drawn] = {}
        if any(case.shown and not case.row for case in cases):
            # Those that are done already too: the batch is to be what it was.
            shown = {case.number: case.shown for case in cases if case.shown}
            drawn = dict(zip(shown, self.filler.draw(list(shown.values()), self.job.sampling), strict=True))
        return [pool.submit(self._finish, case, drawn.get(case.number)) for case in cases]

    def _finish(self, case: Case, drawn: Drawn | None) -> Row:
        if case.row:
            return case.row
        assert case.subject
        seconds = drawn.seconds if drawn else 0.0
        spent = Timings(seconds, 0.0, case.seconds + seconds)
        completions = self.filler.complete(case.subject, case.shown, drawn, self.job.sampling, spent)
        job = self.job
        completions = completions.noted(job.encoding, job.quantiles)
        files = dict(completions.files(job.encoding, sheet=job.sheets, with_quantiles=job.quantiles))
        if job.latents:
            files |= completions.latent_files(self._folder(case.number))
        row = self._record(case, completions, {name: len(content) for name, content in files.items()})
        files[RECORD] = (json.dumps(row, indent=2) + "\n").encode()
        save_folder(self._folder(case.number), files, self.scratch)
        return row

    def _folder(self, number: int) -> Path:
        return self.job.out / self.pictures.folders[number]

    def _record(self, case: Case, completions: Completions, files: dict[str, int]) -> Row:
        assert case.subject
        more = completions.record()
        seconds = more.pop("timings")["total"]
        del more["bound"]  # for want of a truth there is none
        status = FILLED if case.shown else UNCHANGED
        row = self._row(case.number, status, seconds, folder=self.pictures.folders[case.number], files=files)
        return row | more | {"input": case.subject.digest()}

    def _row(self, number: int, status: str, seconds: float, **more: Any) -> Row:
        row: Row = {"picture": self.pictures.names[number], "status": status, "seconds": round(seconds, 4)}
        return row | {"seed": self.job.sampling.seed, "files": {}} | more

    def _stored(self, number: int, subject: Subject) -> Row | None:
        """The row of a picture that was filled before under this caption; OutputError where something else is in its
        place."""
        folder, name = self._folder(number), subject.picture.name
        if not (folder / RECORD).exists():
            if folder.exists():
                raise OutputError(f"{folder}: is in the way, without {RECORD}; choose another OUT or remove it")
            return None
        row, said = _whole(folder), subject.caption and subject.caption.text
        if row and row.get("input") != subject.digest():
            raise OutputError(f"{folder}: holds fills of another {name} or mask; choose another OUT or remove it")
        if row is None or row.get("caption") != said:
            rmtree(folder, ignore_errors=True)
            return None
        return row


def _whole(folder: Path) -> Row | None:
    """The record in a folder of fills; None where a power failure has cut a file short, whatever is under its name."""
    try:
        row: Row = json.loads((folder / RECORD).read_bytes())
        whole = all((folder / name).stat().st_size == size for name, size in dict(row.get("files", {})).items())
    except (OSError, ValueError):
        return None
    return row | {"reused": True} if whole else None


def pictures_at_once(job: Job) -> int:
    """How many pictures share a batch, P."""
    return max(1, job.batch // min(job.sampling.n, PORTION))


def block_numbers(job: Job, pictures: int) -> range:
    """The numbers of the blocks of so many pictures."""
    return range(-(-pictures // pictures_at_once(job)))


def ahead(items: Iterable[Item], count: int) -> Iterator[Item]:
    """The items, each handed out only when `count` more have been begun."""
    begun: deque[Item] = deque()
    for item in items:
        begun.append(item)
        if len(begun) > count:
            yield begun.popleft()
    yield from begun
