"""A folder of pictures, read recursively; captions stand one per line in a `.txt` of the same stem beside a picture."""

import os
from collections.abc import Iterable
from pathlib import Path

from manyfill.data.pictures import PictureFiles
from manyfill.data.strings import Strings, printable
from manyfill.errors import DataError

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})


def is_picture(name: str, arrays: bool = False) -> bool:
    """Whether a bare file name is a picture's, or a saved array's; hidden files (macOS's `._photo.jpg`) are not."""
    extension = os.path.splitext(name)[1].lower()
    return not name.startswith(".") and (extension in EXTENSIONS or (arrays and extension == ".npy"))


def parse_captions(text: bytes) -> list[str]:
    """One caption per line, empty lines dropped."""
    lines = (line.strip() for line in text.decode("utf-8-sig", errors="replace").splitlines())
    return [line for line in lines if line]


def files_below(root: Path) -> list[str]:
    """All files under `root` by their paths within it, sorted; DataError where a folder in it may not be read."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot list this folder ({error.strerror}); allow reading it or move it away"
        )

    found: list[str] = []
    for at, _, names in os.walk(root, onerror=refuse):
        within = os.path.relpath(at, root).replace(os.sep, "/")
        found += names if within == "." else [f"{within}/{name}" for name in names]
    return sorted(found)


class FolderSource(PictureFiles):
    """The picture files of the given paths within `root`, in the given order."""

    def __init__(self, root: Path, paths: Iterable[str]):
        self._root, self._paths = root, Strings.of(paths)

    @property
    def root(self) -> Path:
        return self._root

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return printable(str(self.file(index)))

    def file(self, index: int) -> Path:
        return self._root / self._paths[index]

    def captions(self, index: int) -> list[str]:
        try:
            return parse_captions(self.file(index).with_suffix(".txt").read_bytes())
        except OSError:
            return []
