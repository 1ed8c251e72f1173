"""Folders and small text files, written so that a reader never meets half of one."""

import os
import secrets
from pathlib import Path

from manyfill.errors import OutputError


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be; OutputError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made a folder ({error.strerror}); choose a writable place") from None
    return path


def save_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole under its name or not at all; raises OutputError."""
    aside = path.with_name(f".manyfill-{secrets.token_hex(8)}.part")
    try:
        aside.write_text(text, encoding="utf-8")
        os.replace(aside, path)
    except OSError as error:
        aside.unlink(missing_ok=True)
        raise OutputError(f"{path}: cannot be written ({error.strerror}); free space or choose another place") from None
