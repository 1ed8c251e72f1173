"""What a caller gives to be filled, in whatever form: read, checked, and held as pixels.

Legend: H W the picture's size, C its channels (1 or 3). Pixels are uint8 (H, W, C), masks bool (H, W), True = missing.
"""

import hashlib
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Union

import numpy as np
from PIL import Image

from manyfill.caption import Caption
from manyfill.errors import ConfigError, PictureError
from manyfill.formats import check_array, of_array
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture, picture_of, to_pixels
from manyfill.masks import from_alpha, from_array, luma
from manyfill.originals import Original, plain
from manyfill.recipe import Layer, Recipe
from manyfill.rng import key

if TYPE_CHECKING:
    from torch import Tensor
    from typing_extensions import TypeIs

NOTHING_KNOWN_NOTE = "nothing of the picture is known: the fills are what the model makes up"
HOTTEST = 100  # far beyond all sense, and far below what a float can still hold
NEARLY = 15  # grey levels from black or white
PictureLike = Union[str, os.PathLike[str], Image.Image, np.ndarray, Picture, "Tensor"]


@dataclass(frozen=True)
class Sampling:
    """How many fills of a picture, their seed, and the temperature of their latents; ConfigError where impossible.

    The temperature is one for all levels, or one for each, coarsest first, of which the last also stands for all finer
    levels. `purpose` sets draws apart that share a seed.
    """

    n: int = 8
    seed: int = 0
    temperature: float | Sequence[float] = 1.0
    purpose: str = "fill"

    def __post_init__(self) -> None:
        if self.n < 1:
            raise ConfigError(f"-n {self.n}: is no number of fills; ask for 1 or more")
        if not self.temperatures or not all(0 <= t <= HOTTEST for t in self.temperatures):
            raise ConfigError(
                f"--temperature {self.temperature}: must be from 0 to {HOTTEST}; 1 draws from the model as it is"
            )

    @property
    def temperatures(self) -> Sequence[float]:
        """By level; the last stands for all finer ones too."""
        return self.temperature if isinstance(self.temperature, Sequence) else (self.temperature,)

    def recipes(self, levels: int) -> list[Recipe]:
        """Of every fill, drawn afresh from a key of its own."""
        warmth = self.temperatures
        return [
            Recipe(tuple(Layer(((source, 1.0),), warmth[min(level, len(warmth) - 1)]) for level in range(levels)))
            for source in (key(self.seed, self.purpose, i) for i in range(self.n))
        ]


def parse_temperature(text: str) -> float | tuple[float, ...]:
    """A --temperature: "0.8", or one for each level, "0.5,0.5,1"; ConfigError."""
    try:
        values = tuple(map(float, text.split(",")))
    except ValueError:
        raise ConfigError(f"--temperature {text}: give a number, or one for each level such as 0.5,0.5,1") from None
    return values[0] if len(values) == 1 else values


@dataclass(frozen=True)
class Subject:
    """A picture, its hole (H, W), and all of it (H, W, C) where the truth is known; the files of picture and mask, if
    that is what they were given as; and what is said of it."""

    picture: Picture
    hole: np.ndarray
    whole: np.ndarray | None = None
    photo: Path | None = None
    mask: Path | None = None
    caption: Caption | None = None

    @property
    def original(self) -> Original:
        """What the picture's file held, or what a file of its pixels would."""
        return self.picture.original or plain(self.picture.pixels, self.picture.alpha)

    def digest(self) -> str:
        """A fingerprint of all that files of its fills can depend on: what its own file held, and the hole."""
        o = self.original
        head = (o.values.shape, o.values.dtype.str, o.mode, o.format, o.orientation, o.metadata)
        found = hashlib.sha256(repr(head).encode())
        for values in (o.values, np.packbits(self.hole), *(() if o.palette is None else (o.palette,))):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()


def read(
    image: PictureLike,
    mask: PictureLike | None = None,
    truth: PictureLike | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    caption: Caption | None = None,
) -> Subject:
    """The picture with its hole and truth, in any of the forms that `Filler` takes; PictureError."""
    picture = _read_picture(image, "picture", max_pixels)
    hole, notes = _read_mask(mask, picture, max_pixels)
    more = (NOTHING_KNOWN_NOTE,) if hole.all() else ()
    picture = replace(_in_range(picture, hole), notes=(*picture.notes, *notes, *more))
    whole = None if truth is None else _read_truth(truth, picture, max_pixels)
    photo, painted = (Path(f) if isinstance(f, (str, os.PathLike)) else None for f in (image, mask))
    return Subject(picture, hole, whole, photo, painted, caption)


def _read_picture(source: PictureLike, what: str, max_pixels: int) -> Picture:
    if isinstance(source, Picture):
        return source
    if is_tensor(source):
        return Picture(_tensor_pixels(source, what), None, what)
    if isinstance(source, np.ndarray):
        check_array(source.shape, source.dtype, what)
        original = of_array(source)
        form = "PNG" if original.values.dtype in (bool, np.uint8, np.uint16) else "NPY"
        return picture_of(replace(original, format=form).spanning(), what)
    return open_picture(source, name=what if isinstance(source, Image.Image) else None, max_pixels=max_pixels)


def is_tensor(source: object) -> "TypeIs[Tensor]":
    """Whether it is one of torch's, which need not be there: whoever has a tensor has loaded it."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _tensor_pixels(x: "Tensor", what: str) -> np.ndarray:
    if x.ndim != 3 or x.shape[0] not in (1, 3) or not x.numel() or not x.is_floating_point():
        raise PictureError(f"{what}: the tensor is {x.dtype} {tuple(x.shape)}; give float (1 or 3, H, W) in [-1, 1]")
    if not x.abs().max() <= 1.001:  # not a NaN either
        raise PictureError(f"{what}: the tensor has values outside [-1, 1]; scale it as x = v / 127.5 - 1")
    return to_pixels(x)


def _in_range(picture: Picture, hole: np.ndarray) -> Picture:
    """A picture of measurements in the range of what is known of them; PictureError where that is not finite."""
    original = picture.original
    if original is None or not original.measured:
        return picture
    odd = int((_not_finite(original) & ~hole).sum())
    if odd:
        raise PictureError(
            f"{picture.name}: {odd:,} values outside the mask are not finite; make them part of the mask, or leave it "
            "out to fill just those"
        )
    return picture_of(original.spanning(hole), picture.name, picture.notes)


def _not_finite(original: Original) -> np.ndarray:
    """bool (H, W)"""
    return ~np.isfinite(original.upright(original.values[..., 0]))


def _read_mask(source: PictureLike | None, picture: Picture, max_pixels: int) -> tuple[np.ndarray, tuple[str, ...]]:
    """The hole (H, W) and notes on how it was found."""
    if source is None:
        own = own_mask(picture)
        if own is None:
            raise PictureError(f"{picture.name}: has no transparent pixels to fill; name the hole with --mask")
        return own
    name, notes = _name(source), tuple[str, ...]()
    if is_tensor(source):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
        source = source[0] if source.ndim == 3 and len(source) == 1 else source
    if not isinstance(source, np.ndarray):
        source = _read_picture(source, "mask", max_pixels)
        if source.original is not None and source.original.format == "NPY":
            source = source.original.values
    if isinstance(source, np.ndarray):
        hole = from_array(source, name)
    else:
        white = luma(source)
        hole, notes = white > 127, _soft(white, "values over 127 count as missing")
    if hole.shape != picture.pixels.shape[:2]:
        found, wanted = _size(hole), _size(picture.pixels)
        turned = picture.original is not None and hole.shape == picture.original.values.shape[:2]
        mend = "turn it as the picture's EXIF orientation turns that" if turned else "save it at the picture's size"
        raise PictureError(f"{name}: the mask is {found} but the picture is {wanted}; {mend}")
    return hole, notes


def own_mask(picture: Picture) -> tuple[np.ndarray, tuple[str, ...]] | None:
    """The hole (H, W) that the picture itself tells of, transparent or not a number, and notes; None if of none."""
    if picture.alpha is not None:
        return from_alpha(picture.alpha), _soft(picture.alpha, "pixels of less than half opacity count as missing")
    if picture.original is not None and picture.original.measured and (hole := _not_finite(picture.original)).any():
        return hole, ()
    return None


def _soft(values: np.ndarray, rule: str) -> tuple[str, ...]:
    """A note where a mask uint8 (H, W) has soft edges; what JPEG adds to black and white is none."""
    between = (values > NEARLY) & (values < 255 - NEARLY)
    return (f"the mask has soft edges: {rule}",) if between.any() else ()


def _name(mask: PictureLike) -> str:
    if isinstance(mask, Picture):
        return mask.name
    return os.fspath(mask) if isinstance(mask, (str, os.PathLike)) else "mask"


def _read_truth(source: PictureLike, picture: Picture, max_pixels: int) -> np.ndarray:
    whole = _read_picture(source, "truth", max_pixels)
    if picture.original is not None and picture.original.measured and whole.original is not None:
        whole = picture_of(replace(whole.original, span=picture.original.span), whole.name)
    if whole.pixels.shape != picture.pixels.shape:
        found, wanted = (
            f"{_size(p)} {'colour' if p.shape[2] == 3 else 'grey'}" for p in (whole.pixels, picture.pixels)
        )
        raise PictureError(
            f"{whole.name}: the truth is {found} but the picture is {wanted}; give the same picture whole"
        )
    return whole.pixels


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
