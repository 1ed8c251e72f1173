"""The index of a tar shard: where each picture and its captions lie, found in one pass and kept beside the shard.

The index of `x.tar` is `x.tar.index`, a safetensors file, which holds arrays and text and nothing that could run. It
says the size and the time of the tar it was made from and carries a checksum; one that does not match in all of that is
made anew. Where nothing can be written the index lives in memory alone, and is made again by the next process.
"""

import hashlib
import tarfile
from array import array
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from manyfill.data.folder import is_picture
from manyfill.data.strings import Strings
from manyfill.errors import DataError, OutputError
from manyfill.files import save_bytes

LAYOUT = "manyfill tar index 1"


@dataclass(frozen=True)
class ShardIndex:
    """N pictures of a shard: their names in it, and spans int64 (N, 4): offset and size of picture and captions.

    A picture without captions has 0 for both.
    """

    members: Strings
    spans: np.ndarray


def index_path(shard: Path) -> Path:
    return shard.with_name(f"{shard.name}.index")


def shard_index(shard: Path) -> ShardIndex:
    """The index of a shard, from beside it or made anew; DataError if it is no whole, uncompressed tar."""
    try:
        state = shard.stat()
    except OSError as error:
        raise DataError(f"{shard}: cannot be read ({error.strerror}); check its path and permissions") from None
    # Taken before the pass, so that a tar that is written to in the meantime does not match its index.
    stamp = {"layout": LAYOUT, "size": str(state.st_size), "time": str(state.st_mtime_ns)}
    index = _stored(index_path(shard), stamp)
    if index is None:
        index = read_headers(shard)
        with suppress(OutputError):
            save_bytes(index_path(shard), _packed(index, stamp))
    return index


def _packed(index: ShardIndex, stamp: dict[str, str]) -> bytes:
    tensors = {"letters": index.members.letters, "ends": index.members.ends, "spans": index.spans}
    return safetensors.numpy.save(tensors, {**stamp, "checksum": _checksum(index)})


def _stored(path: Path, stamp: dict[str, str]) -> ShardIndex | None:
    """The index in this file, or None if there is none that is whole and of this stamp."""
    try:
        with safe_open(path, "numpy") as file:
            noted = dict(file.metadata() or {})
            checksum = noted.pop("checksum", "")
            if noted != stamp:
                return None
            letters, ends, spans = map(file.get_tensor, ("letters", "ends", "spans"))
    except (OSError, SafetensorError):
        return None
    index = ShardIndex(Strings(letters, ends), spans)
    return index if checksum == _checksum(index) and _sound(index, int(stamp["size"])) else None


def _sound(index: ShardIndex, size: int) -> bool:
    """Whether the arrays fit one another, and a tar of `size` bytes: a checksum can be made for anything."""
    letters, ends, spans = index.members.letters, index.members.ends, index.spans
    typed = letters.dtype == np.uint8 and ends.dtype == spans.dtype == np.int64
    if not typed or letters.ndim != 1 or ends.ndim != 1 or spans.shape != (len(ends), 4):
        return False
    rising = bool((np.diff(ends, prepend=0) >= 0).all()) and (ends[-1] if len(ends) else 0) == len(letters)
    offsets, sizes = spans[:, ::2], spans[:, 1::2]
    return rising and bool(((offsets >= 0) & (sizes >= 0) & (offsets <= size - sizes)).all())


def _checksum(index: ShardIndex) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for values in (index.members.letters, index.members.ends, index.spans):
        digest.update(f"{values.dtype}{values.shape}".encode())
        digest.update(np.ascontiguousarray(values).data)
    return digest.hexdigest()


def read_headers(shard: Path) -> ShardIndex:
    """The pictures of an uncompressed tar in the order in which they lie in it; DataError if it is not one.

    A picture and a `.txt` belong together when their names agree up to the last dot.
    """
    spans, texts = array("q"), dict[str, tuple[int, int]]()
    try:
        with tarfile.open(shard, "r:") as tar:
            members = Strings.of(_pictures(tar, spans, texts))
            _check_end(tar)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise DataError(f"{shard}: not a whole, uncompressed tar ({error}); unpack it or copy it again") from None
    table = np.array(spans, np.int64).reshape(-1, 4)
    for row, name in enumerate(members if texts else ()):
        table[row, 2:] = texts.get(name.rpartition(".")[0], (0, 0))
    return ShardIndex(members, table)


def _pictures(tar: tarfile.TarFile, spans: "array[int]", texts: dict[str, tuple[int, int]]) -> Iterator[str]:
    """Yield the pictures' names, and note their spans and, by name without suffix, the places of texts."""
    while (member := tar.next()) is not None:
        tar.members.clear()  # type: ignore[attr-defined]  # which would grow with the shard
        if member.size < 0:  # would lead in a circle
            raise tarfile.ReadError(f"damaged at byte {member.offset:,}")
        if not member.isreg() or member.issparse():
            continue
        name, place = str(PurePosixPath(member.name)), (member.offset_data, member.size)
        if is_picture(name.rpartition("/")[2]):
            spans.extend((*place, 0, 0))
            yield name
        elif name.endswith(".txt"):
            texts[name.removesuffix(".txt")] = place


def _check_end(tar: tarfile.TarFile) -> None:
    """tarfile takes a damaged header for the end of the tar; the true end is a block of zeros, or the file's own."""
    file: BinaryIO = tar.fileobj  # type: ignore[assignment]
    file.seek(tar.offset)
    if any(file.read(tarfile.BLOCKSIZE)):
        raise tarfile.ReadError(f"damaged at byte {tar.offset:,}")
