"""The pictures to fill, each with its mask and the folder that its fills go to.

A picture goes by its path within IN, or as a list names it, "a/cat.jpg", and its stem is "a/cat"; what is 0001.jpg in
the shard x.tar of a folder is "x/0001.jpg". The mask of the same stem within --masks is its mask.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path, PurePosixPath

from manyfill.bulk.job import Job
from manyfill.caption import Caption
from manyfill.data import open_source
from manyfill.data.captions import captions_at, first_caption
from manyfill.data.folder import is_picture
from manyfill.data.pictures import PictureFiles
from manyfill.data.strings import printable
from manyfill.errors import DataError, PictureError
from manyfill.images import Picture, open_picture
from manyfill.inputs import Subject, own_mask, read

UNCAPTIONED_NOTE = "the picture has no caption: the model is told nothing of it"
TRANSPARENT, ONE, EACH = "transparent pixels", "one for all", "one for each"


class Pictures:
    """A job's pictures by number, with their holes and what is said of them; DataError where there are none, or no
    masks or captions for any. `example` is one of the captions."""

    def __init__(self, job: Job) -> None:
        masks, self._max_pixels, self._guidance = job.masks, job.max_pixels, job.guidance
        self._source, self.names = _open(job.pictures, job.images)
        self.folders = folders(self.names)
        self.example = Caption(first_caption(self._source), job.guidance) if job.captions else None
        self.kind = (
            TRANSPARENT if masks is None else ONE if masks.is_file() and is_picture(masks.name, arrays=True) else EACH
        )
        self._mask = self._masks(masks)

    def __len__(self) -> int:
        return len(self.names)

    def read(self, number: int) -> Subject:
        """The picture with its hole and caption; PictureError where one of them cannot be used."""
        picture = self._source.picture(number, self._max_pixels)
        mask = self._mask(self.names[number])
        if mask is None and own_mask(picture) is None:
            raise PictureError(f"{picture.name}: has no transparent pixels to fill; name its mask with --masks")
        caption = self._caption(number)
        if self.example and not caption:
            picture = replace(picture, notes=(*picture.notes, UNCAPTIONED_NOTE))
        return read(picture, mask, caption=caption)

    def _caption(self, number: int) -> Caption | None:
        captions = captions_at(self._source, number) if self.example else []
        return Caption(captions[0], self._guidance) if captions else None

    def _masks(self, path: Path | None) -> Callable[[str], Picture | None]:
        """A function from a picture's name to its mask, None for its transparent pixels; raises PictureError."""
        if path is None:
            return lambda _: None
        if not path.exists():
            raise DataError(f"--masks {path}: no such mask file, folder or .tar shard; check the path")
        if self.kind == ONE:
            mask = open_picture(path, max_pixels=self._max_pixels)
            return lambda _: mask
        masks = _MaskFolder(path, self._max_pixels)
        if not any(map(masks.numbers.get, map(stem, self.names))):
            raise DataError(
                f"--masks {path}: holds a mask for none of the {len(self)} pictures; name each mask as its picture, "
                f"such as {stem(self.names[0])}.png for {self.names[0]}"
            )
        return masks


class _MaskFolder:
    """Masks by the stem of their picture."""

    def __init__(self, path: Path, max_pixels: int) -> None:
        try:
            self._source, self._names = _open(path)
        except DataError as error:
            raise DataError(f"--masks {error}") from None
        self._path, self._max_pixels = path, max_pixels
        self.numbers: dict[str, list[int]] = {}
        for number, name in enumerate(self._names):
            self.numbers.setdefault(stem(name), []).append(number)

    def __call__(self, name: str) -> Picture:
        found = self.numbers.get(stem(name), [])
        # Of the masks cat.png and cat.jpg, the picture cat.jpg has the latter.
        found = [number for number in found if self._names[number] == name] or found
        if not found:
            raise PictureError(f"{name}: has no mask in {self._path}; save it there as {stem(name)}.png")
        if len(found) > 1:
            several = " and ".join(self._names[number] for number in found)
            raise PictureError(f"{name}: has more than one mask in {self._path} ({several}); keep one")
        return self._source.picture(found[0], self._max_pixels)


def _open(path: Path, images: Path | None = None) -> tuple[PictureFiles, list[str]]:
    """The pictures of a folder, shard or list, and their paths within the folder or shard."""
    source = open_source(path, images=images, arrays=True)
    root = Path(printable(str(source.root)))
    return source, [_within(Path(source.name(number)), root) for number in range(len(source))]


def _within(name: Path, root: Path) -> str:
    parts = name.relative_to(root).parts if name.is_relative_to(root) else ()
    if not parts or ".." in parts:  # a tar and a list can hold any name
        raise DataError(f"{name}: names a place outside of {root}; rename it in the shard or list")
    *shards, last = parts
    return "/".join([*(part.removesuffix(".tar") for part in shards), last])


def stem(name: str) -> str:
    """A path without the extension of its last part."""
    return str(PurePosixPath(name).with_suffix(""))


def folders(names: Sequence[str]) -> list[str]:
    """A folder for each picture: its stem, or its whole name where others share the stem or lie below it; DataError."""
    stems = [stem(name) for name in names]
    taken, parents = Counter(stems), set[str]()
    for path in stems:
        while (path := path.rpartition("/")[0]) and path not in parents:
            parents.add(path)
    chosen = [name if taken[path] > 1 or path in parents else path for name, path in zip(names, stems, strict=True)]
    again = Counter(chosen)
    for name, folder in zip(names, chosen, strict=True):
        if again[folder] > 1 or folder in parents:
            raise DataError(f"{name}: another picture would be filled into {folder} too; rename one of them")
    return chosen
