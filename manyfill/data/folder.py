"""A folder of pictures, read recursively; captions stand one per line in a `.txt` of the same stem beside a picture."""

import os
from pathlib import Path

from manyfill.data.batch import Example
from manyfill.errors import DataError
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture

EXTENSIONS = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})


def is_picture(name: str) -> bool:
    """Whether a bare file name is a picture's; hidden files (macOS leaves `._photo.jpg` about) are not."""
    return not name.startswith(".") and os.path.splitext(name)[1].lower() in EXTENSIONS


def parse_captions(text: bytes) -> list[str]:
    """One caption per line, empty lines dropped."""
    lines = (line.strip() for line in text.decode("utf-8", errors="replace").splitlines())
    return [line for line in lines if line]


def files_below(root: Path) -> list[Path]:
    """All files under `root`, sorted by relative path; DataError where a folder in it may not be read."""

    def refuse(error: OSError) -> None:
        raise DataError(
            f"{error.filename}: cannot list this folder ({error.strerror}); allow reading it or move it away"
        )

    found = [Path(at, name) for at, _, names in os.walk(root, onerror=refuse) for name in names]
    return sorted(found, key=lambda path: path.relative_to(root).as_posix())


class FolderSource:
    """The given picture files, in the given order."""

    def __init__(self, paths: list[Path]):
        self._paths = paths

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return str(self._paths[index])

    def picture(self, index: int, max_pixels: int = DEFAULT_MAX_PIXELS) -> Picture:
        """The decoded picture; PictureError."""
        return open_picture(self._paths[index], name=self.name(index), max_pixels=max_pixels)

    def __getitem__(self, index: int) -> Example:
        try:
            captions = parse_captions(self._paths[index].with_suffix(".txt").read_bytes())
        except OSError:
            captions = []
        return Example(self.picture(index).pixels, captions, self.name(index))
