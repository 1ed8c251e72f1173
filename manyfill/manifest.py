"""Directories that are whole or not there: written aside, flushed to the disk and renamed, with a SHA-256 manifest.

Whatever differs from its manifest is refused.
"""

import glob
import hashlib
import json
import os
import re
import secrets
import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from manyfill.errors import ModelError, OutputError
from manyfill.files import refusal

MANIFEST = "manifest.json"


def sha256(parts: Iterable[bytes]) -> str:
    """One fingerprint of several parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def first_line(error: Exception) -> str:
    """What an error says, in short."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def write_directory(directory: Path, files: dict[str, bytes]) -> None:
    """Write `files` with their manifest as `directory`, all or nothing.

    An older directory that was written so is replaced, but for files of others in it. OutputError where it cannot be
    written, or where anything else is in the way.
    """
    if not is_free(directory):
        raise OutputError(f"{directory}: is in the way, and no model of manyfill; choose another place")
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    aside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        for name, content in {**files, MANIFEST: json.dumps(manifest, indent=2).encode()}.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _take_over(directory, aside)
        _sync(aside)
        _replace(aside, directory)
    except OSError as error:
        raise OutputError(
            f"{directory}: cannot be written ({refusal(error, directory)}); free space or choose another place"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def is_free(directory: Path) -> bool:
    """Whether writing there takes nothing from anybody: nothing, an empty directory or one of `write_directory`."""
    if not directory.name:  # "." cannot be renamed
        return False
    if not directory.is_dir():
        return not directory.exists()
    return bool(_own(directory)) or not any(directory.iterdir())


def _own(directory: Path) -> set[str]:
    """The files that `write_directory` wrote there, or none where a manifest.json is another tool's."""
    try:
        manifest = json.loads((directory / MANIFEST).read_bytes())
    except (OSError, ValueError):
        return set()
    sums = manifest.values() if isinstance(manifest, dict) else [None]
    ours = all(isinstance(each, str) and re.fullmatch("[0-9a-f]{64}", each) for each in sums)
    return {MANIFEST, *manifest} if ours and manifest else set()


def _take_over(old: Path, new: Path) -> None:
    """Copy what others have put into a directory that is about to be replaced."""
    own = _own(old)
    for path in old.iterdir() if own else ():
        if path.name in own or (new / path.name).exists():
            continue
        if path.is_dir() and not path.is_symlink():
            shutil.copytree(path, new / path.name, symlinks=True)
        else:
            shutil.copy2(path, new / path.name, follow_symlinks=False)


def _replace(new: Path, directory: Path) -> None:
    old = new.with_name(new.name + ".old")
    replaced = directory.exists()
    if replaced:
        directory.rename(old)
    try:
        new.rename(directory)
    except OSError:
        if replaced:
            old.rename(directory)
        raise
    for stale in _moved_away(directory):
        shutil.rmtree(stale, ignore_errors=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    """Through to the disk: which names the directory holds."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def delete_directory(directory: Path) -> None:
    """Delete what `write_directory` wrote, so that a kill on the way leaves nothing of it under its name."""
    away = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        directory.rename(away)
        shutil.rmtree(away)


def clear_leftovers(folder: Path) -> None:
    """Finish what a killed process left half-written or half-deleted in `folder`; nobody else may write there."""
    leftovers = sorted(folder.glob(f".*.{'[0-9a-f]' * 8}*"))
    for leftover in leftovers:
        if leftover.suffix == ".old":
            recover(folder / leftover.name[1 : -len(".01234567.old")])
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _moved_away(directory: Path) -> list[Path]:
    """What `_replace` moved aside of this directory and, killed before its end, did not delete."""
    return sorted(directory.parent.glob(f".{glob.escape(directory.name)}.*.old")) if directory.name else []


def recover(directory: Path) -> None:
    """Put the old directory back where the process was killed before the new one stood in its place."""
    if not directory.exists():
        for old in _moved_away(directory)[-1:]:
            old.rename(directory)


def read_directory(directory: Path, mend: str) -> dict[str, bytes]:
    """Every file of the manifest, checked against it; ModelError, ending in `mend`, for what is missing or altered."""
    try:
        manifest = dict(json.loads((directory / MANIFEST).read_bytes()))
        files = {name: (directory / name).read_bytes() for name in manifest}
    except FileNotFoundError as error:
        raise ModelError(f"{directory}: incomplete, {Path(error.filename).name} is missing; {mend}") from None
    except OSError as error:
        raise ModelError(f"{directory}: cannot be read ({first_line(error)}); {mend}") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{directory / MANIFEST}: is damaged ({first_line(error)}); {mend}") from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest[name]:
            raise ModelError(f"{directory / name}: differs from its checksum in {MANIFEST}; {mend}")
    return files
