"""What happens off the event loop: pictures are decoded, fills drawn and encoded. The steps are those of `Filler`.

Legend: H W the picture's size, N fills. A view is a picture's part that is sent: all of it, or the box of its hole.
"""

import io
import json
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np

from manyfill import __version__
from manyfill.completions import Completions, Timings
from manyfill.crop import Box
from manyfill.errors import PictureError
from manyfill.images import Picture, open_picture, png_bytes
from manyfill.inputs import Sampling, Subject, read
from manyfill.pipeline import Drawn, Filler, Shown

View = Literal["picture", "hole"]
RECORD, ARCHIVE, PICTURE, MASK = "fill.json", "all.zip", "picture.png", "mask.png"


def open_subject(image: bytes, mask: bytes | None, max_pixels: int) -> Subject:
    """Decode what was sent; PictureError."""
    picture = open_picture(image, name="image", max_pixels=max_pixels)
    if mask is None and picture.alpha is None:
        raise PictureError("mask: is missing, and the image has no transparent pixels to fill; send a mask")
    return read(picture, None if mask is None else open_picture(mask, name="mask", max_pixels=max_pixels))


def nbytes(subject: Subject) -> int:
    """What a subject holds of memory."""
    alpha = subject.picture.alpha
    return subject.picture.pixels.nbytes + subject.hole.nbytes + (0 if alpha is None else alpha.nbytes)


def hole_box(hole: np.ndarray) -> tuple[slice, slice]:
    """Rows and columns of the smallest rectangle around all that is missing; the whole picture where nothing is."""
    if not hole.any():
        return slice(0, hole.shape[0]), slice(0, hole.shape[1])
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    return slice(int(rows[0]), int(rows[-1]) + 1), slice(int(columns[0]), int(columns[-1]) + 1)


def volume(subject: Subject, n: int, view: View) -> int:
    """Pixels of n fills."""
    rows, columns = hole_box(subject.hole) if view == "hole" else map(slice, (0, 0), subject.hole.shape)
    return n * (rows.stop - rows.start) * (columns.stop - columns.start)


@dataclass(frozen=True, eq=False)
class Result:
    """Fills of one picture at the model's size, and the picture to paste them into."""

    subject: Subject
    sampling: Sampling
    shown: Shown | None
    drawn: Drawn | None

    @property
    def nbytes(self) -> int:
        tensors = [self.drawn.x, *self.drawn.latents] if self.drawn else []
        return nbytes(self.subject) + sum(t.nbytes for t in tensors)

    def completions(self, filler: Filler, view: View = "picture") -> Completions:
        """All fills at the picture's size, or of the hole's box alone."""
        seconds = self.drawn.seconds if self.drawn else 0.0
        subject, shown = self.subject, self.shown
        if view == "hole" and shown:
            subject, shown = _within(subject, shown, hole_box(subject.hole))
        return filler.complete(subject, shown, self.drawn, self.sampling, Timings(seconds, 0.0, seconds))

    def only(self, index: int) -> "Result":
        """The same with one of its fills alone."""
        part = slice(index, index + 1)
        drawn = self.drawn and replace(self.drawn, x=self.drawn.x[part], latents=[z[part] for z in self.drawn.latents])
        return replace(self, drawn=drawn, sampling=replace(self.sampling, n=1))


def _within(subject: Subject, shown: Shown, part: tuple[slice, slice]) -> tuple[Subject, Shown]:
    """A part of a picture, to be pasted into by itself."""
    picture, box = subject.picture, shown.box
    alpha = None if picture.alpha is None else picture.alpha[part]
    cut = Subject(Picture(picture.pixels[part], alpha, picture.name, picture.notes), subject.hole[part])
    return cut, replace(shown, box=Box(box.top - part[0].start, box.left - part[1].start, box.side))


def filled(filler: Filler, subject: Subject, sampling: Sampling) -> Iterator[Result]:
    """The result in portions."""
    shown = filler.show(subject)
    drawn = filler.draw([shown], sampling)[0] if shown else None
    yield Result(subject, sampling, shown, drawn)


def joined(portions: list[Result]) -> Result:
    """All portions of a result."""
    (only,) = portions
    return only


# -------------------------------------------------------------------------------------------- what is sent


def record(result: Result, completions: Completions, **more: Any) -> dict[str, Any]:
    """All that is not a picture, without paths of this machine; the completions may be of the hole's box."""
    whole = replace(completions, mask=result.subject.hole, crop=result.shown.box if result.shown else None)
    return {"manyfill": __version__, **whole.record(), "model": model_name(completions.model), **more}


def model_name(id: str) -> str:
    """A model's name for others: of a directory on this machine only the last part."""
    return Path(id).name if Path(id).exists() else id


def frame(subject: Subject, view: View) -> dict[str, Any]:
    """Where a view lies in the picture."""
    height, width = subject.hole.shape
    rows, columns = hole_box(subject.hole) if view == "hole" else (slice(0, height), slice(0, width))
    place = {"top": rows.start, "left": columns.start}
    return {
        "size": {"height": height, "width": width},
        "view": place | {"height": rows.stop - rows.start, "width": columns.stop - columns.start},
    }


def png(completions: Completions, name: str, view: View) -> bytes:
    """A fill ("fill-00.png", ...), "mean.png" or "std.png": the file, or of a hole's box what lies in the hole."""
    pixels = completions.files(sheet=False)[name]
    if view == "hole":
        colours, hole = 3 if pixels.shape[2] > 2 else 1, completions.mask[..., None]
        pixels = np.concatenate([pixels[..., :colours] * hole, hole * np.uint8(255)], -1)
    return png_bytes(pixels)


def files_of(filler: Filler, result: Result) -> dict[str, bytes]:
    """The very files that the command line writes, and the record."""
    completions = result.completions(filler)
    files = {name: png_bytes(pixels) for name, pixels in completions.files(sheet=True).items()}
    return files | {RECORD: as_json(record(result, completions, files=[*files, RECORD]))}


def archive(files: dict[str, bytes]) -> bytes:
    """A zip file; what is in it is compressed already, and the same content makes the same bytes."""
    with io.BytesIO() as buffer:
        with zipfile.ZipFile(buffer, "w") as zip:
            for name, content in files.items():
                zip.writestr(zipfile.ZipInfo(name), content)
        return buffer.getvalue()


def as_json(values: dict[str, Any]) -> bytes:
    return (json.dumps(values, indent=2) + "\n").encode()


def file(filler: Filler, result: Result, name: str) -> tuple[bytes, str] | None:
    """The content and type of one of a result's files, None if there is none of that name."""
    subject = result.subject
    if name == PICTURE:
        alpha = subject.picture.alpha
        layers = [subject.picture.pixels] + ([] if alpha is None else [alpha[..., None]])
        return png_bytes(np.concatenate(layers, -1)), "image/png"
    if name == MASK:
        return png_bytes(subject.hole.astype(np.uint8)[..., None] * 255), "image/png"
    if name == ARCHIVE:
        own = {part: file(filler, result, part) for part in (PICTURE, MASK)}
        files = {part: found[0] for part, found in own.items() if found}
        return archive(files | files_of(filler, result)), "application/zip"
    if name == RECORD:
        return as_json(record(result, result.completions(filler))), "application/json"
    fills = [f"fill-{index:02d}.png" for index in range(result.sampling.n)]
    if name in fills:
        # One fill alone: the others would take memory and time for nothing.
        return png(result.only(fills.index(name)).completions(filler), fills[0], "picture"), "image/png"
    if name in ("mean.png", "std.png"):
        return png(result.completions(filler), name, "picture"), "image/png"
    if name == "sheet.png":
        return png_bytes(result.completions(filler).sheet()), "image/png"
    return None
