"""WebDataset tar shards (KEY.jpg, KEY.txt), read at random through an index of our own.

Offsets come from one pass over the headers when a shard is opened, so any picture can be read without its
neighbours, and the position in an epoch is a plain number.
"""

import tarfile
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from manyfill.data.batch import Example
from manyfill.data.folder import is_picture, parse_captions
from manyfill.errors import DataError, PictureError
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture


@dataclass(frozen=True)
class Span:
    """Where a member's bytes lie in its shard."""

    offset: int
    size: int


@dataclass(frozen=True)
class Entry:
    """A picture in a shard, and its captions' place if it has any."""

    member: str
    picture: Span
    captions: Span | None


def index_shard(path: Path) -> list[Entry]:
    """The pictures of an uncompressed tar in the order in which they lie in it; DataError if it is not one.

    A picture and a `.txt` belong together when their names agree up to the last dot.
    """
    pictures: list[tuple[PurePosixPath, Span]] = []
    texts: dict[PurePosixPath, Span] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isreg() or member.issparse():
                    continue
                name, span = PurePosixPath(member.name), Span(member.offset_data, member.size)
                if is_picture(name.name):
                    pictures.append((name, span))
                elif name.suffix == ".txt":
                    texts[name] = span
    except (tarfile.TarError, OSError) as error:
        raise DataError(f"{path}: not a whole, uncompressed tar ({error}); unpack it or copy it again") from error
    return [Entry(str(name), span, texts.get(name.with_suffix(".txt"))) for name, span in pictures]


def _read(file: BinaryIO, span: Span) -> bytes:
    file.seek(span.offset)
    return file.read(span.size)


class ShardSource:
    """The pictures of one tar shard."""

    def __init__(self, path: Path):
        self._path = path
        self._entries = index_shard(path)

    def __len__(self) -> int:
        return len(self._entries)

    def name(self, index: int) -> str:
        return f"{self._path}/{self._entries[index].member}"

    def picture(self, index: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """The decoded picture; PictureError."""
        content = self._bytes(index, self._entries[index].picture)
        return open_picture(content, name=self.name(index), max_pixels=max_pixels)

    def __getitem__(self, index: int) -> Example:
        captions = self._entries[index].captions
        lines = parse_captions(self._bytes(index, captions)) if captions else []
        return Example(self.picture(index).pixels, lines, self.name(index))

    def _bytes(self, index: int, span: Span) -> bytes:
        # The file is opened anew each time: nothing is shared between worker processes, and decoding costs more.
        try:
            with self._path.open("rb") as file:
                return _read(file, span)
        except OSError as error:
            raise PictureError(f"{self.name(index)}: cannot be read ({error.strerror}); check the shard") from error
