"""What a caller gives to be filled, in whatever form: read, checked, and held as pixels.

Legend: H W the picture's size, C its channels (1 or 3). Pixels are uint8 (H, W, C), masks bool (H, W), True = missing.
"""

import hashlib
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from manyfill.errors import ConfigError, PictureError
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture, to_pixels
from manyfill.masks import from_alpha, from_picture
from manyfill.recipe import Layer, Recipe
from manyfill.rng import key

PictureLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor | Picture


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
        if not self.temperatures or not all(math.isfinite(t) and t >= 0 for t in self.temperatures):
            raise ConfigError(f"--temperature {self.temperature}: must be 0 or more; 1 draws from the model as it is")

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
    that is what they were given as."""

    picture: Picture
    hole: np.ndarray
    whole: np.ndarray | None = None
    photo: Path | None = None
    mask: Path | None = None

    def alpha(self) -> np.ndarray | None:
        """The picture's transparency (H, W), gone where it is filled; None where nothing is transparent."""
        if self.picture.alpha is None:
            return None
        alpha = np.where(self.hole, np.uint8(255), self.picture.alpha)
        return None if (alpha == 255).all() else alpha

    def digest(self) -> str:
        """A fingerprint of all that fills of it can depend on: its size, pixels, transparency and hole."""
        alpha = self.picture.alpha
        found = hashlib.sha256(repr((self.picture.pixels.shape, alpha is not None)).encode())
        for values in (self.picture.pixels, np.packbits(self.hole), *(() if alpha is None else (alpha,))):
            found.update(np.ascontiguousarray(values).data)
        return found.hexdigest()


def read(
    image: PictureLike,
    mask: PictureLike | None = None,
    truth: PictureLike | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Subject:
    """The picture with its hole and truth, in any of the forms that `Filler` takes; PictureError."""
    picture = _read_picture(image, "picture", max_pixels)
    hole = _read_mask(mask, picture, max_pixels)
    whole = None if truth is None else _read_truth(truth, picture, max_pixels)
    return Subject(
        picture, hole, whole, *(Path(f) if isinstance(f, (str, os.PathLike)) else None for f in (image, mask))
    )


def _read_picture(source: PictureLike, what: str, max_pixels: int) -> Picture:
    if isinstance(source, Picture):
        return source
    if isinstance(source, Tensor):
        return Picture(_tensor_pixels(source, what), None, what)
    if isinstance(source, np.ndarray):
        pixels = source[..., None] if source.ndim == 2 else source
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            found = f"{source.dtype} {source.shape}"
            raise PictureError(f"{what}: the array is {found}; give uint8 (H, W), (H, W, 1) or (H, W, 3)")
        return Picture(pixels.copy(), None, what)
    return open_picture(source, name=what if isinstance(source, Image.Image) else None, max_pixels=max_pixels)


def _tensor_pixels(x: Tensor, what: str) -> np.ndarray:
    if x.ndim != 3 or x.shape[0] not in (1, 3) or not x.numel() or not x.is_floating_point():
        raise PictureError(f"{what}: the tensor is {x.dtype} {tuple(x.shape)}; give float (1 or 3, H, W) in [-1, 1]")
    if not x.abs().max() <= 1.001:  # not a NaN either
        raise PictureError(f"{what}: the tensor has values outside [-1, 1]; scale it as x = v / 127.5 - 1")
    return to_pixels(x)


def _read_mask(source: PictureLike | None, picture: Picture, max_pixels: int) -> np.ndarray:
    if source is None:
        if picture.alpha is None:
            raise PictureError(f"{picture.name}: has no transparent pixels to fill; name the hole with --mask")
        return from_alpha(picture.alpha)
    name = _name(source)
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
        source = source[0] if source.ndim == 3 and len(source) == 1 else source
    if isinstance(source, np.ndarray):
        hole = _array_mask(source)
    else:
        hole = from_picture(_read_picture(source, "mask", max_pixels).pixels)
    if hole.shape != picture.pixels.shape[:2]:
        found, wanted = _size(hole), _size(picture.pixels)
        raise PictureError(f"{name}: the mask is {found} but the picture is {wanted}; save it at the picture's size")
    return hole


def _name(mask: PictureLike) -> str:
    if isinstance(mask, Picture):
        return mask.name
    return "mask" if isinstance(mask, (Image.Image, np.ndarray, Tensor)) else os.fspath(mask)


def _array_mask(values: np.ndarray) -> np.ndarray:
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or not values.size:
        raise PictureError(f"mask: the array has the shape {values.shape}; give (H, W)")
    if values.max() <= 1:  # bool, or 0 and 1 of any type
        return values > 0.5
    if np.issubdtype(values.dtype, np.integer):
        return values > 127
    raise PictureError("mask: floating-point values must lie in [0, 1], 1 = missing; scale it")


def _read_truth(source: PictureLike, picture: Picture, max_pixels: int) -> np.ndarray:
    whole = _read_picture(source, "truth", max_pixels)
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
