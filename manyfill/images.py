"""Pictures: safe decoding, the only uint8 <-> [-1, 1] conversion, safe writing, contact sheets and heat maps.

Legend: H height, W width, C channels (1 grey, 3 RGB). Pixels are numpy uint8 (H, W, C), tensors float32 (C, H, W).
"""

import io
import os
import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont, ImageOps, UnidentifiedImageError
from torch import Tensor

from manyfill.errors import ManyfillError, PictureError
from manyfill.files import save_bytes

ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
DEFAULT_MAX_PIXELS = 40_000_000
PNG_SIGNATURE, PNG_COLOUR_TYPES, FILTER_UP = b"\x89PNG\r\n\x1a\n", {1: 0, 2: 4, 3: 2, 4: 6}, 2

_CONVERTED = {
    "CMYK": "CMYK converted to RGB",
    "YCbCr": "YCbCr converted to RGB",
    "P": "palette converted to RGB",
    "PA": "palette converted to RGB",
}
_GREY_MODES = frozenset({"1", "L", "LA", "La"})
_COLOUR_MODES = frozenset({"RGB", "RGBX", "RGBA", "RGBa", *_CONVERTED})
_NOTE_16_BIT = "16-bit values reduced to 8 bits"


@dataclass(frozen=True)
class Picture:
    """A decoded picture, upright: pixels uint8 (H, W, C), alpha uint8 (H, W) or None, and what decoding changed."""

    pixels: np.ndarray
    alpha: np.ndarray | None
    name: str
    notes: tuple[str, ...] = ()


# ---------------------------------------------------------------------------------------------------- decoding


def open_picture(
    source: str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image,
    *,
    name: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Picture:
    """Decode a picture file, its bytes or a PIL image to 8-bit grey or RGB, turned upright by its EXIF orientation.

    The size is read from the header and held against `max_pixels` before anything is decoded. `name` stands for the
    picture in messages (default: its path). Raises PictureError for whatever cannot be used.
    """
    if isinstance(source, Image.Image):
        return _decode(source, name or "picture", max_pixels)
    label = name or (str(source) if isinstance(source, (str, os.PathLike)) else "picture")
    with _stream(source, label) as stream:
        return _decode(stream, label, max_pixels)


def _stream(source: str | os.PathLike[str] | bytes | bytearray | memoryview, label: str) -> BinaryIO:
    try:
        if not isinstance(source, (str, os.PathLike)):
            stream: BinaryIO = io.BytesIO(source)
        elif Path(source).is_dir():
            raise PictureError(f"{label}: is a folder; name a picture file in it")
        elif Path(source).exists() and not Path(source).is_file():  # opening a pipe would wait for ever
            raise PictureError(f"{label}: is not a regular file; name a picture file")
        else:
            stream = Path(source).open("rb")  # noqa: SIM115  the caller closes it
    except FileNotFoundError:
        raise PictureError(f"{label}: no such file; check the path") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        reason = getattr(error, "strerror", None) or error
        raise PictureError(f"{label}: cannot be read ({reason}); check its path and permissions") from None
    if not stream.seek(0, os.SEEK_END):
        stream.close()
        raise PictureError(f"{label}: the file is empty; use a complete picture file")
    stream.seek(0)
    return stream


_pil_lock = threading.Lock()


@contextmanager
def _pil_limit(max_pixels: int) -> Iterator[None]:
    """Make PIL's process-wide bomb limit ours for a moment; it refuses beyond twice its own number."""
    with _pil_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        before, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, (max_pixels + 1) // 2
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


def _decode(source: BinaryIO | Image.Image, label: str, max_pixels: int) -> Picture:
    too_large = f"has more than {max_pixels:,} pixels; shrink it or raise --max-pixels"
    try:
        if isinstance(source, Image.Image):
            image = source
        else:
            with _pil_limit(max_pixels):
                image = Image.open(source, formats=ALLOWED_FORMATS)
        if image.width * image.height > max_pixels:
            raise PictureError(f"{label}: {image.width}x{image.height} {too_large}")
        # A JPEG of several views (MPO, from phones) has one picture to show; any other sequence has not.
        if getattr(image, "is_animated", False) and image.format != "MPO":
            raise PictureError(f"{label}: animated or of several pages; save one frame as PNG")
        halved = any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))
        # Decoding runs free in threads; only where PIL's own limit could speak up must it be held.
        with _pil_limit(max_pixels) if image.format == "TIFF" or max_pixels > DEFAULT_MAX_PIXELS else nullcontext():
            image.load()
        image, notes = _upright(image)
        pixels, alpha, more = _to_8_bit(image, label)
    except ManyfillError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"{label}: {too_large}") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{label}: not a picture that can be read; save it as PNG (read are {', '.join(ALLOWED_FORMATS)})"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{label}: damaged or truncated ({reason}); use an intact copy") from None
    if halved and _NOTE_16_BIT not in more:
        more = (*more, _NOTE_16_BIT)
    return Picture(pixels, alpha, label, notes + more)


def _upright(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    try:
        return ImageOps.exif_transpose(image), ()
    except Exception:
        return image, ("damaged EXIF block ignored",)


def _to_8_bit(image: Image.Image, label: str) -> tuple[np.ndarray, np.ndarray | None, tuple[str, ...]]:
    """Pixels (H, W, 1 or 3), alpha (H, W) or None, and notes."""
    mode = image.mode
    if mode == "I" or mode.startswith("I;16"):
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise PictureError(f"{label}: 32-bit values; save it as 8-bit PNG")
        return (values // 257).astype(np.uint8)[..., None], None, (_NOTE_16_BIT,)
    if mode not in _GREY_MODES | _COLOUR_MODES:
        kind = "floating-point" if mode == "F" else mode
        raise PictureError(f"{label}: {kind} pixels are not supported; save it as 8-bit PNG")
    transparent = image.has_transparency_data
    target = ("LA" if transparent else "L") if mode in _GREY_MODES else ("RGBA" if transparent else "RGB")
    array = np.array(image.convert(target) if mode != target else image)
    notes = (_CONVERTED[mode],) if mode in _CONVERTED else ()
    if transparent:
        return np.ascontiguousarray(array[..., :-1]), np.ascontiguousarray(array[..., -1]), notes
    return array.reshape(image.height, image.width, -1), None, notes


# -------------------------------------------------------------------------------------------------- conversion


def to_tensor(pixels: np.ndarray) -> Tensor:
    """uint8 (H, W, C) to float32 (C, H, W) in [-1, 1]: x = v / 127.5 - 1."""
    assert pixels.dtype == np.uint8 and pixels.ndim == 3, f"expected uint8 (H, W, C), got {pixels.dtype} {pixels.shape}"
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)).astype(np.float32) / np.float32(127.5) - 1)


def to_pixels(x: Tensor) -> np.ndarray:
    """Floating-point (C, H, W) to the nearest uint8 (H, W, C), clipped; the exact inverse of `to_tensor`."""
    assert x.ndim == 3, f"expected (C, H, W), got {tuple(x.shape)}"
    values = ((x.detach().float() + 1) * 127.5).round().clamp(0, 255)
    return np.ascontiguousarray(values.to("cpu", torch.uint8).permute(1, 2, 0).numpy())


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
    """The content of a PNG file of uint8 (H, W, C), C from 1 to 4 (2 and 4 have alpha); ISO/IEC 15948.

    Each row is told by its difference from the one above, in zlib's run-length strategy. PIL would try every filter on
    each row: twice the time, which counts among thousands of pictures, for a photograph that is a twentieth smaller.
    """
    height, width, channels = pixels.shape
    values = pixels.reshape(height, width * channels)
    rows = np.full((height, 1 + width * channels), FILTER_UP, np.uint8)
    rows[0, 1:] = values[0]
    np.subtract(values[1:], values[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    header = struct.pack(">2I5B", width, height, 8, PNG_COLOUR_TYPES[channels], 0, 0, 0)
    chunks = (b"IHDR" + header, b"IDAT" + packer.compress(rows.data) + packer.flush(), b"IEND")
    framed = (struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c)) for c in chunks)
    return PNG_SIGNATURE + b"".join(framed)


# ------------------------------------------------------------------------------------------------ for the eyes

_WHITE, _RIM, _INK, _SMALLEST_FONT, _LARGEST_FONT = 255, 205, 40, 8, 15
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
    at = np.clip(np.nan_to_num(values), 0, 1)
    stops = np.linspace(0, 1, len(_HEAT))
    return np.stack([np.interp(at, stops, _HEAT[:, c]) for c in range(3)], -1).round().astype(np.uint8)
