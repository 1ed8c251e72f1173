"""Folders and small files, written so that a reader never meets half of one."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, TextIO

from manyfill.errors import OutputError


def make_folder(path: Path) -> Path:
    """The folder, made with its parents if need be; OutputError where that fails."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        reason = refusal(error, path)
        raise OutputError(f"{path}: cannot be made a folder ({reason}); choose a writable place") from None
    return path


def check_folder(path: Path) -> None:
    """OutputError if no files could be written to a folder there, said before any work is done; nothing is made."""
    there = next(place for place in (path.absolute(), *path.absolute().parents) if place.exists())
    if not there.is_dir():
        raise OutputError(f"{there}: is no folder; choose another --out")
    if not os.access(there, os.W_OK | os.X_OK):
        raise OutputError(f"{there}: cannot be written (no permission); choose another --out")


def refusal(error: OSError, path: Path) -> str:
    """Why the system refused to write at `path`, in its words; of a full disk, also which one it is."""
    reason = error.strerror or str(error)
    if error.errno not in (errno.ENOSPC, errno.EDQUOT):
        return reason
    disk = next((place for place in path.absolute().parents if os.path.ismount(place)), path.absolute())
    return f"{reason} on the disk at {disk}"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the folder for this process alone; OutputError where another one has it. A killed process lets go of it."""
    try:
        file = (folder / ".lock").open("a")
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({refusal(error, folder)}); choose another place") from None
    with file:
        _lock(file, folder)
        yield


def _lock(file: TextIO, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # a system without such locks
        return
    try:
        # A record lock: unlike the other kind, a data worker does not inherit it and outlive its parent with it.
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise OutputError(f"{folder}: is in use by another process; wait for its end or choose another place") from None
    except OSError:  # a file system without locks
        return


def save_folder(path: Path, files: Mapping[str, bytes], scratch: Path) -> None:
    """Write a new folder of files, whole under its name or not at all; raises OutputError.

    It is made in the folder `scratch` of the same disk, then moved: a killed process cannot harm it. It is not forced
    through to the disk: for what is written by the thousand, that takes longer than all else. A folder that another
    process wrote meanwhile stays.
    """
    aside = scratch / secrets.token_hex(8)
    try:
        try:
            aside.mkdir(parents=True)
            path.parent.mkdir(parents=True, exist_ok=True)
            for name, content in files.items():
                (aside / name).write_bytes(content)
            if not path.exists():
                os.rename(aside, path)
        finally:
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        reason = refusal(error, path)
        raise OutputError(f"{path}: cannot be written ({reason}); choose a writable place with free space") from None


def save_text(path: Path, text: str) -> None:
    """Write UTF-8 text, whole under its name or not at all; raises OutputError."""
    save_bytes(path, text.encode())


def save_bytes(path: Path, content: bytes) -> None:
    """Write a file, whole under its name or not at all, and through to the disk; raises OutputError."""
    with writing(path) as file:
        file.write(content)


@contextmanager
def writing(path: Path) -> Iterator[BinaryIO]:
    """A file to write, which takes its name when all is on the disk, or never; raises OutputError."""
    aside = path.with_name(f".manyfill-{secrets.token_hex(8)}.part")
    try:
        try:
            with aside.open("xb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        except BaseException:
            aside.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise OutputError(
            f"{path}: cannot be written ({refusal(error, path)}); choose an existing, writable folder with free space"
        ) from None


def sweep(folder: Path) -> None:
    """Remove what killed processes left half-written in a folder that nobody else writes to."""
    for aside in folder.glob(".manyfill-*.part"):
        with suppress(OSError):
            aside.unlink()
