"""RUN/log.jsonl: one record a line, each with its `step` and its `kind`: "train" for the batches trained on since the
last one, "validation", or "fit" for training pictures measured as validation pictures are."""

import json
from pathlib import Path
from typing import Any

from manyfill.files import save_text

Record = dict[str, Any]


def read(path: Path) -> list[Record]:
    """All whole records, in order; a line that a crash cut short is left out."""
    if not path.exists():
        return []
    return [record for line in path.read_text().splitlines() if (record := _record(line)) is not None]


def cut(path: Path, step: int) -> None:
    """Drop what was logged after `step`, so that a run that goes on from there leaves curves without doubles."""
    records = read(path)
    kept = [record for record in records if record["step"] <= step]
    text = "".join(json.dumps(record) + "\n" for record in kept)
    if path.exists() and path.read_text() != text:
        save_text(path, text)


def validations(path: Path) -> list[Record]:
    """The validation passes, oldest first."""
    return [record for record in read(path) if record["kind"] == "validation"]


def _record(line: str) -> Record | None:
    try:
        record = json.loads(line)
    except ValueError:
        return None
    return record if isinstance(record, dict) and {"kind", "step"} <= record.keys() else None
