"""Hugging Face's `imagefolder`: a metadata.jsonl beside pictures, a line {"file_name": ..., "text": ...} for each."""

import json
from pathlib import Path
from typing import Any

from manyfill.data.folder import files_below
from manyfill.data.listed import ListedSource, folder_of
from manyfill.errors import DataError

METADATA = "metadata.jsonl"
CAPTION_KEYS = ("text", "caption", "captions")


def read_metadata(path: Path) -> ListedSource:
    """The pictures that a metadata.jsonl lists, in its order; DataError names the line that is none of its kind, or
    the pictures if none of them is there.

    Captions are under "text", "caption" or "captions", one or a list. A picture listed twice has the captions of both.
    """
    captions: dict[str, list[str]] = {}
    try:
        with path.open("rb") as lines:
            for number, line in enumerate(lines, 1):
                if line.strip():
                    name, texts = _parsed(line, f"{path} line {number}")
                    captions.setdefault(name, []).extend(texts)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}); check its permissions") from None
    if captions:
        folder_of(path, [path.parent], list(captions), files_below, "write their paths within that folder")
    return ListedSource(path.parent, captions)


def _parsed(line: bytes, where: str) -> tuple[str, list[str]]:
    try:
        record: Any = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise DataError(f"{where}: is no JSON ({error}); mend or remove the line") from None
    name = record.get("file_name") if isinstance(record, dict) else None
    if not isinstance(name, str) or not name:
        raise DataError(f'{where}: has no "file_name"; write {{"file_name": "...", "text": "..."}}')
    texts: list[str] = []
    for key in CAPTION_KEYS:
        value = record.get(key) or []
        found = [value] if isinstance(value, str) else value
        if not isinstance(found, list) or not all(isinstance(text, str) for text in found):
            raise DataError(f'{where}: "{key}" is neither a text nor a list of texts; mend the line')
        texts += found
    return name, texts
