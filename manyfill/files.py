"""Folders and small files, written so that a reader never meets half of one."""

import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from manyfill.errors import OutputError


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be; OutputError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made a folder ({error.strerror}); choose a writable place") from None
    return path


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; OutputError where another one has it. A killed process lets go of it."""
    try:
        import fcntl
    except ImportError:  # a system without such locks
        yield
        return
    try:
        with (folder / ".lock").open("a") as file:
            # A record lock: unlike the other kind, a data worker does not inherit it and outlive its parent with it.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
    except BlockingIOError:
        raise OutputError(
            f"{folder}: is in use by another process; wait for it to end or choose another --out"
        ) from None


def save_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole under its name or not at all; raises OutputError."""
    save_bytes(path, text.encode())


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole under its name or not at all, and through to the disk; raises OutputError."""
    aside = path.with_name(f".manyfill-{secrets.token_hex(8)}.part")
    try:
        try:
            with aside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        reason = error.strerror or error
        raise OutputError(
            f"{path}: cannot be written ({reason}); choose an existing, writable folder with free space"
        ) from None
