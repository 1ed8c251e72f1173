"""What files of fills keep, and what other formats cannot hold."""

import io
import struct
from dataclasses import replace

import numpy as np
import pytest
import stored
import tifffile
import torch
from PIL import ExifTags, Image
from PIL.PngImagePlugin import PngInfo
from stored import GREY, ICC, MASK, RGB, Kind, encoded

from manyfill import Filler
from manyfill.completions import Completions
from manyfill.decode import decode
from manyfill.encode import EXIF_NOTE, LOSSY_NOTE, UNUSED_NOTE, Encoding
from manyfill.errors import ConfigError, OutputError
from manyfill.images import open_picture
from manyfill.models.config import PRESETS
from manyfill.models.hvae import ConditionalHVAE


@pytest.fixture(scope="module")
def filler(one_thread: None) -> Filler:
    torch.manual_seed(0)
    return Filler(ConditionalHVAE(PRESETS["tiny32"]), "test")


def first(result: Completions, encoding: Encoding | None = None) -> bytes:
    return next(result.files(encoding or Encoding()))[1]


def fill(filler: Filler, content: bytes, encoding: Encoding | None = None) -> bytes:
    return first(filler(open_picture(content), MASK, n=1), encoding)


# ---------------------------------------------------------------------------------------------------- other formats


def contents(kind: Kind) -> bytes:
    rng = np.random.default_rng(0)
    return stored.write(kind, stored.random_values(kind, 40, 60, rng), 1, rng)


@pytest.mark.parametrize(
    ("kind", "format", "mode", "dtype", "note"),
    [
        (Kind("png", "RGBA", "uint16"), "tiff", "RGBA", "uint16", None),
        (Kind("tif", "RGB", "uint16"), "png", "RGB", "uint16", None),
        (Kind("tif", "L", "float32"), "npy", "L", "float32", None),
        (Kind("npy", "L", "uint16"), "png", "L", "uint16", None),
        (Kind("gif", "P"), "png", "P", "uint8", None),
        (Kind("png", "1"), "tiff", "1", "bool", None),
        (Kind("tif", "CMYK"), "jpeg", "CMYK", "uint8", None),
        (Kind("tif", "CMYK"), "png", "RGB", "uint8", "PNG cannot hold uint8 CMYK: written as uint8 RGB"),
        (Kind("tif", "L", "float64"), "png", "L", "uint8", "PNG cannot hold float64 grey: written as uint8 grey"),
        (Kind("png", "RGBA", "uint16"), "webp", "RGBA", "uint8", "WEBP cannot hold uint16 RGBA"),
        (Kind("png", "RGBA"), "jpeg", "RGB", "uint8", "JPEG cannot hold uint8 RGBA: written as uint8 RGB"),
        (Kind("png", "LA"), "jpeg", "L", "uint8", "JPEG cannot hold uint8 grey with alpha"),
        (Kind("png", "LA"), "npy", "L", "uint8", "NPY cannot hold"),
        (Kind("png", "L"), "webp", "RGB", "uint8", "WEBP cannot hold uint8 grey: written as uint8 RGB"),
        (Kind("png", "P"), "jpeg", "RGB", "uint8", "JPEG cannot hold uint8 palette"),
    ],
    ids=str,
)
def test_another_format_keeps_what_it_can_and_says_what_not(
    filler: Filler, kind: Kind, format: str, mode: str, dtype: str, note: str | None
) -> None:
    encoding, content = Encoding(format), contents(kind)
    result = filler(open_picture(content), MASK, n=1)
    after, _ = decode(first(result, encoding), "after")
    assert (after.mode, after.values.dtype, after.format) == (mode, np.dtype(dtype), format.upper())
    told = [text for text in encoding.notes(result.original) if "cannot hold" in text]
    assert len(told) == (note is not None) and (note or "") in "".join(told)
    if note is None and format != "jpeg" and mode != "P":
        assert np.array_equal(after.values[~MASK], decode(content, "before")[0].values[~MASK])
    elif format != "jpeg":
        pixels, _ = after.shown()
        assert np.array_equal(pixels[~MASK], np.broadcast_to(result.picture, pixels.shape)[~MASK])


@pytest.mark.parametrize("orientation", [3, 6])
@pytest.mark.parametrize("format", ["png", "jpeg", "webp", "tiff", "npy"])
def test_another_format_shows_the_picture_as_upright(filler: Filler, format: str, orientation: int) -> None:
    rng = np.random.default_rng(0)
    content = stored.write(Kind("jpg", "RGB"), RGB, orientation, rng)
    picture = open_picture(content)
    result = filler(picture, np.zeros(picture.pixels.shape[:2], bool), n=1)
    after = open_picture(first(result, Encoding(format)))
    tolerance = 4 if format == "jpeg" else 0
    assert np.abs(after.pixels.astype(int) - picture.pixels).mean() <= tolerance
    metadata = after.original.metadata
    assert format == "npy" or metadata.icc == ICC
    assert format in ("npy", "webp") or np.allclose(metadata.dpi, 300, atol=0.01)


def test_jpegs_keep_their_tables_and_far_blocks_unless_a_quality_is_asked_for(filler: Filler) -> None:
    content = encoded(Image.fromarray(RGB), "JPEG", quality=61, subsampling=0, progressive=True, comment=b"hello")
    result = filler(open_picture(content), MASK, n=1)
    same, other = (Image.open(io.BytesIO(first(result, Encoding(None, quality)))) for quality in (None, 90))
    was = Image.open(io.BytesIO(content))
    assert same.quantization == was.quantization != other.quantization
    assert same.info["comment"] == b"hello" and same.info["progressive"]
    below = [np.asarray(image)[24:].astype(int) for image in (was, same, other)]  # the hole
    assert np.abs(below[1] - below[0]).mean() < 0.1 and np.abs(below[2] - below[0]).mean() > 0.3
    assert Encoding().notes(result.original) == (LOSSY_NOTE.format("JPEG"),)


def test_a_quality_that_is_of_no_use_is_noted() -> None:
    for form, used in ("PNG", False), ("JPEG", True), ("WEBP", True):
        original, _ = decode(encoded(Image.fromarray(RGB), form), "x")
        assert (UNUSED_NOTE.format(form) not in Encoding(None, 80).notes(original)) == used


def test_webp_stays_lossy_or_lossless() -> None:
    for options, kept in ({"lossless": True}, True), ({"quality": 80, "icc_profile": ICC}, False):
        original, _ = decode(encoded(Image.fromarray(RGB), "WEBP", **options), "x")
        assert original.metadata.own["lossless"] == kept
        again, _ = decode(Encoding().encode(original, RGB, MASK), "y")
        assert again.metadata.own["lossless"] == kept and again.metadata.icc == original.metadata.icc
        assert kept == (Encoding().notes(original) == ())
        assert not decode(Encoding(None, 50).encode(original, RGB, MASK), "z")[0].metadata.own["lossless"]


@pytest.mark.parametrize(
    ("format", "quality", "words"),
    [("jxl", None, "--format jxl"), (None, 0, "--quality 0"), ("webp", 101, "--quality 101"), ("png", 9, "--quality")],
)
def test_impossible_encodings_are_refused(format: str | None, quality: int | None, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Encoding(format, quality)


def test_what_a_format_is_too_small_for_is_refused_in_one_line() -> None:
    wide = np.zeros((1, 17_000, 3), np.uint8)
    original = decode(encoded(Image.fromarray(wide), "PNG"), "wide")[0]
    with pytest.raises(OutputError, match="--format webp: cannot hold") as caught:
        Encoding("webp").encode(original, wide, np.zeros((1, 17_000), bool))
    assert "\n" not in str(caught.value)


# ------------------------------------------------------------------------------------------------------- what is kept


def test_png_chunks_are_kept(filler: Filler) -> None:
    info = PngInfo()
    info.add_text("Title", "A cat")
    info.add(b"gAMA", struct.pack(">I", 45455))
    after = Image.open(io.BytesIO(fill(filler, encoded(Image.fromarray(RGB), "PNG", pnginfo=info, dpi=(72, 72)))))
    after.load()
    assert after.text == {"Title": "A cat"} and after.info["gamma"] == 0.45455 and round(after.info["dpi"][0]) == 72


def test_tiff_tags_are_kept_and_lost_exif_is_told(filler: Filler) -> None:
    out = io.BytesIO()
    scale = (33550, "d", 3, (0.5, 0.5, 0.0), True)  # GeoTIFF's
    tifffile.imwrite(out, GREY.astype(np.float32), description="hot", extratags=[scale], compression=None)
    result = filler(open_picture(out.getvalue()), MASK, n=1)
    page = tifffile.TiffFile(io.BytesIO(first(result))).pages.first
    assert page.description == "hot" and page.tags[33550].value == (0.5, 0.5, 0.0) and page.compression == 1
    assert EXIF_NOTE not in Encoding().notes(result.original)
    photo = decode(encoded(Image.fromarray(RGB), "JPEG", exif=stored._exif(1)), "x")[0]
    assert EXIF_NOTE in Encoding("tiff").notes(photo)


def test_a_thumbnail_of_what_was_there_is_dropped(filler: Filler) -> None:
    tiff = b"II*\0" + struct.pack("<IHHHIIIHHHIII", 8, 1, 0x0112, 3, 1, 3, 26, 1, 259, 3, 1, 6, 0)
    content = encoded(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + tiff)
    assert Image.open(io.BytesIO(content)).getexif().get_ifd(ExifTags.IFD.IFD1)
    exif = Image.open(io.BytesIO(fill(filler, content))).getexif()
    assert exif[0x0112] == 3 and not exif.get_ifd(ExifTags.IFD.IFD1)


def test_palettes_give_the_nearest_of_their_opaque_colours(filler: Filler) -> None:
    image = Image.fromarray(RGB).quantize(30)
    content = encoded(image, "PNG", transparency=bytes([0, 255, 90]))
    result = filler(open_picture(content), MASK, n=1)
    after = Image.open(io.BytesIO(first(result)))
    indices, colours = np.asarray(after), np.array(image.getpalette()).reshape(-1, 3)[:30]
    assert np.array_equal(indices[~MASK], np.asarray(image)[~MASK]) and not {0, 2} & set(indices[MASK])
    distances = ((result.images[0][MASK][:, None].astype(int) - colours) ** 2).sum(-1)
    distances[:, [0, 2]] = 10**9
    chosen = distances[np.arange(len(distances)), indices[MASK]]
    assert np.array_equal(chosen, distances.min(1))


def test_one_transparent_colour_becomes_an_alpha_channel(filler: Filler) -> None:
    content = encoded(Image.fromarray(RGB), "PNG", transparency=tuple(map(int, RGB[0, 0])))
    result = filler(open_picture(content), MASK, n=1)
    after = np.asarray(Image.open(io.BytesIO(first(result))))
    assert after.shape == (40, 60, 4) and after[0, 0, 3] == 0 and (after[MASK][:, 3] == 255).all()
    assert any("alpha channel" in note for note in result.notes)


def test_inks_come_back_and_a_damaged_profile_costs_nothing() -> None:
    inks = Image.fromarray(RGB).convert("CMYK")
    for content in (encoded(inks, "TIFF"), encoded(inks, "TIFF", icc_profile=b"nonsense")):
        original, notes = decode(content, "print")
        pixels, _ = original.shown()
        assert np.abs(pixels.astype(int) - RGB).max() <= 1 and "CMYK" in notes[0]
        after = original.filled(RGB[::-1], MASK)
        assert np.array_equal(after[~MASK], np.asarray(inks)[~MASK])
        shown, _ = replace(original, values=after).shown()
        assert np.abs(shown[MASK].astype(int) - RGB[::-1][MASK]).max() <= 1
