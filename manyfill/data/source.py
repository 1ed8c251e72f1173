"""From the paths a user gives to one numbered row of pictures."""

import os
from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from manyfill.data.coco import read_coco
from manyfill.data.folder import FolderSource, files_below, is_picture
from manyfill.data.imagefolder import METADATA, read_metadata
from manyfill.data.pictures import PictureFiles
from manyfill.data.shards import ShardSource
from manyfill.data.table import read_table
from manyfill.errors import ConfigError, DataError

LISTS = (".json", ".csv")


class JoinedSource(PictureFiles):
    """Several sources, one after the other."""

    def __init__(self, parts: Sequence[PictureFiles]):
        self._parts = parts
        self._ends = list(accumulate(len(part) for part in parts))

    @property
    def root(self) -> Path:
        return Path(os.path.commonpath([part.root for part in self._parts]))

    def __len__(self) -> int:
        return self._ends[-1]

    def _locate(self, index: int) -> tuple[PictureFiles, int]:
        if not 0 <= index < len(self):
            raise IndexError(index)
        part = bisect_right(self._ends, index)
        return self._parts[part], index - (self._ends[part - 1] if part else 0)

    def name(self, index: int) -> str:
        part, local = self._locate(index)
        return part.name(local)

    def file(self, index: int) -> Path | bytes:
        part, local = self._locate(index)
        return part.file(local)

    def captions(self, index: int) -> list[str]:
        part, local = self._locate(index)
        return part.captions(local)


def open_source(*paths: Path | str, images: Path | None = None, arrays: bool = False) -> PictureFiles:
    """All pictures of the given paths in order: folders (searched through), .tar shards, and lists of pictures with
    captions, COCO's .json or a .csv.

    A folder is taken whole, the shards in it too: where train and test shards lie side by side, name the shards. Where
    a metadata.jsonl lies in it, that gives the captions of what it lists. `images` is the folder of the pictures that
    a list names; `arrays` takes .npy files in folders for pictures too. DataError for a path that is missing, of
    another kind or without pictures, ConfigError for `images` of what is no such list.
    """
    if not paths:
        raise DataError("no data given; name a folder of pictures or .tar shards")
    if images is not None and not all(Path(path).suffix.lower() in LISTS for path in paths):
        raise ConfigError(f"--images {images}: goes with a captions .json or .csv only; drop it")
    return JoinedSource([part for path in paths for part in _parts(Path(path), images, arrays)])


def _parts(path: Path, images: Path | None, arrays: bool) -> list[PictureFiles]:
    kind = path.suffix.lower()
    if path.is_dir():
        parts = _folder_parts(path, arrays)
    elif kind == ".tar" and path.is_file():
        parts = [ShardSource(path)]
    elif kind == ".json" and path.is_file():
        parts = [read_coco(path, images)]
    elif kind == ".csv" and path.is_file():
        parts = [read_table(path, images)]
    elif path.exists():
        raise DataError(
            f"{path}: neither a folder, a .tar shard nor a list (.json, .csv); give the folder that holds the pictures"
        )
    else:
        raise DataError(f"{path}: no such folder or .tar shard; check the path")
    if not any(map(len, parts)):
        raise DataError(f"{path}: no pictures in it; give a folder or .tar shard that holds JPEG, PNG or WebP files")
    return parts


def _folder_parts(root: Path, arrays: bool) -> list[PictureFiles]:
    """Pictures that no list names, then the shards, then the pictures of each list."""
    files = files_below(root)
    bare = [(file, file.rpartition("/")[2]) for file in files]
    shards = [ShardSource(root / file) for file, name in bare if name.lower().endswith(".tar") and name[0] != "."]
    lists = [read_metadata(root / file) for file, name in bare if name == METADATA]
    listed = {path for source in lists for path in source.within(root)}
    pictures = (file for file, name in bare if is_picture(name, arrays) and file not in listed)
    return [FolderSource(root, pictures), *shards, *lists]
