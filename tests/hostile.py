"""Requests that mean no good, byte by byte: paths out of the server's files, bombs, forms without end."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

TARGETS = ("etc/passwd", "proc/self/environ", "manyfill/errors.py", "root/.ssh/id_rsa", "pyproject.toml")
CLIMBS = (
    "../" * 8,
    "..%2f" * 8,
    "%2e%2e/" * 8,
    "%2e%2e%2f" * 8,
    "..%5c" * 8,
    "..%252f" * 8,
    "..%c0%af" * 8,
    "....//" * 8,
    "..;/" * 8,
    "/",
    "%2f",
    "%00/",
    "./././/",
    "file:///",
    "http://127.0.0.1:1/",
)
ROOTS = ("/", "/static/", "/api/v1/results/", "/api/v1/examples/", "/docs/", "/api/v1/results/" + "a" * 22 + "/")
TRAVERSALS = [f"{root}{climb}{TARGETS[i % len(TARGETS)]}" for i, climb in enumerate(CLIMBS) for root in ROOTS]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def png_of(width: int, height: int, data: bytes, *extra: bytes, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG of this header, whatever its data."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    body = b"".join((chunk(b"IHDR", header), *extra, chunk(b"IDAT", data), chunk(b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + body


def deflated(size: int, level: int = 9) -> bytes:
    """Zeros in a few bytes."""
    packer = zlib.compressobj(level)
    piece = bytes(2**20)
    return b"".join(packer.compress(piece) for _ in range(size // 2**20)) + packer.flush()


def jpeg_of(width: int, height: int) -> bytes:
    """A JPEG whose header claims a size."""
    with io.BytesIO() as buffer:
        Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save(buffer, "JPEG")
        content = bytearray(buffer.getvalue())
    at = content.index(b"\xff\xc0") + 5
    content[at : at + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def bombs() -> dict[str, bytes]:
    """Small files that would be large, or are no pictures at all."""
    whole = deflated(537 * 2**20)
    twice = zlib.compress(whole, 9)
    fits = b"SIMPLE  =                    T".ljust(80) + b"BITPIX  =                    8".ljust(80)
    fits += b"NAXIS   =                    2".ljust(80) + b"NAXIS1  =                40000".ljust(80)
    fits += b"NAXIS2  =                40000".ljust(80) + b"END".ljust(80)
    return {
        "PNG of 537 MB": png_of(13380, 13380, whole),
        "PNG of 40000x40000": png_of(40000, 40000, deflated(2**20)),
        "PNG of 2^31 columns": png_of(2**31 - 1, 1, deflated(2**20)),
        "PNG, 16 bit, 40000x40000": png_of(40000, 40000, deflated(2**20), depth=16, colour=6),
        "PNG whose profile unpacks to 537 MB": png_of(8, 8, b"", chunk(b"iCCP", b"icc\0\0" + whole)),
        "PNG whose text unpacks to 537 MB": png_of(8, 8, b"", chunk(b"zTXt", b"text\0\0" + whole)),
        "PNG whose text unpacks twice": png_of(8, 8, b"", chunk(b"iTXt", b"text\0\1\0\0\0" + twice)),
        "PNG that is too long for its size": png_of(64, 64, whole),
        "JPEG of 40000x40000": jpeg_of(40000, 40000),
        "JPEG of 65500x65500": jpeg_of(65500, 65500),
        "BMP of 40000x40000": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 40000, 40000, 1, 24, *[0] * 6),
        "GIF of 65535x65535": b"GIF89a" + struct.pack("<HHBBB", 65535, 65535, 0, 0, 0) + b",\0\0\0\0\xff\xff\xff\xff\0",
        "PPM of 40000x40000": b"P6\n40000 40000\n255\n" + bytes(100),
        "WebP of 16383x16383": b"RIFF\x1a\0\0\0WEBPVP8L\x0d\0\0\0\x2f\xff\xff\xff\x0f" + bytes(9),
        "TIFF of 40000x40000": _tiff(40000, 40000),
        "FITS of 40000x40000": fits.ljust(2880),
        "GD of 65535x65535": b"\xff\xfe\xff\xff\xff\xff\x01" + bytes(1024),
        "GZIP of 537 MB": b"\x1f\x8b\x08\0\0\0\0\0\0\x03" + whole,
        "SVG with an entity in an entity": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a "&b;&b;">]><svg>&a;</svg>',
        "PostScript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 40000 40000\n(/etc/passwd) (r) file\n",
        "PDF": b"%PDF-1.7\n1 0 obj<</Type/Catalog>>endobj\n",
        "a link": b"http://127.0.0.1:1/picture.png",
        "a path": b"/etc/passwd",
        "NPY of objects": b"\x93NUMPY\x01\0v\0"
        + b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }".ljust(118),
        "NPY of 40000x40000": b"\x93NUMPY\x01\0v\0"
        + b"{'descr': '|u1', 'fortran_order': False, 'shape': (40000, 40000), }".ljust(117)
        + b"\n",
    }


def _tiff(width: int, height: int) -> bytes:
    tags = [(256, 4, 1, width), (257, 4, 1, height), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    tags += [(273, 4, 1, 8), (277, 3, 1, 1), (278, 4, 1, height), (279, 4, 1, width * height % 2**32)]
    entries = b"".join(struct.pack("<HHII", *tag) for tag in tags)
    return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(4)
