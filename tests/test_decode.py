"""From files to pixels: every kind that is read, and whatever is refused."""

import errno
import io
import os
import threading
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from skimage import data

from manyfill.errors import PictureError
from manyfill.images import (
    DEFAULT_MAX_PIXELS,
    open_picture,
)

RGB = data.astronaut()[100:140, 200:260]
GREY = data.camera()[100:140, 200:260]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def refusal(source: Path | bytes | Image.Image, max_pixels: int = DEFAULT_MAX_PIXELS) -> str:
    """The one-line message with which a source is refused."""
    with pytest.raises(PictureError) as caught:
        open_picture(source, max_pixels=max_pixels)
    message = str(caught.value)
    assert "\n" not in message and message
    if isinstance(source, Path):
        assert message.startswith(str(source))
    return message


# --------------------------------------------------------------------------------------------------- decoding


def test_lossless_files_come_back_exactly(tmp_path: Path) -> None:
    for kind in ("PNG", "TIFF", "BMP", "PPM"):
        picture = open_picture(encoded(Image.fromarray(RGB), kind))
        assert np.array_equal(picture.pixels, RGB) and picture.alpha is None and picture.notes == ()
    path = tmp_path / "grey.png"
    Image.fromarray(GREY).save(path)
    picture = open_picture(path)
    assert np.array_equal(picture.pixels, GREY[..., None]) and picture.name == str(path)
    assert open_picture(path, name="mine").name == "mine"
    assert np.array_equal(open_picture(memoryview(path.read_bytes())).pixels, GREY[..., None])
    picture.pixels[0, 0] = 1  # the caller owns the pixels


def test_lossy_files_come_back_closely() -> None:
    for kind in ("JPEG", "WEBP"):
        pixels = open_picture(encoded(Image.fromarray(RGB), kind, quality=95)).pixels
        assert np.abs(pixels.astype(int) - RGB).mean() < 6


def test_one_bit_pictures_are_grey() -> None:
    picture = open_picture(encoded(Image.fromarray(GREY > 100)))
    assert np.array_equal(picture.pixels[..., 0], (GREY > 100) * 255)


@pytest.mark.parametrize("base, channels", [(RGB, 3), (GREY, 1)])
def test_alpha_is_kept_apart(base: np.ndarray, channels: int) -> None:
    alpha = np.arange(40 * 60, dtype=np.uint8).reshape(40, 60)
    image = Image.fromarray(base)
    image.putalpha(Image.fromarray(alpha))
    picture = open_picture(encoded(image))
    assert picture.alpha is not None and np.array_equal(picture.alpha, alpha)
    assert np.array_equal(picture.pixels, base.reshape(40, 60, channels))


def test_palette_pictures_become_rgb_with_a_note() -> None:
    image = Image.fromarray(RGB).quantize(64)
    picture = open_picture(encoded(image))
    assert np.array_equal(picture.pixels, np.asarray(image.convert("RGB")))
    assert picture.alpha is None and any("palette" in note for note in picture.notes)
    see_through = open_picture(encoded(image, transparency=image.getpixel((5, 3))))
    assert see_through.alpha is not None and see_through.alpha[3, 5] == 0 and see_through.alpha.max() == 255


def test_cmyk_becomes_rgb_with_a_note() -> None:
    picture = open_picture(encoded(Image.fromarray(RGB).convert("CMYK"), "TIFF"))
    assert np.abs(picture.pixels.astype(int) - RGB).max() <= 2
    assert any("CMYK" in note for note in picture.notes)


def test_16_bit_is_reduced_with_a_note() -> None:
    values = GREY.astype(np.uint16) * 257
    for image in (Image.fromarray(values), Image.fromarray(values.astype(np.int32))):
        for source in (image, encoded(image, "TIFF")):
            picture = open_picture(source)
            # A thousandth at either end is clipped, the rest stretched.
            low, high = np.quantile(GREY, (0.001, 0.999))
            stretched = np.clip((GREY - low) / (high - low) * 255, 0, 255)
            assert np.abs(picture.pixels[..., 0] - stretched).max() <= 1
            assert len(picture.notes) == 1 and "256 levels" in picture.notes[0]


def test_16_bit_colour_is_read_whole_although_pil_reduces_it() -> None:
    rows = b"".join(b"\0" + row.tobytes() for row in RGB.astype(">u2") * 257)
    header = (60).to_bytes(4, "big") + (40).to_bytes(4, "big") + bytes([16, 2, 0, 0, 0])
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    body = [len(d).to_bytes(4, "big") + n + d + zlib.crc32(n + d).to_bytes(4, "big") for n, d in chunks]
    picture = open_picture(b"\x89PNG\r\n\x1a\n" + b"".join(body))
    assert np.array_equal(picture.pixels, RGB) and any("uint16" in note for note in picture.notes)
    assert picture.original is not None and np.array_equal(picture.original.values, RGB * np.uint16(257))
    opened = open_picture(Image.open(io.BytesIO(b"\x89PNG\r\n\x1a\n" + b"".join(body))))
    assert np.array_equal(opened.pixels, RGB) and any("reduced" in note for note in opened.notes)


def test_32_bit_and_floating_point_are_stretched_to_their_range() -> None:
    for values in (GREY.astype(np.int32) * 70_000 - 9, GREY.astype(np.float32) / 7):
        for picture in (open_picture(Image.fromarray(values)), open_picture(encoded(Image.fromarray(values), "TIFF"))):
            assert picture.pixels.min() == 0 and picture.pixels.max() == 255
            assert np.corrcoef(picture.pixels.ravel(), GREY.ravel())[0, 1] > 0.999
            assert np.array_equal(picture.original.values[..., 0], values)
    assert not open_picture(Image.fromarray(np.full((4, 4), 3.5, np.float32))).pixels.any()


def test_kinds_of_pixels_that_are_no_picture_are_refused() -> None:
    assert "LAB pixels" in refusal(Image.fromarray(RGB).convert("LAB"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = {
        1: RGB,
        2: RGB[:, ::-1],
        3: RGB[::-1, ::-1],
        4: RGB[::-1],
        5: RGB.transpose(1, 0, 2),
        6: np.rot90(RGB, -1),
        7: RGB[::-1, ::-1].transpose(1, 0, 2),
        8: np.rot90(RGB),
    }[orientation]
    assert np.array_equal(open_picture(encoded(Image.fromarray(RGB), exif=exif)).pixels, upright)


def test_damaged_exif_does_not_cost_the_picture() -> None:
    picture = open_picture(encoded(Image.fromarray(RGB), exif=b"Exif\x00\x00nonsense"))
    assert np.array_equal(picture.pixels, RGB) and any("EXIF" in note for note in picture.notes)


# --------------------------------------------------------------------------------------------------- refusals


def test_sources_that_are_no_pictures_are_refused_in_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert "no such file" in refusal(tmp_path / "missing.png")
    assert "folder" in refusal(tmp_path)
    empty, text, vector = (tmp_path / name for name in ("empty.png", "text.png", "drawing.svg"))
    empty.touch()
    text.write_text("hello\nworld")
    vector.write_text("<svg></svg>")
    assert "empty" in refusal(empty)
    assert "not a picture" in refusal(text)
    assert "PNG" in refusal(vector)
    os.mkfifo(tmp_path / "pipe")
    assert "regular file" in refusal(tmp_path / "pipe")

    def denied(*args: object, **options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(Path, "open", denied)
    assert "Permission denied" in refusal(text)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "PPM"])
def test_truncated_files_are_refused_wherever_they_end(tmp_path: Path, kind: str) -> None:
    whole = encoded(Image.fromarray(RGB), kind)
    path = tmp_path / "cut"
    for share in (0.02, 0.3, 0.6):
        path.write_bytes(whole[: max(1, int(len(whole) * share))])
        refusal(path)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "TIFF", "GIF"])
def test_damaged_bytes_never_raise_anything_else(kind: str) -> None:
    whole = np.frombuffer(encoded(Image.fromarray(RGB), kind), np.uint8)
    rng = np.random.default_rng(0)
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        for _ in range(60):
            damaged = whole.copy()
            at = rng.integers(0, min(len(whole), 400), 6)
            damaged[at] = rng.integers(0, 256, 6)
            try:
                open_picture(damaged.tobytes())
            except PictureError as error:
                assert "\n" not in str(error)


def test_formats_outside_the_list_are_refused() -> None:
    assert "not a picture" in refusal(encoded(Image.fromarray(RGB), "ICO"))


@pytest.mark.parametrize("kind", ["GIF", "PNG", "WEBP", "TIFF"])
def test_sequences_are_refused(kind: str) -> None:
    frames = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    assert "one frame as PNG" in refusal(encoded(frames[0], kind, save_all=True, append_images=frames[1:]))
    open_picture(encoded(frames[0], kind))  # a single frame is welcome


def test_the_first_view_of_a_phone_picture_is_read() -> None:
    views = [Image.fromarray(RGB), Image.fromarray(RGB[::-1].copy())]
    picture = open_picture(encoded(views[0], "MPO", save_all=True, append_images=views[1:], quality=95))
    assert np.abs(picture.pixels.astype(int) - RGB).mean() < 6


def test_the_pixel_cap_is_exact_and_names_its_flag() -> None:
    source = encoded(Image.fromarray(RGB))
    assert open_picture(source, max_pixels=2400).pixels.shape == (40, 60, 3)
    for image in (source, Image.fromarray(RGB)):
        assert "60x40" in refusal(image, max_pixels=2399) and "--max-pixels" in refusal(image, max_pixels=2399)
    assert "--max-pixels" in refusal(source, max_pixels=100)


def test_bombs_are_refused_from_the_header_without_a_warning() -> None:
    bomb = bytearray(encoded(Image.fromarray(GREY)))
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for side in (7000, 10_000, 14_000, 60_000):  # under and over PIL's own warning and error
            header = b"IHDR" + side.to_bytes(4, "big") * 2 + bytes(bomb[24:29])
            bomb[12:33] = header + zlib.crc32(header).to_bytes(4, "big")
            assert "--max-pixels" in refusal(bytes(bomb))
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_raised_cap_admits_what_pil_would_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)  # PIL warns from 1000 and refuses from 2000
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("PNG", "TIFF"):
            assert open_picture(encoded(Image.fromarray(RGB), kind)).pixels.shape == (40, 60, 3)
    assert Image.MAX_IMAGE_PIXELS == 1000


def test_threads_decode_alike() -> None:
    source, results = encoded(Image.fromarray(RGB)), []
    threads = [threading.Thread(target=lambda: results.append(open_picture(source).pixels)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(results) == 16 and all(np.array_equal(pixels, RGB) for pixels in results)
