"""Pictures as the model sees them: the only uint8 <-> [-1, 1] conversion, safe writing, contact sheets and heat maps.

Legend: H height, W width, C channels (1 grey, 3 RGB). Pixels are numpy uint8 (H, W, C), tensors float32 (C, H, W).
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from manyfill.decode import DEFAULT_MAX_PIXELS, FileLike, decode
from manyfill.files import save_bytes
from manyfill.formats import png
from manyfill.originals import Original

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: pixels uint8 (H, W, C), alpha uint8 (H, W) or None, notes, and all that it held."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    name: str
    notes: tuple[str, ...] = ()
    original: Original | None = None


def open_picture(
    source: FileLike | Image.Image, *, name: str | None = None, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Picture:
    """Decode a picture file, its bytes or a PIL image to 8-bit grey or RGB, turned upright by its EXIF orientation.

    Single-channel measurements (16 bits or more, floating-point) are stretched to the range of their values. `name`
    stands for the picture in messages (default: its path). Raises PictureError for whatever cannot be used.
    """
    label = name or (str(source) if isinstance(source, (str, os.PathLike)) else "picture")
    original, notes = decode(source, label, max_pixels)
    return picture_of(original.spanning(), label, notes)


def picture_of(original: Original, name: str, notes: tuple[str, ...] = ()) -> Picture:
    """The picture that an original shows."""
    pixels, alpha = original.shown()
    return Picture(pixels, alpha, name, notes, original)


# -------------------------------------------------------------------------------------------------- conversion


def to_planes(pixels: np.ndarray) -> np.ndarray:
    """uint8 (..., H, W, C) to float32 (..., C, H, W) in [-1, 1]: x = v / 127.5 - 1."""
    assert pixels.dtype == np.uint8 and pixels.ndim > 2, f"expected uint8 (H, W, C), got {pixels.dtype} {pixels.shape}"
    return np.ascontiguousarray(np.moveaxis(pixels, -1, -3)).astype(np.float32) / np.float32(127.5) - np.float32(1)


def to_levels(x: np.ndarray) -> np.ndarray:
    """float32 (..., C, H, W) in [-1, 1] to grey levels, float32 (..., H, W, C) from 0 to 255; not rounded."""
    return np.moveaxis(((x + np.float32(1)) * np.float32(127.5)).clip(0, 255), -3, -1)


def to_tensor(pixels: np.ndarray) -> "Tensor":
    """`to_planes` as a tensor."""
    import torch

    return torch.from_numpy(to_planes(pixels))


def to_pixels(x: "Tensor") -> np.ndarray:
    """Floating-point (C, H, W) to the nearest uint8 (H, W, C), clipped; the exact inverse of `to_tensor`."""
    assert x.ndim == 3, f"expected (C, H, W), got {tuple(x.shape)}"
    return np.ascontiguousarray(np.rint(to_levels(x.detach().float().cpu().numpy())).astype(np.uint8))


def resize(pixels: np.ndarray, height: int, width: int) -> np.ndarray:
    """Resize uint8 (H, W, C) to (height, width, C) with an antialiased Lanczos filter."""
    if pixels.shape[:2] == (height, width):
        return pixels.copy()
    return _from_pil(_to_pil(pixels).resize((width, height), Image.Resampling.LANCZOS))


def _to_pil(pixels: np.ndarray) -> Image.Image:
    assert pixels.dtype == np.uint8 and pixels.ndim == 3, f"expected uint8 (H, W, C), got {pixels.dtype} {pixels.shape}"
    return Image.fromarray(np.ascontiguousarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels))


def _from_pil(image: Image.Image) -> np.ndarray:
    return np.array(image).reshape(image.height, image.width, -1)


# ----------------------------------------------------------------------------------------------------- writing


def save_png(path: Path, pixels: np.ndarray) -> None:
    """Write uint8 (H, W, C), C from 1 to 4 (2 and 4 have alpha), as PNG: whole under its name or not at all.

    Raises OutputError when the file cannot be written.
    """
    save_bytes(path, png_bytes(pixels))


def png_bytes(pixels: np.ndarray) -> bytes:
    """The content of a PNG file of uint8 (H, W, C), C from 1 to 4 (2 and 4 have alpha)."""
    assert pixels.dtype == np.uint8, pixels.dtype
    return png(pixels)


# ------------------------------------------------------------------------------------------------ for the eyes

_WHITE, _RIM, _INK, _SMALLEST_FONT, _LARGEST_FONT, _SHADES = 255, 205, 40, 8, 15, 4096
# Dark to bright through violet, red and orange; luma rises steadily, so it also reads in grey.
_HEAT = np.array(
    [(4, 4, 20), (52, 14, 90), (125, 28, 109), (190, 55, 84), (235, 105, 40), (251, 175, 50), (253, 253, 185)],
    np.float64,
)


def contact_sheet(
    rows: list[list[np.ndarray]], labels: list[list[str]] | None = None, gap: int = 4, tile: int | None = None
) -> np.ndarray:
    """Lay equally sized uint8 (H, W, C) tiles out on white as one uint8 (H', W', 3); grey becomes RGB.

    `labels` (one per tile, "" for none) stand above their tiles; rows may differ in length. `tile` is the wanted
    length in pixels of a tile's longer side: larger tiles are filtered down, smaller ones show their pixels as squares.
    """
    shapes = {picture.shape[:2] for row in rows for picture in row}
    assert len(shapes) == 1, f"tiles must share one size, got {sorted(shapes)}"
    height, width = shapes.pop()
    if tile is not None:
        scale = tile / max(height, width)
        height, width = max(1, round(height * scale)), max(1, round(width * scale))
    font_size = min(_LARGEST_FONT, max(_SMALLEST_FONT, width // 8))
    header = font_size + 5 if labels else 0
    columns = max(map(len, rows))
    size = (gap + columns * (width + gap), gap + len(rows) * (height + header + gap))
    sheet = Image.new("RGB", size, (_WHITE,) * 3)
    pen = ImageDraw.Draw(sheet)
    for i, row in enumerate(rows):
        for j, picture in enumerate(row):
            left, top = gap + j * (width + gap), gap + i * (height + header + gap)
            enlarge = picture.shape[0] < height or picture.shape[1] < width
            filtering = Image.Resampling.NEAREST if enlarge else Image.Resampling.LANCZOS
            # A rim in the gap, so that white tiles end somewhere.
            pen.rectangle((left - 1, top + header - 1, left + width, top + header + height), outline=(_RIM,) * 3)
            sheet.paste(_to_pil(picture).resize((width, height), filtering), (left, top + header))
            if labels and labels[i][j]:
                _write(pen, labels[i][j], left, top + header - 3, width, font_size)
    return np.array(sheet)


def _write(pen: ImageDraw.ImageDraw, text: str, left: int, bottom: int, width: int, size: int) -> None:
    """Text in the largest size that fits the width, cut where even the smallest does not."""
    while size > _SMALLEST_FONT and pen.textlength(text, ImageFont.load_default(size)) > width:
        size -= 1
    font = ImageFont.load_default(size)
    if pen.textlength(text, font) > width:
        while text and pen.textlength(text + "..", font) > width:
            text = text[:-1]
        text += ".."
    pen.text((left, bottom), text, fill=(_INK,) * 3, font=font, anchor="ls")


def heatmap(values: np.ndarray) -> np.ndarray:
    """Colour (H, W) values in [0, 1], clipped, as uint8 (H, W, 3), dark for 0 to bright for 1."""
    stops = np.linspace(0, 1, len(_HEAT))
    # A table, as 12 megapixels in three channels of float64 would take more memory than the fills.
    shades = np.stack([np.interp(np.linspace(0, 1, _SHADES), stops, _HEAT[:, c]) for c in range(3)], -1)
    at = np.nan_to_num(values).clip(0, 1) * (_SHADES - 1)
    return shades.round().astype(np.uint8)[at.round().astype(np.uint16)]
