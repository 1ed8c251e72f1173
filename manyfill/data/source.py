"""From the paths a user gives to one numbered row of pictures."""

from bisect import bisect_right
from itertools import accumulate
from pathlib import Path

from manyfill.data.batch import Example, Source
from manyfill.data.folder import FolderSource, files_below, is_picture
from manyfill.data.shards import ShardSource
from manyfill.errors import DataError
from manyfill.images import DEFAULT_MAX_PIXELS, Picture


class JoinedSource:
    """Several sources of picture files, one after the other."""

    def __init__(self, parts: list[FolderSource | ShardSource]):
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, index: int) -> tuple[FolderSource | ShardSource, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        part, local = self._locate(index)
        return part.name(local)

    def picture(self, index: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """The decoded picture, its transparency included; PictureError."""
        part, local = self._locate(index)
        return part.picture(local, max_pixels)

    def __getitem__(self, index: int) -> Example:
        part, local = self._locate(index)
        return part[local]


def open_source(*paths: Path | str) -> Source:
    """All pictures of the given paths in order: folders (searched through; their .tar shards count too) and .tar files.

    A folder is taken whole: where train and test shards lie side by side, name the shards. DataError for a path that
    is missing, of another kind or without pictures.
    """
    if not paths:
        raise DataError("no data given; name a folder of pictures or .tar shards")
    return JoinedSource([part for path in paths for part in _parts(Path(path))])


def _parts(path: Path) -> list[FolderSource | ShardSource]:
    if path.is_dir():
        files = files_below(path)
    elif path.suffix.lower() == ".tar" and path.is_file():
        files = [path]
    elif path.exists():
        raise DataError(f"{path}: neither a folder nor a .tar shard; give the folder that holds the pictures")
    else:
        raise DataError(f"{path}: no such folder or .tar shard; check the path")
    shards = [file for file in files if file.suffix.lower() == ".tar" and not file.name.startswith(".")]
    pictures = [file for file in files if is_picture(file.name)]
    parts: list[FolderSource | ShardSource] = [FolderSource(pictures), *map(ShardSource, shards)]
    if not any(map(len, parts)):
        raise DataError(f"{path}: no pictures in it; give a folder or .tar shard that holds JPEG, PNG or WebP files")
    return parts
