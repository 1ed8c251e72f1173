"""WebDataset tar shards (KEY.jpg, KEY.txt), read at random through an index: any picture, without its neighbours."""

from pathlib import Path

from manyfill.data.folder import parse_captions
from manyfill.data.index import shard_index
from manyfill.data.pictures import PictureFiles
from manyfill.data.strings import printable
from manyfill.errors import PictureError


class ShardSource(PictureFiles):
    """The pictures of one tar shard; DataError if it is none."""

    def __init__(self, path: Path):
        self._path, self._index = path, shard_index(path)

    @property
    def root(self) -> Path:
        return self._path

    def __len__(self) -> int:
        return len(self._index.members)

    def name(self, index: int) -> str:
        return printable(f"{self._path}/{self._index.members[index]}")

    def file(self, index: int) -> bytes:
        return self._read(index, *self._index.spans[index, :2])

    def captions(self, index: int) -> list[str]:
        offset, size = self._index.spans[index, 2:]
        return parse_captions(self._read(index, offset, size)) if size > 0 else []

    def _read(self, index: int, offset: int, size: int) -> bytes:
        # The file is opened anew each time: nothing is shared between worker processes, and decoding costs more.
        try:
            with self._path.open("rb") as file:
                file.seek(offset)
                return file.read(size)
        except OSError as error:
            raise PictureError(f"{self.name(index)}: cannot be read ({error.strerror}); check the shard") from None
