"""A result while it is kept: the picture once, and of every fill only what lies in the rectangle around the hole.

Legend: H W the picture's size, h w that of the hole's box, C channels, N fills.
"""

import io
import json
import zipfile
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from manyfill import __version__
from manyfill.completions import Completions
from manyfill.encode import Encoding
from manyfill.images import png_bytes
from manyfill.inputs import Subject
from manyfill.web.words import plain

View = Literal["picture", "hole"]
Box = tuple[slice, slice]
RECORD, ARCHIVE, PICTURE, MASK, SHEET = "fill.json", "all.zip", "picture.png", "mask.png", "sheet.png"
TYPES = {
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".webp": "image/webp",
    ".tif": "image/tiff",
    ".gif": "image/gif",
    ".bmp": "image/bmp",
    ".ppm": "image/x-portable-pixmap",
    ".npy": "application/octet-stream",
    ".zip": "application/zip",
    ".json": "application/json",
}


def hole_box(hole: np.ndarray) -> Box:
    """Rows and columns of the smallest rectangle around all that is missing; of the whole where nothing is."""
    rows, columns = (np.flatnonzero(hole.any(axis)) for axis in (1, 0))
    if not len(rows):
        return slice(0, hole.shape[0]), slice(0, hole.shape[1])
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def volume(subject: Subject, n: int, view: View) -> int:
    """Pixels of n fills."""
    hole = subject.hole
    return n * (hole[hole_box(hole)] if view == "hole" else hole).size


def weight(subject: Subject) -> int:
    """Bytes of a picture with its hole."""
    return subject.picture.pixels.nbytes + subject.hole.nbytes + subject.original.values.nbytes


@dataclass(frozen=True, eq=False)
class Result:
    """A picture, and its fills in the hole's box (N times (h, w, C)): `part` is a picture by itself.

    `steps` are what was asked for, from the first fill on: all it takes, with picture and mask, to draw it again.
    `encoding` is how its files are written.
    """

    subject: Subject
    box: Box
    part: Completions
    steps: tuple[dict[str, Any], ...]
    encoding: Encoding

    @property
    def n(self) -> int:
        return len(self.part.images)

    @property
    def nbytes(self) -> int:
        latents = (z.nbytes for fill in self.part.fills for z in fill.latents)
        images = (array.nbytes for array in (*self.part.images, self.part.mean, self.part.std))
        return weight(self.subject) + sum(images) + sum(latents)

    def whole(self, fills: Iterable[int] | None = None) -> Completions:
        """The fills at the picture's size: all of them, or those of these numbers."""
        part, subject = self.part, self.subject
        std = np.zeros(subject.hole.shape, np.float32)
        std[self.box] = part.std
        return replace(
            part,
            images=[self._pasted(part.images[i]) for i in (range(self.n) if fills is None else fills)],
            mean=self._pasted(part.mean),
            std=std,
            picture=subject.picture.pixels,
            mask=subject.hole,
            original=subject.original,
        )

    def _pasted(self, pixels: np.ndarray) -> np.ndarray:
        image = self.subject.picture.pixels.copy()
        image[self.box] = pixels
        return image

    # ------------------------------------------------------------------------------------------- what is sent

    def frame(self, view: View) -> dict[str, Any]:
        """Where a view lies in the picture, as JSON can hold it."""
        height, width = self.subject.hole.shape
        rows, columns = self.box if view == "hole" else (slice(0, height), slice(0, width))
        place = {"top": rows.start, "left": columns.start}
        size = {"height": rows.stop - rows.start, "width": columns.stop - columns.start}
        return {"size": {"height": height, "width": width}, "view": place | size}

    def png(self, name: str, view: View) -> bytes:
        """A fill ("fill-00", ...), "mean", a quantile or "std": the file as PNG, or what lies in the hole alone."""
        if view == "hole":
            hole = self.part.mask[..., None]
            pixels = self.part.uncertainty() if name == "std" else self.part.pictures()[name]
            return png_bytes(np.concatenate([pixels * hole, hole * np.uint8(255)], -1))
        if name == "std":
            return png_bytes(self.whole([]).uncertainty())
        return self._encoded(name, Encoding("png"))

    def _encoded(self, name: str, encoding: Encoding) -> bytes:
        return encoding.encode(self.subject.original, self._pasted(self.part.pictures()[name]), self.subject.hole)

    def record(self, files: Iterable[str] = ()) -> dict[str, Any]:
        """All that is not a picture, without paths of this machine."""
        part = replace(self.part, mask=self.subject.hole, original=self.subject.original)
        found = part.noted(self.encoding).record()
        found |= {"model": public_name(found["model"]), "notes": [plain(note) for note in found["notes"]]}
        return {"manyfill": __version__, **found, "steps": list(self.steps), "files": list(files)}

    def files(self) -> dict[str, bytes]:
        """The very files that the command line writes, and the record."""
        files = dict(self.whole().files(self.encoding))
        return files | {RECORD: as_json(self.record([*files, RECORD]))}

    def file(self, name: str) -> bytes | None:
        """One of these files, also as PNG, the picture or its mask, or all in a zip file; None if there is none."""
        alpha, pixels = self.subject.picture.alpha, self.subject.picture.pixels
        if name == PICTURE:
            return png_bytes(pixels if alpha is None else np.dstack([pixels, alpha]))
        if name == MASK:
            return png_bytes(self.subject.hole[..., None] * np.uint8(255))
        if name == ARCHIVE:
            return archive({own: self.file(own) or b"" for own in (PICTURE, MASK)} | self.files())
        if name == RECORD:
            return as_json(self.record())
        if name == SHEET:
            return png_bytes(self.whole().sheet())
        stem, suffix = Path(name).stem, Path(name).suffix
        if stem == "std":
            return dict(self.whole([]).deviations(self.encoding)).get(name)
        if suffix == ".png" and stem in self.part.pictures():
            return self.png(stem, "picture")
        if suffix == self.encoding.suffix(self.subject.original) and stem in self.part.pictures():
            return self._encoded(stem, self.encoding)
        return None


def public_name(model: str) -> str:
    """A model's name for others: of a directory on this machine only the last part."""
    return Path(model).name if Path(model).exists() else model


def archive(files: dict[str, bytes]) -> bytes:
    """A zip file; what is in it is compressed already, and the same content makes the same bytes."""
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as zip:
            for name, content in files.items():
                zip.writestr(zipfile.ZipInfo(name), content)
        return buffer.getvalue()


def as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()
