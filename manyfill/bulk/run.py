"""Filling a job from its pictures to its report."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from shutil import rmtree
from time import perf_counter

from manyfill.bulk.fill import SKIPPED, BulkFiller, Row, block_numbers
from manyfill.bulk.job import Job
from manyfill.bulk.pictures import Pictures
from manyfill.bulk.report import Report, Summary, agree, sweep
from manyfill.errors import DataError
from manyfill.files import locked, make_folder
from manyfill.locate import locate
from manyfill.pipeline import Filler
from manyfill.rank import Rank
from manyfill.runtime.exported import is_exported

Progress = Callable[[Iterable[Row], int], Iterable[Row]]
"""`progress(rows, pictures)`: the rows, shown as they come."""
Elsewhere = Callable[[Job, Iterable[int], Path], Iterator[Row]]
"""`elsewhere(job, blocks, scratch)`: the rows of the blocks in order, filled by other processes."""


def fill_many(
    job: Job, rank: Rank, progress: Progress = lambda rows, _: rows, elsewhere: Elsewhere | None = None
) -> Summary:
    """Fill this rank's share of the job's pictures, but those done before; raises ManyfillError."""
    began = perf_counter()
    pictures = Pictures(job)
    scratch = job.out / f".rank-{rank.name}"
    # An exported model knows nothing of torch and its GPUs.
    device = None if is_exported(locate(job.model)) else rank.device()
    filler = Filler.from_pretrained(job.model, job.device or device)
    bulk = BulkFiller(job, pictures, filler, scratch)  # also where others fill: it sees whether the model can

    def fill(blocks: Iterable[int]) -> Iterator[Row]:
        return elsewhere(job, blocks, scratch) if elsewhere else bulk.fill(blocks)

    with locked(make_folder(scratch)):
        try:
            agree(job, pictures, filler.digest)
            sweep(job.out, rank)
            report = Report(job.out, rank)
            blocks = rank.share(block_numbers(job, len(pictures)))
            for _ in progress(report.write(fill(blocks)), -(-len(pictures) // rank.size)):
                pass
        finally:
            rmtree(scratch, ignore_errors=True)
    summary = report.summary
    summary.seconds = perf_counter() - began
    # One of several ranks must not fail for its share alone: launchers would end the others with it.
    if rank.size == 1 and set(summary.counts) == {SKIPPED}:
        raise DataError(f"none of the {len(pictures)} pictures could be filled; the first: {summary.first_skip}")
    return summary
