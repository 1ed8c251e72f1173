"""What OUT tells of itself: the request that its fills answer, and a line per picture."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from shutil import rmtree
from typing import Any

from manyfill import __version__
from manyfill.bulk.fill import SKIPPED, STATUSES, Row
from manyfill.bulk.job import Job
from manyfill.bulk.pictures import EACH, Pictures
from manyfill.errors import ConfigError, DataError, OutputError
from manyfill.files import refusal, save_text
from manyfill.rank import Rank


def agree(job: Job, pictures: Pictures, model: str) -> None:
    """Record in OUT what its fills depend on, or refuse if it differs from what is recorded; `model` is its digest."""
    temperatures = job.sampling.temperatures
    wanted: dict[str, Any] = {
        "version": __version__,
        "model": model,
        "n": job.sampling.n,
        "seed": job.sampling.seed,
        "temperature": list(temperatures) if len(temperatures) > 1 else temperatures[0],
        "masks": pictures.kind,
        "captions": EACH if job.captions else None,
        "guidance": job.guidance if job.captions else None,
        "batch": job.batch,
        "sheets": job.sheets,
        "quantiles": job.quantiles,
        "latents": job.latents,
        "format": job.encoding.format,
        "quality": job.encoding.quality,
    }
    path = job.out / "request.json"
    try:
        before = json.loads(path.read_bytes()) if path.exists() else wanted
    except (OSError, ValueError):
        raise DataError(f"{path}: cannot be read; choose another OUT") from None
    changed = [f"{key}: {before.get(key)} there, {now} here" for key, now in wanted.items() if before.get(key) != now]
    if changed:
        raise ConfigError(f"OUT {job.out}: holds fills of another request ({'; '.join(changed)}); choose another OUT")
    if not path.exists():
        save_text(path, json.dumps(wanted, indent=2) + "\n")


def sweep(out: Path, rank: Rank) -> None:
    """Remove what this rank, when it was killed, left unfinished; the first also all of a division into other ranks."""
    for old in (out / f".rank-{rank.name}").glob("*/"):
        rmtree(old, ignore_errors=True)
    if rank.index == 0:
        kept = f"-of-{rank.size:05d}"
        for old in out.glob(".rank-*-of-*"):
            if not old.name.endswith(kept):
                rmtree(old, ignore_errors=True)
        for old in out.glob("report-*-of-*.jsonl"):
            if not old.stem.endswith(kept):
                old.unlink(missing_ok=True)


@dataclass
class Summary:
    """How many pictures have which status or note, how many an earlier run did, and why the first was skipped."""

    report: Path
    counts: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    reused: int = 0
    first_skip: str | None = None
    seconds: float = 0.0

    def add(self, row: Row) -> None:
        self.counts[row["status"]] += 1
        self.notes.update(row.get("notes", ()))
        self.reused += row.get("reused", False)
        self.first_skip = self.first_skip or row.get("reason")

    def record(self) -> dict[str, Any]:
        """All of it, as values that JSON can hold."""
        counts = {status: self.counts[status] for status in STATUSES}
        told = {"notes": dict(self.notes.most_common())}
        return {**counts, **told, "reused": self.reused, "seconds": round(self.seconds, 3), "report": str(self.report)}

    def __str__(self) -> str:
        counts = [(status, self.counts[status]) for status in STATUSES if self.counts[status]]
        told = ", ".join(f"{count} {status}" for status, count in counts) or "no picture for this rank"
        before = f" ({self.reused} of them before)" if self.reused else ""
        note = f"\nnote: skipped {self.first_skip}" if self.first_skip else ""
        more = f"\nnote: and {self.counts[SKIPPED] - 1} more, see the report" if self.counts[SKIPPED] > 1 else ""
        common = "".join(
            f"\nnote: {text} ({count} picture{'s' if count > 1 else ''})" for text, count in self.notes.most_common()
        )
        return f"{told}{before} in {self.seconds:.1f} s: see {self.report}{note}{more}{common}"


class Report:
    """OUT/report-RANK-of-SIZE.jsonl: a line for each picture of this rank, written as the picture is done."""

    def __init__(self, out: Path, rank: Rank) -> None:
        self.path = out / f"report-{rank.name}.jsonl"
        self.summary = Summary(self.path)

    def write(self, rows: Iterable[Row]) -> Iterator[Row]:
        """Write the rows down as they come and count them; OutputError."""
        save_text(self.path, "")
        for row in rows:
            try:
                with self.path.open("a", encoding="utf-8") as file:
                    file.write(json.dumps(row) + "\n")
            except OSError as error:
                raise OutputError(
                    f"{self.path}: cannot be written ({refusal(error, self.path)}); free space, then run again"
                ) from None
            self.summary.add(row)
            yield row
