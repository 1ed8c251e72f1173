"""Holes: drawn at random, read from files, written to files.

Legend: H height, W width. A mask is a numpy bool array (H, W); True, 1 or white = missing. Every drawn size is a
share of the picture's, so one kind hides about the same part of a 32-pixel picture as of a 256-pixel one.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from manyfill.errors import ConfigError, DataError, PictureError
from manyfill.images import Picture, open_picture, save_png

SMALLEST_SIDE = 4
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".ppm", ".pgm", ".pbm"})


def _centre(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    top, left = (height - height // 2) // 2, (width - width // 2) // 2
    mask[top : top + height // 2, left : left + width // 2] = True
    return mask


def _large(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    top, left = height // 8, width // 8
    mask[top : height - top, left : width - left] = True
    return mask


def _all(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return np.ones((height, width), bool)


def _boxes(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    for _ in range(rng.integers(1, 5)):
        box_height, box_width = (max(1, round(rng.uniform(0.1, 0.6) * side)) for side in (height, width))
        top, left = rng.integers(height - box_height + 1), rng.integers(width - box_width + 1)
        mask[top : top + box_height, left : left + box_width] = True
    return mask


def _strokes(
    height: int,
    width: int,
    rng: np.random.Generator,
    *,
    share: tuple[float, float],
    thickness: tuple[float, float],
    step: float,
    turn: float,
    segments: int,
) -> np.ndarray:
    """Wandering round-jointed strokes until a share of the picture drawn from `share` is covered.

    `thickness` is in shares of the shorter side, `step` (a segment's longest length) in shares of each side, `turn`
    the standard deviation of the bend between segments in radians. Stopping at a share, looked at after every
    segment, keeps the hole's size alike at all picture sizes although thickness is whole pixels.
    """
    canvas = Image.new("L", (width, height))
    pen = ImageDraw.Draw(canvas)
    wanted = rng.uniform(*share) * height * width
    corner = np.array([width - 1, height - 1])

    def covered() -> bool:
        return canvas.histogram()[1] >= wanted

    while not covered():
        thick = max(1, round(rng.uniform(*thickness) * min(height, width)))
        at, angle = rng.random(2), rng.uniform(0, 2 * np.pi)
        for _ in range(segments):
            to = at + rng.uniform(0.3, 1) * step * np.array([np.cos(angle), np.sin(angle)])
            _segment(pen, np.rint(at * corner), np.rint(to * corner), thick)
            at, angle = to, angle + rng.normal(0, turn)
            if covered() or at.min() < 0 or at.max() > 1:
                break
    return np.asarray(canvas) > 0


def _segment(pen: ImageDraw.ImageDraw, start: np.ndarray, end: np.ndarray, thick: int) -> None:
    pen.line([*start, *end], fill=1, width=thick)
    radius = (thick - 1) / 2
    for x, y in (start, end):
        pen.ellipse([x - radius, y - radius, x + radius, y + radius], fill=1)


def _brush(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return _strokes(
        height,
        width,
        rng,
        share=(0.05, 0.53),
        thickness=(0.04, 0.15),
        step=0.25,
        turn=0.8,
        segments=int(rng.integers(3, 12)),
    )


def _scratches(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    # 1/64 to 2/64 of the side: one or two pixels at 64.
    return _strokes(
        height,
        width,
        rng,
        share=(0.02, 0.12),
        thickness=(1 / 64, 2 / 64),
        step=0.12,
        turn=0.12,
        segments=int(rng.integers(4, 16)),
    )


def _pixels(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    return rng.random((height, width)) < rng.uniform(0.2, 0.95)


def _outpaint(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    present = np.zeros(4, bool)
    present[rng.choice(4, rng.integers(1, 5), replace=False)] = True
    sides = np.array([height, height, width, width])
    borders = np.maximum(1, np.rint(rng.uniform(0.05, 0.4, 4) * sides)).astype(int) * present
    top, bottom, left, right = (int(border) for border in borders)
    mask = np.ones((height, width), bool)
    # Rounding up on both sides could swallow a tiny picture: the window keeps at least one row and column.
    mask[top : max(top + 1, height - bottom), left : max(left + 1, width - right)] = False
    return mask


def _half(height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    mask = np.zeros((height, width), bool)
    rows, columns = slice(height // 2), slice(width // 2)
    match rng.integers(4):
        case 0:
            mask[rows] = True
        case 1:
            mask[height - height // 2 :] = True
        case 2:
            mask[:, columns] = True
        case _:
            mask[:, width - width // 2 :] = True
    return mask


_DRAW: dict[str, Callable[[int, int, np.random.Generator], np.ndarray]] = {
    "centre": _centre,
    "boxes": _boxes,
    "brush": _brush,
    "scratches": _scratches,
    "pixels": _pixels,
    "outpaint": _outpaint,
    "half": _half,
}
KINDS: tuple[str, ...] = tuple(_DRAW)
# The middle three quarters of each side, and everything: to be asked for by name.
LARGE_KINDS: tuple[str, ...] = ("large", "all")
_DRAW |= {"large": _large, "all": _all}


def draw(kind: str, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
    """Draw one mask of a kind from `KINDS` or `LARGE_KINDS`; the same generator state gives the same mask.

    Returns bool (height, width) with at least one missing pixel and, but for "all", a known one. Raises ConfigError
    for an unknown kind or a side under 4 pixels.
    """
    if kind not in _DRAW:
        raise ConfigError(f"mask kind {kind!r} does not exist; choose from {', '.join(_DRAW)}")
    if min(height, width) < SMALLEST_SIDE:
        raise ConfigError(
            f"a {width}x{height} picture is too small for a drawn mask; use sides of at least {SMALLEST_SIDE}"
        )
    mask = _DRAW[kind](height, width, rng)
    if (mask.all() and kind != "all") or not mask.any():
        _flip_one(mask, rng)
    return mask


def _flip_one(mask: np.ndarray, rng: np.random.Generator) -> None:
    mask.flat[rng.integers(mask.size)] ^= True


def from_alpha(alpha: np.ndarray) -> np.ndarray:
    """Mask of a picture's transparent part: uint8 (H, W) -> bool (H, W), alpha under 128 = missing."""
    return alpha < 128


def from_picture(picture: Picture) -> np.ndarray:
    """Mask drawn as a picture: bool (H, W), luma over 127 = missing."""
    return luma(picture) > 127


def luma(picture: Picture) -> np.ndarray:
    """How white a picture is, uint8 (H, W), where transparent not at all.

    16-bit values count by their whole range, floating-point ones from 0 to 1, and 8-bit ones too where 1 is the most.
    """
    original, pixels = picture.original, picture.pixels
    if original is not None and original.measured:
        kind = original.values.dtype
        full = np.iinfo(kind).max if np.issubdtype(kind, np.integer) else 1
        scaled = original.upright(original.values[..., 0]) * (255 / full)
        return np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)
    white = np.asarray(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels).convert("L"))
    if picture.alpha is not None:
        white = (white * (picture.alpha / np.float32(255))).round().astype(np.uint8)
    # A map of labels: of 256 shades the darkest but one is nobody's hole.
    return white * np.uint8(255) if white.max() == 1 else white


def from_array(values: np.ndarray, name: str = "mask") -> np.ndarray:
    """Mask of an array (H, W) of bool, of 0 and 1, or of 0 to 255 (over 127 = missing); PictureError, by `name`."""
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or not values.size:
        raise PictureError(f"{name}: the array has the shape {values.shape}; a mask is (H, W)")
    if values.max() <= 1:  # bool, or 0 and 1 of any type
        return values > 0.5
    if np.issubdtype(values.dtype, np.integer):
        return values > 127
    raise PictureError(f"{name}: a mask's floating-point values must lie in [0, 1], 1 = missing; scale it")


def read_mask(path: Path, size: tuple[int, int] | None = None) -> np.ndarray:
    """Read a mask file as bool (H, W): luma over 127 = missing, what is transparent is not; or all 1 of 0 and 1.

    `size` is the (H, W) that the mask must have. Raises PictureError for an unreadable file or another size.
    """
    mask = from_picture(open_picture(path))
    if size is not None and mask.shape != tuple(size):
        is_size, must_be = (f"{width}x{height}" for height, width in (mask.shape, size))
        raise PictureError(
            f"{path}: the mask is {is_size} but the picture is {must_be}; save the mask at the picture's size"
        )
    return mask


def write_mask(path: Path, mask: np.ndarray) -> None:
    """Write a bool (H, W) mask as a grey PNG, white = missing; raises OutputError."""
    save_png(path, mask.astype(np.uint8)[..., None] * 255)


class MaskFolder:
    """The user's own masks: one file, or all picture files under a folder, sorted; DataError if there are none."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            raise DataError(f"{path}: no such mask file or folder; check the path")
        found = (
            [path] if path.is_file() else (p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        )
        self.paths = tuple(sorted(found, key=lambda file: file.relative_to(path).as_posix()))
        if not self.paths:
            raise DataError(f"{path}: no mask pictures in this folder; put PNG masks there (white = missing)")

    def __len__(self) -> int:
        return len(self.paths)

    def check(self) -> None:
        """Read them all; PictureError names one that is unreadable or has no hole."""
        for path in self.paths:
            if not read_mask(path).any():
                raise PictureError(f"{path}: the mask is empty (all black); draw the hole in white or remove the file")

    def draw(self, height: int, width: int, rng: np.random.Generator) -> np.ndarray:
        """One of the masks at random, randomly flipped and turned, as bool (height, width) with a missing pixel.

        Raises PictureError when the chosen file is not a readable mask.
        """
        mask = read_mask(self.paths[rng.integers(len(self.paths))])
        mask = np.rot90(mask, int(rng.integers(4)))
        if rng.random() < 0.5:
            mask = mask[:, ::-1]
        rows, columns = (
            (np.arange(to) * 2 + 1) * of // (2 * to) for to, of in zip((height, width), mask.shape, strict=True)
        )
        mask = mask[np.ix_(rows, columns)]
        if not mask.any():  # thin lines can fall between the rows of a smaller picture
            _flip_one(mask, rng)
        return mask
