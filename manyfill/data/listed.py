"""Pictures that a list names, with the captions that it gives them."""

import os
import posixpath
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath

from manyfill.data.folder import is_picture
from manyfill.data.pictures import PictureFiles
from manyfill.data.strings import Strings, printable
from manyfill.errors import DataError, PictureError

NAMED = 3


class ListedSource(PictureFiles):
    """Pictures by their paths within `folder`, in order, and each one's captions; a path that leads out is refused."""

    def __init__(self, folder: Path, captions: Mapping[str, Sequence[str]]):
        self._folder = folder
        self._paths = Strings.of(map(_written, captions))
        self._captions = Strings.of(
            "\n".join(" ".join(_written(caption).split()) for caption in of) for of in captions.values()
        )

    @property
    def root(self) -> Path:
        return self._folder

    def __len__(self) -> int:
        return len(self._paths)

    def name(self, index: int) -> str:
        return printable(str(self._folder / self._paths[index]))

    def file(self, index: int) -> Path:
        path = PurePosixPath(self._paths[index])
        if path.is_absolute() or ".." in path.parts:
            raise PictureError(f"{self.name(index)}: leads out of {self._folder}; list pictures within that folder")
        return self._folder / path

    def within(self, root: Path) -> Iterator[str]:
        """The pictures' paths within `root`, which holds the folder."""
        folder = self._folder.relative_to(root).as_posix()
        for path in self._paths:
            yield posixpath.normpath(f"{folder}/{path}")

    def captions(self, index: int) -> list[str]:
        return [caption for caption in self._captions[index].split("\n") if caption]


def _written(text: str) -> str:
    """The text as UTF-8 can hold it: JSON may name halves of a character."""
    return text.encode("utf-8", "replace").decode()


def folder_of(
    path: Path,
    candidates: Sequence[Path],
    names: Sequence[str],
    files_in: Callable[[Path], Sequence[str]] = os.listdir,
    mend: str = "put it beside them, or where there is an --images, name their folder with it",
) -> Path:
    """The first of the folders that holds a picture of a list; DataError with the first names of both sides and the
    `mend` if none does. A few pictures may be missing, so any one of them is proof enough."""
    for folder in candidates:
        if any(_is_file(folder / name) for name in names):
            return folder
    there = [name for folder in dict.fromkeys(candidates) if folder.is_dir() for name in sorted(files_in(folder))]
    pictures = [name for name in there if is_picture(name.rpartition("/")[2])]
    told = ", ".join(map(str, candidates))
    raise DataError(
        f"{path}: none of its {len(names):,} pictures{_first(names)} is among the {len(pictures):,} in "
        f"{told}{_first(pictures)}; {mend}"
    )


def _first(names: Sequence[str]) -> str:
    shown = ", ".join(map(printable, names[:NAMED]))
    return f" ({shown}{', ...' if len(names) > NAMED else ''})" if names else ""


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False
