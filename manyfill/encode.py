"""From a filled picture to a file like the one that it came from, or of another format.

Legend: h w the stored size, H W that of the picture upright, C channels. Pixels are uint8 (H, W, 1 or 3), holes bool
(H, W), values (h, w, C).
"""

import io
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from PIL import Image

from manyfill.errors import ConfigError, OutputError
from manyfill.formats import kept_chunks, npy, png, tiff, with_chunks
from manyfill.originals import Metadata, Original, plain

SUFFIXES = {
    "PNG": ".png",
    "JPEG": ".jpg",
    "WEBP": ".webp",
    "TIFF": ".tif",
    "NPY": ".npy",
    "BMP": ".bmp",
    "GIF": ".gif",
    "PPM": ".ppm",
}
CHOICES = ("png", "jpeg", "webp", "tiff", "npy")
JPEG_QUALITY, WEBP_QUALITY = 95, 90  # where neither the original nor --quality says
LOSSY_NOTE = "{0} is lossy: known pixels are exact before they are encoded; --format png keeps them so"
UNUSED_NOTE = "{0} has no quality: --quality is of use with --format jpeg or webp"
EXIF_NOTE = "EXIF (camera settings) is not kept in TIFF, but for the orientation"


@dataclass(frozen=True)
class Encoding:
    """In which format to write, one of CHOICES or None for a picture's own, and a lossy one's quality from 1 to 100.

    Without a quality a JPEG has the tables of the original, a WebP is lossless unless the original was not. Raises
    ConfigError.
    """

    format: str | None = None
    quality: int | None = None

    def __post_init__(self) -> None:
        if self.format is not None and self.format not in CHOICES:
            raise ConfigError(f"--format {self.format}: is none of {', '.join(CHOICES)}")
        if self.quality is not None and not 1 <= self.quality <= 100:
            raise ConfigError(f"--quality {self.quality}: must be from 1 to 100")
        if self.quality is not None and self.format in ("png", "tiff", "npy"):
            raise ConfigError(f"--quality: is for jpeg and webp, --format {self.format} keeps all; leave one out")

    def target(self, original: Original) -> str:
        """PIL's name of the format of the file, or NPY."""
        if self.format is not None:
            return self.format.upper()
        return next(name for name in (original.format, "PNG", "TIFF") if _holds(name, original))

    def suffix(self, original: Original) -> str:
        return SUFFIXES[self.target(original)]

    def notes(self, original: Original) -> tuple[str, ...]:
        """What a file written so does not keep."""
        target, own, notes = self.target(original), original.metadata.own, []
        if not _holds(target, original):
            less = _plain(original, *original.shown(), target)
            notes.append(f"{target} cannot hold {_kind(original)}: written as {_kind(less)}")
        elif self.format is None and target != original.format:
            notes.append(f"{original.format} cannot hold {_kind(original)}: written as {target}")
        if target == "JPEG" or (target == "WEBP" and not self._lossless(original)):
            notes.append(LOSSY_NOTE.format(target))
        elif self.quality is not None:
            notes.append(UNUSED_NOTE.format(target))
        if target == "TIFF" and own.get("exif", original.format != "TIFF" and original.metadata.exif is not None):
            notes.append(EXIF_NOTE)
        return tuple(notes)

    def encode(self, original: Original, pixels: np.ndarray, hole: np.ndarray) -> bytes:
        """The file of the original with its hole filled by what is shown; OutputError where the format cannot be."""
        target = self.target(original)
        if _holds(target, original):
            values = original.filled(pixels, hole)
            if target != original.format:
                original = replace(original, metadata=replace(original.metadata, own={}))
        else:
            alpha = original.shown()[1]
            alpha = None if alpha is None else np.where(hole, np.uint8(255), alpha)
            original = _plain(original, pixels, alpha, target)
            values = original.values
        try:
            return self._bytes(target, original, values)
        except Exception as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise OutputError(
                f"--format {target.lower()}: cannot hold this picture ({reason}); choose another"
            ) from None

    def _bytes(self, target: str, original: Original, values: np.ndarray) -> bytes:
        metadata = original.metadata
        match target:
            case "NPY":
                return npy(original, values)
            case "TIFF":
                return tiff(original, values)
            case "PNG":
                # PIL has palettes and single bits.
                content = _pil(original, values, target) if original.mode in ("1", "P") else png(values)
                return with_chunks(content, _png_chunks(metadata))
            case "JPEG" | "WEBP":
                options = {"exif": metadata.exif or b"", "icc_profile": metadata.icc, "xmp": metadata.xmp or b""}
                options |= self._jpeg(metadata) if target == "JPEG" else self._webp(original)
                return _pil(original, values, target, **options)
        return _pil(original, values, target, **({"dpi": metadata.dpi} if target == "BMP" and metadata.dpi else {}))

    def _jpeg(self, metadata: Metadata) -> dict[str, Any]:
        options = dict(metadata.own)
        if self.quality is not None or "qtables" not in options:
            options.pop("qtables", None)
            options["quality"] = self.quality or JPEG_QUALITY
        if metadata.dpi is not None:
            options["dpi"] = tuple(map(round, metadata.dpi))
        return options

    def _webp(self, original: Original) -> dict[str, Any]:
        if self._lossless(original):
            return {"lossless": True, "exact": True, "quality": 50, "method": 3}
        return {"quality": self.quality or WEBP_QUALITY, "exact": True}

    def _lossless(self, original: Original) -> bool:
        return self.quality is None and original.metadata.own.get("lossless", True)


def _holds(target: str, original: Original) -> bool:
    """Whether a format can hold the original's mode and type."""
    mode, kind = original.mode, original.values.dtype
    eight, sixteen = kind in (bool, np.uint8), kind == np.uint16
    opaque = original.palette is None or bool((original.palette[:, 3] == 255).all())
    match target:
        case "PNG":
            return (eight and mode != "CMYK") or sixteen
        case "JPEG":
            return kind == np.uint8 and mode in ("L", "RGB", "CMYK")
        case "WEBP":
            return eight and mode in ("RGB", "RGBA")
        case "TIFF":
            return opaque
        case "BMP":
            return eight and mode in ("1", "L", "P", "RGB") and opaque
        case "GIF":
            return eight and mode in ("L", "P")
        case "PPM":
            return (eight and mode in ("1", "L", "RGB")) or (sixteen and mode == "L")
        case "NPY":
            return mode in ("1", "L", "RGB")
    return False


def _plain(original: Original, pixels: np.ndarray, alpha: np.ndarray | None, target: str) -> Original:
    """What is shown (H, W, 1 or 3) with as much of the original's transparency and colour as the format can hold."""
    colour = np.broadcast_to(pixels, (*pixels.shape[:2], 3))
    forms = (plain(pixels, alpha), plain(pixels), plain(colour, alpha), plain(colour))
    form = next(form for form in forms if _holds(target, form))
    # A profile is of one kind of colour: of inks, of grey or of RGB.
    same = original.mode != "CMYK" and (form.values.shape[2] > 2) == (pixels.shape[2] == 3)
    metadata = replace(original.metadata, own={}, icc=original.metadata.icc if same else None)
    values = np.ascontiguousarray(original.stored(form.values))
    return replace(form, values=values, orientation=original.orientation, metadata=metadata)


def _kind(original: Original) -> str:
    bits = {"1": ""}.get(original.mode, f"{original.values.dtype} ")
    return bits + {"1": "black and white", "L": "grey", "LA": "grey with alpha", "P": "palette"}.get(
        original.mode, original.mode
    )


def _png_chunks(metadata: Metadata) -> bytes:
    """As the original PNG has them, or made of what a file of another format held."""
    own = metadata.own.get("chunks")
    known = {} if own is not None else {"icc_profile": metadata.icc, "dpi": metadata.dpi}
    out = io.BytesIO()
    Image.new("L", (1, 1)).save(out, "PNG", exif=metadata.exif or b"", **known)
    return (own or b"") + kept_chunks(out.getvalue(), b"eXIf")


def _pil(original: Original, values: np.ndarray, target: str, **options: Any) -> bytes:
    """A file as PIL writes it."""
    array = np.ascontiguousarray(values[..., 0] if values.shape[2] == 1 else values)
    if original.mode == "CMYK":
        image = Image.fromarray(array, "CMYK")
    elif array.dtype == np.uint16:  # a PGM
        image = Image.fromarray(array.astype(np.int32))
    else:
        image = Image.fromarray(array)
    if original.palette is not None:
        image.putpalette(original.palette[:, :3].tobytes())
        alpha = original.palette[:, 3]
        if (alpha < 255).any():
            options["transparency"] = int(alpha.argmin()) if target == "GIF" else alpha.tobytes()
    out = io.BytesIO()
    image.save(out, target, **options)
    return out.getvalue()
