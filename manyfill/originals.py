"""What a picture file held, value for value, and the same picture with its hole filled.

Legend: h w the stored size, H W that of the picture upright, C channels, N pixels. What is shown is uint8 (H, W, 1 or
3); values are of the file's own type. Holes are bool (H, W), True = missing.
"""

import io
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from PIL import Image, ImageCms

AT_ONCE = 4096  # colours whose distances to a palette are held in memory
TAILS, MOST_LOOKED_AT = (0.001, 0.999), 1_000_000
# EXIF's orientations of a stored picture, as (transposed, rows backwards, columns backwards) on the way upright.
TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}


@dataclass(frozen=True)
class Metadata:
    """What a file says besides its pixels; `own` is what only a file of the same format can hold."""

    icc: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    own: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Original:
    """A picture as it is stored: values (h, w, C), the EXIF `orientation` that turns them upright, and all else.

    `mode` is PIL's name for the kind of pixel: 1, L, LA, P (indices of `palette`, uint8 (K, 4)), RGB, RGBA, CMYK.
    Values are bool in mode 1, uint8 or uint16 in the others. In mode L they may be any numbers, and then `span` is
    what is shown as 0 to 255.
    """

    values: np.ndarray
    mode: str
    format: str = "PNG"
    orientation: int = 1
    palette: np.ndarray | None = None
    span: tuple[float, float] = (0.0, 255.0)
    metadata: Metadata = field(default_factory=Metadata)

    @property
    def measured(self) -> bool:
        """Whether the values are measurements, of no range that the file tells, rather than 8-bit or colour."""
        return self.mode == "L" and self.values.dtype != np.uint8

    def upright(self, array: np.ndarray) -> np.ndarray:
        """(h, w, ...) as it is stored to (H, W, ...) as it is seen."""
        transposed, rows, columns = TURNS[self.orientation]
        return (array.swapaxes(0, 1) if transposed else array)[::rows, ::columns]

    def stored(self, array: np.ndarray) -> np.ndarray:
        """(H, W, ...) as it is seen to (h, w, ...) as it is stored."""
        transposed, rows, columns = TURNS[self.orientation]
        array = array[::rows, ::columns]
        return array.swapaxes(0, 1) if transposed else array

    def spanning(self, hole: np.ndarray | None = None) -> "Original":
        """The same, showing the range of the known, finite values but for a thousandth at either end as 0 to 255."""
        if not self.measured:
            return self
        known = self.values[np.isfinite(self.values) & (True if hole is None else ~self.stored(hole)[..., None])]
        if not known.size:
            return replace(self, span=(0.0, 1.0))
        low, high = np.quantile(known[:: -(-known.size // MOST_LOOKED_AT)].astype(np.float64), TAILS)
        return replace(self, span=(float(low), float(high)))

    def shown(self) -> tuple[np.ndarray, np.ndarray | None]:
        """The picture upright at 8 bits: pixels uint8 (H, W, 1 or 3), alpha uint8 (H, W) or None."""
        values = self._at_8_bits()
        if self.mode in ("LA", "RGBA") or (self.mode == "P" and (values[..., 3] < 255).any()):
            pixels, alpha = values[..., :-1], np.ascontiguousarray(self.upright(values[..., -1]))
        else:
            pixels, alpha = values[..., :3], None
        return np.ascontiguousarray(self.upright(pixels)), alpha

    def _at_8_bits(self) -> np.ndarray:
        if self.palette is not None:
            return self.palette[self.values[..., 0]]
        if self.mode == "CMYK":
            return _inks_to_rgb(self.values, self.metadata.icc)
        if self.values.dtype == bool:
            return self.values * np.uint8(255)
        if self.measured:
            low, high = self.span
            scaled = (self.values.astype(np.float64) - low) * (255 / ((high - low) or 1))
            return np.rint(np.nan_to_num(scaled).clip(0, 255)).astype(np.uint8)
        if self.values.dtype == np.uint16:
            return ((self.values - (self.values >> 8) + 128) >> 8).astype(np.uint8)  # v / 257, rounded
        return self.values

    def filled(self, pixels: np.ndarray, hole: np.ndarray) -> np.ndarray:
        """The values (h, w, C) with the hole taken from what is shown (H, W, 1 or 3), opaque; else as they are."""
        values, missing = self.values.copy(), self.stored(hole)
        if missing.any():
            values[missing] = self._of_colours(self.stored(pixels)[missing])
        return values

    def in_own_units(self, std: np.ndarray) -> np.ndarray:
        """A standard deviation (H, W) of what is shown as one of the values, float32."""
        return (std * ((self.span[1] - self.span[0]) / 255)).astype(np.float32)

    def _of_colours(self, colours: np.ndarray) -> np.ndarray:
        """uint8 (N, 1 or 3) as values (N, C)."""
        kind = self.values.dtype
        if self.palette is not None:
            return _nearest(colours, self.palette)
        if self.mode == "CMYK":
            return _rgb_to_inks(colours, self.metadata.icc)
        if kind.kind == "b":
            return colours > 127
        if self.measured:
            low, high = self.span
            values = low + colours.astype(np.float64) * ((high - low) / 255)
            if np.issubdtype(kind, np.integer):
                values = np.rint(values)
            return values.astype(kind)
        values = colours.astype(kind) * kind.type(257 if kind == np.uint16 else 1)
        if self.mode in ("LA", "RGBA"):
            values = np.concatenate([values, np.full_like(values[:, :1], np.iinfo(kind).max)], 1)
        return values


def plain(pixels: np.ndarray, alpha: np.ndarray | None = None) -> Original:
    """A picture of no file: uint8 (H, W, 1 or 3) and alpha (H, W)."""
    mode = ("L" if pixels.shape[2] == 1 else "RGB") + ("" if alpha is None else "A")
    return Original(pixels if alpha is None else np.concatenate([pixels, alpha[..., None]], -1), mode)


def _nearest(colours: np.ndarray, palette: np.ndarray) -> np.ndarray:
    """The nearest of the palette's most opaque colours to each of (N, 1 or 3), as indices uint8 (N, 1)."""
    candidates = np.flatnonzero(palette[:, 3] == palette[:, 3].max())
    among = palette[candidates, :3].astype(np.float32).T
    different, back = np.unique(np.broadcast_to(colours, (len(colours), 3)), axis=0, return_inverse=True)
    chosen = [  # |c - p|^2 less |c|^2, exact in float32
        ((among**2).sum(0) - 2 * part.astype(np.float32) @ among).argmin(1)
        for part in np.split(different, range(AT_ONCE, len(different), AT_ONCE))
    ]
    return candidates[np.concatenate(chosen)][back.reshape(-1, 1)].astype(np.uint8)


def _inks_to_rgb(values: np.ndarray, icc: bytes | None) -> np.ndarray:
    return np.asarray(_converted(Image.fromarray(values, "CMYK"), "RGB", icc))


def _rgb_to_inks(colours: np.ndarray, icc: bytes | None) -> np.ndarray:
    pixels = np.ascontiguousarray(np.broadcast_to(colours, (len(colours), 3)))[None]
    return np.asarray(_converted(Image.fromarray(pixels), "CMYK", icc))[0]


def _converted(image: Image.Image, mode: str, icc: bytes | None) -> Image.Image:
    """Between CMYK and RGB, by the inks' profile if it is sound: only then do fills look like their surroundings."""
    if icc is None:
        return image.convert(mode)
    try:
        profiles = ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB")
        source, target = profiles if mode == "RGB" else profiles[::-1]
        return ImageCms.buildTransform(source, target, image.mode, mode).apply(image)
    except (ImageCms.PyCMSError, OSError):
        return image.convert(mode)
