"""From picture files to originals, safely: few formats, a cap on pixels before decoding, every fault one line.

Legend: h w the stored size, C channels. Values are (h, w, C) of the file's own type.
"""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import ExifTags, Image, ImageFile, JpegImagePlugin, UnidentifiedImageError

from manyfill.errors import ManyfillError, PictureError
from manyfill.formats import (
    NPY_MAGIC,
    PNG_MAGIC,
    TIFF_MAGIC,
    Admit,
    declared_rgba,
    is_lossless,
    kept_chunks,
    read_npy,
    read_tiff,
    with_tags,
)
from manyfill.originals import Metadata, Original

ALLOWED_FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM")
DEFAULT_MAX_PIXELS = 40_000_000
FileLike = str | os.PathLike[str] | bytes | bytearray | memoryview
Reading = tuple[Original, tuple[str, ...]]
"""A picture as it is, and notes on what is not taken as it is."""

_NOTES = {
    "1": "black and white: any fill is so too",
    "P": "palette: any fill has its colours only",
    "PA": "palette converted to RGB",
    "CMYK": "CMYK: the model sees it as RGB, any fill is converted back",
    "YCbCr": "YCbCr converted to RGB",
    "La": "premultiplied alpha converted",
    "RGBa": "premultiplied alpha converted",
}
_CONVERTED = {"PA": "RGBA", "YCbCr": "RGB", "RGBX": "RGB", "La": "LA", "RGBa": "RGBA"}
_KEPT = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK")
_KEYED = {"1": "LA", "L": "LA", "RGB": "RGBA"}  # of pictures with one colour that stands for transparent
# PIL holds 16-bit colour as 8: one reading gives the upper bytes, another, with the order swapped, the lower ones.
_OTHER_BYTE = {f"{m};16{o}": f"{m};16{'L' if o == 'B' else 'B'}" for m in ("RGB", "RGBA") for o in "LBN"}
_HALVED_NOTE = "16-bit values reduced to 8 bits"
_PORTABLE = (270, 271, 272, 274, 305, 306, 315, 33432)  # EXIF's tags of the picture as such
_ORIENTATION = 274


def decode(source: FileLike | Image.Image, label: str, max_pixels: int = DEFAULT_MAX_PIXELS) -> Reading:
    """A picture file, its bytes or a PIL image; `label` is its name in messages.

    The size is read from the header and held against `max_pixels` before anything is decoded. Raises PictureError for
    whatever cannot be used.
    """
    too_large = f"has more than {max_pixels:,} pixels; shrink it or raise --max-pixels"

    def admit(width: int, height: int) -> None:
        if width * height > max_pixels:
            raise PictureError(f"{label}: {width}x{height} {too_large}")

    try:
        if isinstance(source, Image.Image):
            admit(*source.size)
            original, notes = _from_pil(source, label, max_pixels)
        else:
            with _stream(source, label) as stream:
                original, notes = _from_file(stream, label, max_pixels, admit)
    except ManyfillError:
        raise
    except Image.DecompressionBombError:
        raise PictureError(f"{label}: {too_large}") from None
    except UnidentifiedImageError:
        raise PictureError(
            f"{label}: not a picture that can be read; save it as PNG (read are {', '.join(ALLOWED_FORMATS)}, NPY)"
        ) from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise PictureError(f"{label}: damaged or truncated ({reason}); use an intact copy") from None
    if not original.values.size:
        raise PictureError(f"{label}: has no pixels; use an intact copy")
    kind = original.values.dtype
    return original, notes if kind in (bool, np.uint8) else (
        *notes,
        f"{kind} values: the model sees 256 levels of them",
    )


def _stream(source: FileLike, label: str) -> BinaryIO:
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


def _opened(stream: BinaryIO, max_pixels: int) -> ImageFile.ImageFile:
    stream.seek(0)
    with _pil_limit(max_pixels):
        return Image.open(stream, formats=ALLOWED_FORMATS)


def _from_file(stream: BinaryIO, label: str, max_pixels: int, admit: Admit) -> Reading:
    head = stream.read(26)
    if head.startswith(NPY_MAGIC):
        stream.seek(0)
        return read_npy(stream, label, admit), ()
    grey_alpha_16 = head.startswith(PNG_MAGIC) and head[24:] == b"\x10\x04"
    if grey_alpha_16:  # PIL would keep half of it; declared to be 8-bit RGBA, all the bytes come
        stream.seek(0)
        stream = declared_rgba(stream)
    try:
        image = _opened(stream, max_pixels)
    except UnidentifiedImageError:
        if head.startswith(TIFF_MAGIC):
            return read_tiff(stream, label, admit), ()
        raise
    admit(*image.size)
    # A JPEG of several views (MPO, from phones) has one picture to show; any other sequence has not.
    if getattr(image, "is_animated", False) and image.format != "MPO":
        raise PictureError(f"{label}: animated or of several pages; save one frame as PNG")
    halved = {_raw_mode(tile) for tile in image.tile}
    original, notes = _from_pil(image, label, max_pixels)
    if halved and halved <= _OTHER_BYTE.keys():
        again = _opened(stream, max_pixels)
        again.tile = [_with_raw_mode(tile, _OTHER_BYTE[_raw_mode(tile)]) for tile in again.tile]
        original = _of_16_bits(original, _from_pil(again, label, max_pixels)[0], image.info.get("transparency"))
        notes = tuple(note for note in notes if note != _HALVED_NOTE)
    if grey_alpha_16:
        original = replace(original, values=original.values.view(">u2").astype(np.uint16), mode="LA")
    stream.seek(0)
    if image.format == "TIFF":
        return with_tags(original, stream), notes
    if image.format in ("PNG", "WEBP"):
        content = stream.read()
        own = {"chunks": kept_chunks(content)} if image.format == "PNG" else {"lossless": is_lossless(content)}
        original = replace(original, metadata=replace(original.metadata, own=own))
    return original, notes


def _raw_mode(tile: Any) -> str:
    return str(tile.args[0] if isinstance(tile.args, tuple) else tile.args)


def _with_raw_mode(tile: Any, mode: str) -> Any:
    return tile._replace(args=(mode, *tile.args[1:]) if isinstance(tile.args, tuple) else mode)


def _of_16_bits(upper: Original, lower: Original, key: tuple[int, ...] | None) -> Original:
    """16-bit colour from its bytes; `key` is the colour that stands for transparent."""
    values = upper.values.astype(np.uint16) << 8 | lower.values
    if key is not None and upper.mode == "RGBA":
        values[..., 3] = np.where((values[..., :3] == key).all(-1), 0, 65535)
    return replace(upper, values=values)


def _from_pil(image: Image.Image, label: str, max_pixels: int) -> Reading:
    halved = any(";16" in _raw_mode(tile) for tile in getattr(image, "tile", ()))
    # Decoding runs free in threads; only where PIL's own limit could speak up must it be held.
    with _pil_limit(max_pixels) if image.format == "TIFF" or max_pixels > DEFAULT_MAX_PIXELS else nullcontext():
        orientation, exif, notes = _exif(image)  # PIL forgets a TIFF's with loading
        image.load()
    form = "JPEG" if image.format == "MPO" else image.format
    mode, values, palette = _values(image, label)
    original = Original(
        values,
        mode,
        form if form in ALLOWED_FORMATS else "PNG" if values.dtype in (bool, np.uint8, np.uint16) else "TIFF",
        orientation,
        palette,
        metadata=_metadata(image, exif),
    )
    if form == "TIFF":  # PIL turns these, and only these, by itself
        original = replace(original, values=np.ascontiguousarray(original.stored(values)))
    more = (_NOTES[image.mode],) if image.mode in _NOTES else ()
    if image.mode in _KEYED and mode != image.mode and image.has_transparency_data:
        more = ("the transparent colour made an alpha channel",)
    if halved and values.dtype == np.uint8:
        more = (*more, _HALVED_NOTE)
    return original, notes + more


def _values(image: Image.Image, label: str) -> tuple[str, np.ndarray, np.ndarray | None]:
    """The mode, the values (h, w, C) as PIL holds them, and the palette (K, 4) if there is one."""
    mode = image.mode
    if mode.startswith("I;16") or (mode == "I" and image.format in ("PNG", "PPM")):
        values = np.asarray(image).astype(np.uint16)[..., None]
        key = image.info.get("transparency")
        if not isinstance(key, int):
            return "L", values, None
        return "LA", np.concatenate([values, np.where(values == key, 0, 65535).astype(np.uint16)], -1), None
    if mode in ("I", "F"):
        return "L", np.array(image)[..., None], None
    if mode not in (*_KEPT, *_CONVERTED):
        raise PictureError(f"{label}: {mode} pixels are not supported; save it as 8-bit PNG")
    if mode == "P":
        return mode, np.array(image)[..., None], _palette(image)
    target = (image.has_transparency_data and _KEYED.get(mode)) or _CONVERTED.get(mode, mode)
    array = np.array(image.convert(target) if mode != target else image)
    return target, array.reshape(image.height, image.width, -1), None


def _palette(image: Image.Image) -> np.ndarray:
    """uint8 (256, 4) or fewer; indices beyond those are black."""
    colours = np.array(image.getpalette("RGB") or [0, 0, 0], np.uint8).reshape(-1, 3)
    size = max(len(colours), int(np.asarray(image).max()) + 1)
    palette = np.zeros((size, 4), np.uint8)
    palette[: len(colours), :3], palette[:, 3] = colours, 255
    key = image.info.get("transparency")
    if isinstance(key, bytes):
        palette[: len(key), 3] = np.frombuffer(key, np.uint8)[:size]
    elif key is not None and key < size:
        palette[key, 3] = 0
    return palette


def _exif(image: Image.Image) -> tuple[int, bytes | None, tuple[str, ...]]:
    """The orientation, the EXIF block for another file, and notes."""
    try:
        exif = image.getexif()
        orientation = exif.get(_ORIENTATION, 1)
        return orientation if orientation in range(1, 9) else 1, _exif_block(image, exif), ()
    except Exception:
        return 1, None, ("damaged EXIF block ignored",)


def _exif_block(image: Image.Image, exif: Image.Exif) -> bytes | None:
    """Without a TIFF's own tags, nor a thumbnail of what was there before."""
    if image.format == "TIFF":
        exif, tags = Image.Exif(), exif
        exif.update({tag: tags[tag] for tag in _PORTABLE if tag in tags})
    elif exif and (block := image.info.get("exif")):
        looked_at = Image.Exif()  # asking makes some versions of PIL unable to write it
        looked_at.load(block)
        if not looked_at.get_ifd(ExifTags.IFD.IFD1):
            return bytes(block)
    return exif.tobytes() if exif else None


def _metadata(image: Image.Image, exif: bytes | None) -> Metadata:
    info, own = image.info, {}
    if isinstance(image, JpegImagePlugin.JpegImageFile):
        own = {
            "qtables": image.quantization,
            "subsampling": JpegImagePlugin.get_sampling(image),
            "progressive": bool(info.get("progressive")),
            "comment": info.get("comment", b""),
        }
    dpi = info.get("dpi")
    return Metadata(
        icc=info.get("icc_profile") or None,
        exif=exif,
        xmp=info.get("xmp"),
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        own=own,
    )
