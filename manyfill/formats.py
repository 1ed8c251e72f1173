"""What PIL leaves out of single formats: PNG's 16-bit colour and chunks, TIFF's tags, NPY, WebP's kinds.

Legend: h w the stored size, C channels. Values are (h, w, C) of the file's own type.
"""

import io
import logging
import struct
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, BinaryIO

import numpy as np

from manyfill.errors import PictureError
from manyfill.originals import Metadata, Original

NPY_MAGIC, PNG_MAGIC, TIFF_MAGIC = b"\x93NUMPY", b"\x89PNG\r\n\x1a\n", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
Admit = Callable[[int, int], None]
"""`admit(width, height)` raises PictureError for a picture that is too large."""

# PNG chunks that tell how to show a picture or what is known of it, whatever its pixels; eXIf is written anew.
_FILTER_UP = 2
_KEPT_CHUNKS = b"cHRM cICP gAMA iCCP iTXt mDCV cLLI pHYs sBIT sRGB tEXt zTXt".split()
# TIFF tags that describe how a file is laid out or point into it; the resolution and orientation are written anew.
_LAYOUT_TAGS = {
    *range(254, 260),
    262,
    266,
    273,
    274,
    *range(277, 285),
    288,
    289,
    292,
    293,
    296,
    301,
    317,
    *range(320, 326),
}
_LAYOUT_TAGS |= {330, *range(336, 342), 347, *range(512, 533), 34665, 34853, 40965}
_EXIF_TAG, _ORIENTATION_TAG, _SHORT = 34665, 274, 3
_READABLE = (1, 8, 32773, 32946)  # TIFF compressions that tifffile undoes by itself

logging.getLogger("tifffile").addHandler(logging.NullHandler())  # its warnings are not for our users


# ------------------------------------------------------------------------------------------------------------------ PNG


def _chunk(kind: bytes, data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big")


def _chunks(png: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(PNG_MAGIC)
    while at + 12 <= len(png):
        length = int.from_bytes(png[at : at + 4], "big")
        yield png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        at += length + 12


def kept_chunks(png: bytes, *more: bytes) -> bytes:
    """The chunks of a PNG file that hold for another picture too, as they stand in a file."""
    return b"".join(_chunk(kind, data) for kind, data in _chunks(png) if kind in (*_KEPT_CHUNKS, *more))


def with_chunks(png: bytes, chunks: bytes) -> bytes:
    """A PNG file with such chunks before all but its header."""
    after_header = len(PNG_MAGIC) + 25
    return png[:after_header] + chunks + png[after_header:]


def declared_rgba(stream: BinaryIO) -> BinaryIO:
    """A PNG of 16-bit grey and alpha declared to be of 8-bit RGBA, which has the same bytes."""
    png = stream.read()
    header = png[16:24] + b"\x08\x06" + png[26:29]
    return io.BytesIO(png[:8] + _chunk(b"IHDR", header) + png[33:])


def png(values: np.ndarray) -> bytes:
    """A PNG file of uint8 or uint16 (h, w, C), C from 1 to 4 (2 and 4 have alpha); ISO/IEC 15948.

    Each row is told by its difference from the one above, in zlib's run-length strategy. PIL would try every filter on
    each row: twice the time, which counts among thousands of pictures, for a photograph that is a twentieth smaller.
    """
    height, width, channels = values.shape
    stored = np.ascontiguousarray(values, values.dtype.newbyteorder(">")).view(np.uint8).reshape(height, -1)
    rows = np.full((height, 1 + stored.shape[1]), _FILTER_UP, np.uint8)
    rows[0, 1:] = stored[0]
    np.subtract(stored[1:], stored[:-1], out=rows[1:, 1:])
    packer = zlib.compressobj(level=1, strategy=zlib.Z_RLE)
    depth, colour_type = 8 * values.dtype.itemsize, {1: 0, 2: 4, 3: 2, 4: 6}[channels]
    header = _chunk(b"IHDR", struct.pack(">2I5B", width, height, depth, colour_type, 0, 0, 0))
    data = _chunk(b"IDAT", packer.compress(rows.data) + packer.flush())
    return PNG_MAGIC + header + data + _chunk(b"IEND", b"")


# ----------------------------------------------------------------------------------------------------------------- TIFF


def with_tags(original: Original, stream: BinaryIO) -> Original:
    """A TIFF that PIL has read, with the tags that PIL drops, and single-channel values in the file's own type."""
    import tifffile

    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        if original.measured:
            assert page.dtype is not None, "PIL has read numbers"
            original = replace(original, values=original.values.astype(page.dtype.newbyteorder("=")))
        return replace(original, metadata=replace(original.metadata, own=_own(page)))


def _own(page: Any) -> dict[str, Any]:
    tags = page.tags
    return {
        "compressed": page.compression != 1,
        "tags": [(t.code, int(t.dtype), t.count, t.value, True) for t in tags if t.code not in _LAYOUT_TAGS],
        "resolution": tuple(tags[code].value for code in (282, 283) if code in tags),
        "unit": int(tags[296].value) if 296 in tags else 2,
        "exif": _EXIF_TAG in tags,
    }


def read_tiff(stream: BinaryIO, label: str, admit: Admit) -> Original:
    """A TIFF that PIL cannot hold: floating-point of 16 or 64 bits, 16-bit grey with alpha; PictureError."""
    import tifffile

    stream.seek(0)
    with tifffile.TiffFile(stream) as file:
        page = file.pages.first
        admit(page.imagewidth, page.imagelength)
        if len(file.pages) > 1:
            raise PictureError(f"{label}: animated or of several pages; save one of them as TIFF")
        kind, channels = page.dtype, page.samplesperpixel
        if kind is None or kind.kind not in "uif" or (channels > 1 and (kind.kind, channels) != ("u", 2)):
            raise PictureError(f"{label}: {kind} pixels of {channels} channels are not supported; save it as 16-bit")
        if page.compression not in _READABLE or page.predictor == 3:
            raise PictureError(f"{label}: {kind} compressed in a way that cannot be read; save it without compression")
        values = page.asarray().reshape(page.imagelength, page.imagewidth, channels)
        orientation = int(page.tags[_ORIENTATION_TAG].value) if _ORIENTATION_TAG in page.tags else 1
        return Original(
            np.ascontiguousarray(values, kind.newbyteorder("=")),
            "L" if channels == 1 else "LA",
            "TIFF",
            orientation if 1 <= orientation <= 8 else 1,
            metadata=Metadata(own=_own(page)),
        )


_PHOTOMETRIC = {"1": "minisblack", "L": "minisblack", "LA": "minisblack", "P": "palette", "CMYK": "separated"}


def tiff(original: Original, values: np.ndarray) -> bytes:
    """A TIFF file of such values and of all else that the original held."""
    import tifffile

    metadata, own, mode = original.metadata, original.metadata.own, original.mode
    tags = own.get("tags", [])
    if original.orientation != 1:
        tags = [*tags, (_ORIENTATION_TAG, _SHORT, 1, original.orientation, True)]
    if original.palette is not None:
        colours = np.zeros((256, 3), np.uint16)
        colours[: len(original.palette)] = original.palette[:, :3].astype(np.uint16) * 257
    icc = metadata.icc if not any(tag[0] == 34675 for tag in tags) else None
    out = io.BytesIO()
    tifffile.imwrite(
        out,
        values[..., 0] if values.shape[2] == 1 else values,
        photometric=_PHOTOMETRIC.get(mode, "rgb"),
        planarconfig="contig" if values.shape[2] > 1 else None,
        extrasamples=["unassalpha"] if mode in ("LA", "RGBA") else None,
        colormap=colours.T if original.palette is not None else None,
        compression="zlib" if own.get("compressed", True) else None,
        compressionargs={"level": 3} if own.get("compressed", True) else None,
        predictor=own.get("compressed", True) and mode != "P" and values.dtype.kind in "ui",
        resolution=own.get("resolution") or metadata.dpi,
        resolutionunit=own.get("unit", 2),
        iccprofile=icc,
        extratags=tags,
        metadata=None,
        software=False,
    )
    return out.getvalue()


# ------------------------------------------------------------------------------------------------------------------ NPY


def read_npy(stream: BinaryIO, label: str, admit: Admit) -> Original:
    """One array as numpy saves it; PictureError unless it is a picture."""
    version = np.lib.format.read_magic(stream)
    if version not in ((1, 0), (2, 0)):
        raise PictureError(f"{label}: NPY of version {version}; save it with numpy.save")
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, kind = read(stream)
    check_array(shape, kind, label)
    admit(shape[1], shape[0])
    stream.seek(0)
    return of_array(np.load(stream))


def check_array(shape: tuple[int, ...], kind: np.dtype, label: str) -> None:
    """PictureError unless an array is a picture: any numbers of one channel, or RGB of 8 or 16 bits."""
    colour = len(shape) == 3 and shape[2] == 3 and kind in (np.uint8, np.uint16)
    single = (len(shape) == 2 or (len(shape) == 3 and shape[2] == 1)) and kind.kind in "buif" and kind.itemsize <= 8
    if not (colour or single) or 0 in shape:
        raise PictureError(
            f"{label}: the array is {kind} {shape}; give numbers (H, W) or (H, W, 1), or uint8 or uint16 (H, W, 3)"
        )


def of_array(array: np.ndarray) -> Original:
    """A picture from such an array, whose memory stays the caller's."""
    values = np.array(array if array.ndim == 3 else array[..., None], array.dtype.newbyteorder("="), order="C")
    mode = "RGB" if values.shape[2] == 3 else "1" if values.dtype == bool else "L"
    return Original(values, mode, "NPY", metadata=Metadata(own={"dimensions": array.ndim}))


def npy(original: Original, values: np.ndarray) -> bytes:
    """An NPY file of the values, upright."""
    out, array = io.BytesIO(), np.ascontiguousarray(original.upright(values))
    single = array.shape[2] == 1 and original.metadata.own.get("dimensions", 2) == 2
    np.save(out, array[..., 0] if single else array)
    return out.getvalue()


# ----------------------------------------------------------------------------------------------------------------- WebP


def is_lossless(webp: bytes) -> bool:
    """Whether a WebP file's pixels are coded without loss: whether its picture is a VP8L chunk."""
    at = 12
    while at + 8 <= len(webp) and webp[at : at + 4] not in (b"VP8 ", b"VP8L"):
        length = int.from_bytes(webp[at + 4 : at + 8], "little")
        at += 8 + length + length % 2
    return webp[at : at + 4] == b"VP8L"
