"""Picture files of every kind, written and read without manyfill: what the tests of exact files compare with."""

import io
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
import tifffile
from PIL import Image, ImageCms
from skimage import data

RGB = np.ascontiguousarray(data.astronaut()[100:140, 200:260])
GREY = np.ascontiguousarray(data.camera()[100:140, 200:260])
MASK = np.zeros((40, 60), bool)
MASK[8:20, 10:30] = True
ICC = {mode: ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes() for mode in ("RGB",)}["RGB"]
ORIENTATION = 0x0112
UPRIGHT: dict[int, Callable[[np.ndarray], np.ndarray]] = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a, -1),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a),
}


@dataclass(frozen=True)
class Kind:
    """A file format with a mode ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK") and a type of values."""

    format: str
    mode: str
    dtype: str = "uint8"

    @property
    def channels(self) -> int:
        return {"1": 1, "L": 1, "LA": 2, "P": 1, "RGB": 3, "RGBA": 4, "CMYK": 4}[self.mode]

    @property
    def turns(self) -> bool:
        """Whether a file of this format can say how it is to be turned."""
        return self.format in ("png", "tif", "jpg", "webp")

    @property
    def lossless(self) -> bool:
        return self.format != "jpg"

    def __str__(self) -> str:
        return f"{self.format}-{self.mode}-{self.dtype}"


_MODES_8 = {
    "png": ("1", "L", "LA", "P", "RGB", "RGBA"),
    "tif": ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK"),
    "webp": ("RGB", "RGBA"),
    "bmp": ("1", "L", "P", "RGB"),
    "gif": ("P",),
    "ppm": ("1", "L", "RGB"),
    "npy": ("L", "RGB"),
    "jpg": ("L", "RGB", "CMYK"),
}
_DEEP = {
    "png": [(mode, "uint16") for mode in ("L", "LA", "RGB", "RGBA")],
    "tif": [
        *((mode, "uint16") for mode in ("L", "LA", "RGB", "RGBA")),
        *(("L", kind) for kind in ("int16", "uint32", "int32", "float16", "float32", "float64")),
    ],
    "npy": [("RGB", "uint16"), *(("L", kind) for kind in ("uint16", "int32", "float32", "float64"))],
    "ppm": [("L", "uint16")],
}
KINDS = [Kind(form, mode) for form, modes in _MODES_8.items() for mode in modes]
KINDS += [Kind(form, mode, kind) for form, found in _DEEP.items() for mode, kind in found]


def random_values(kind: Kind, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """(h, w, C): of floating-point numbers some that no 8 bits can hold."""
    shape = (height, width, kind.channels)
    if kind.dtype.startswith("float"):
        return (rng.normal(3, 40, shape) ** 2).astype(kind.dtype)
    if kind.dtype == "uint8":
        top = {"1": 2, "P": 40}.get(kind.mode, 256)
        return rng.integers(0, top, shape, dtype=np.uint8)
    span = np.iinfo(kind.dtype)
    return rng.integers(span.min // 3, span.max // 3, shape, dtype=kind.dtype)


def write(kind: Kind, values: np.ndarray, orientation: int, rng: np.random.Generator) -> bytes:
    """A file with a profile, a resolution and an orientation where its format has these."""
    out = io.BytesIO()
    if kind.format == "npy":
        np.save(out, values[..., 0] if kind.channels == 1 else values)
    elif kind.format == "png" and kind.dtype == "uint16":
        return _raw_png(values, orientation)
    elif kind.format == "tif" and (kind.dtype != "uint8" or kind.mode == "LA"):
        _write_tiff(out, kind, values, orientation, bool(rng.integers(2)))
    else:
        _write_pil(out, kind, values, orientation, rng)
    return out.getvalue()


def _exif(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION], exif[0x010F] = orientation, "Maker"
    return exif


def _metadata(kind: Kind, orientation: int) -> dict[str, object]:
    """What PIL writes of it."""
    known: dict[str, object] = {}
    if kind.format in ("png", "tif", "jpg", "bmp"):
        known["dpi"] = (300, 300)
    if kind.turns:
        known["exif"] = _exif(orientation)
        if kind.mode in ("RGB", "RGBA"):
            known["icc_profile"] = ICC
    return known


def _write_pil(out: io.BytesIO, kind: Kind, values: np.ndarray, orientation: int, rng: np.random.Generator) -> None:
    array = np.ascontiguousarray(values[..., 0] if kind.channels == 1 else values)
    if kind.mode == "1":
        array = array.astype(bool)
    image = Image.fromarray(array.astype(np.int32) if kind.dtype == "uint16" else array)
    if kind.mode == "CMYK":
        image = Image.frombytes("CMYK", image.size, array.tobytes())
    if kind.mode == "P":
        image.putpalette(rng.integers(0, 256, 120, dtype=np.uint8).tobytes())
    options = _metadata(kind, orientation)
    if kind.format == "tif":
        options["compression"] = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate"]))
    if kind.format == "webp":
        options |= {"lossless": True, "exact": True, "method": 0}
    if kind.format == "jpg":
        options |= {"quality": int(rng.integers(60, 99)), "subsampling": int(rng.integers(3))}
    if kind.format == "gif":
        options["optimize"] = False
    image.save(out, {"jpg": "JPEG", "tif": "TIFF"}.get(kind.format, kind.format.upper()), **options)


def _write_tiff(out: io.BytesIO, kind: Kind, values: np.ndarray, orientation: int, compressed: bool) -> None:
    tifffile.imwrite(
        out,
        values[..., 0] if kind.channels == 1 else values,
        photometric="rgb" if kind.channels > 2 else "minisblack",
        planarconfig="contig" if kind.channels > 1 else None,
        extrasamples=["unassalpha"] if kind.mode in ("LA", "RGBA") else None,
        compression="zlib" if compressed else None,
        resolution=(300, 300),
        resolutionunit=2,
        iccprofile=ICC if kind.mode in ("RGB", "RGBA") else None,
        extratags=[(ORIENTATION, 3, 1, orientation, True)],
        metadata=None,
    )


def _raw_png(values: np.ndarray, orientation: int) -> bytes:
    """A 16-bit PNG without filters, with the chunks that PIL gives an 8-bit one."""
    height, width, channels = values.shape
    rows = b"".join(b"\0" + row.tobytes() for row in values.astype(">u2"))
    header = struct.pack(">IIBBBBB", width, height, 16, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    small = io.BytesIO()
    known = {"icc_profile": ICC} if channels > 2 else {}
    Image.new("RGB", (1, 1)).save(small, "PNG", exif=_exif(orientation), dpi=(300, 300), **known)
    kept, at = b"", 33
    while (name := small.getvalue()[at + 4 : at + 8]) != b"IDAT":
        end = at + 12 + int.from_bytes(small.getvalue()[at : at + 4], "big")
        kept += small.getvalue()[at:end] if name != b"IHDR" else b""
        at = end

    def chunk(name: bytes, data: bytes) -> bytes:
        return len(data).to_bytes(4, "big") + name + data + zlib.crc32(name + data).to_bytes(4, "big")

    start = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + kept
    return start + chunk(b"IDAT", zlib.compress(rows, 1)) + chunk(b"IEND", b"")


def read(kind: Kind, content: bytes) -> np.ndarray:
    """The values (h, w, C) of such a file, not turned; a palette's colours."""
    if kind.format == "npy":
        array = np.load(io.BytesIO(content))
        return array if array.ndim == 3 else array[..., None]
    if kind.format == "png" and kind.dtype == "uint16":
        array = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_UNCHANGED)
        array = array if array.ndim == 3 else array[..., None]
        return array[..., {1: [0], 2: [0, 3], 3: [2, 1, 0], 4: [2, 1, 0, 3]}[kind.channels]]
    if kind.format == "tif" and kind.mode not in ("1", "P"):
        try:
            array = tifffile.imread(io.BytesIO(content))
            return array if array.ndim == 3 else array[..., None]
        except (ValueError, KeyError):  # LZW
            array = np.asarray(Image.open(io.BytesIO(content)))
            back = {5: 5, 6: 8, 7: 7, 8: 6}.get(facts(content)["orientation"], facts(content)["orientation"])
            return UPRIGHT[back](array if array.ndim == 3 else array[..., None])  # PIL has turned it
    image = Image.open(io.BytesIO(content))
    if (kind.format, kind.mode, image.mode) == ("webp", "RGBA", "RGB"):  # an alpha channel without a use is not stored
        image = image.convert("RGBA")
    assert image.mode == ("I" if kind.dtype == "uint16" else kind.mode)
    orientation = facts(content)["orientation"]
    array = np.asarray(image.convert("RGB") if kind.mode == "P" else image)
    array = array if array.ndim == 3 else array[..., None]
    if kind.format == "tif":
        array = UPRIGHT[{6: 8, 8: 6}.get(orientation, orientation)](array)
    return array


def facts(content: bytes) -> dict[str, object]:
    """What a file that PIL opens says besides its pixels."""
    image = Image.open(io.BytesIO(content))
    dpi = image.info.get("dpi")
    return {
        "format": image.format,
        "orientation": image.getexif().get(ORIENTATION, 1),
        "dpi": dpi and tuple(round(float(value), 2) for value in dpi),
        "icc": image.info.get("icc_profile"),
    }


def encoded(image: Image.Image, kind: str, **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def saved(array: np.ndarray) -> bytes:
    out = io.BytesIO()
    np.save(out, array)
    return out.getvalue()
