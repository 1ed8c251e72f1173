"""What a fill gives back, and how it is written down: pictures, a contact sheet, a record.

Legend: H W the picture's size, C its channels (1 or 3), N fills, Z latent channels. Pixels are uint8 (H, W, C).
"""

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from manyfill.caption import Caption
from manyfill.crop import Box
from manyfill.encode import Encoding
from manyfill.files import make_folder, save_bytes
from manyfill.images import contact_sheet, heatmap, png_bytes
from manyfill.originals import Original
from manyfill.quantiles import PROBABILITIES, few_note, quantiles, rank
from manyfill.recipe import Fill

if TYPE_CHECKING:
    from manyfill.likelihood import Likelihood

SMALLEST_TILE, LARGEST_TILE, FEWEST_COLUMNS = 192, 320, 4
PART = 4096  # pixels


@dataclass(frozen=True)
class Timings:
    """Seconds spent: drawing the fills at the model's size, evaluating the bound, and all together."""

    draw: float
    bound: float
    total: float


@dataclass(frozen=True, eq=False)
class Completions:
    """The fills of one picture.

    images N times (H, W, C), equal to `picture` wherever `mask` is False; mean (H, W, C), the pixel distributions'
    expectation averaged over the fills; std float32 (H, W), the fills' standard deviation in grey levels averaged
    over the channels; bound None without `truth`; fills N records to reroll and blend from; crop None where nothing was
    missing; original what the picture's file held, for files like it; seed and temperature None for a blend, which has
    none; caption what the model was told, if anything.
    """

    images: list[np.ndarray]
    mean: np.ndarray
    std: np.ndarray
    bound: "Likelihood | None"
    fills: tuple[Fill, ...]
    crop: Box | None
    notes: tuple[str, ...]
    timings: Timings
    picture: np.ndarray
    mask: np.ndarray
    truth: np.ndarray | None
    original: Original
    model: str
    seed: int | None
    temperature: float | Sequence[float] | None
    caption: Caption | None = None

    @property
    def latents(self) -> list[np.ndarray]:
        """By level, coarsest first, (N, T, Z, size, size) each, of T tiles of the first size."""
        return [np.stack(level) for level in zip(*(fill.latents for fill in self.fills), strict=True)]

    @property
    def seeds(self) -> tuple[tuple[int, ...], ...]:
        """Of each fill the keys that its noise comes from."""
        return tuple(fill.recipe.keys for fill in self.fills)

    def record(self) -> dict[str, Any]:
        """All that is not a picture, as values that JSON can hold."""
        height, width = self.mask.shape
        return {
            "model": self.model,
            "n": len(self.images),
            "seed": self.seed,
            "seeds": list(map(list, self.seeds)),
            "temperature": self.temperature,
            **(self.caption.record() if self.caption else {}),
            "size": {"height": height, "width": width},
            "hole_pixels": int(self.mask.sum()),
            "crop": self.crop and self.crop._asdict(),
            "bound": self.bound and self.bound.record(),
            "largest_std": float(self.std.max()),
            "quantiles": {
                name: f"{rank(p, len(self.images))} of {len(self.images)}" for name, p in PROBABILITIES.items()
            },
            "timings": asdict(self.timings),
            "notes": list(self.notes),
        }

    def noted(self, encoding: Encoding, with_quantiles: bool = True) -> "Completions":
        """The same, with notes on what its files do not keep, and on which of few fills their quantiles are."""
        few = few_note(len(self.images)) if with_quantiles else ()
        return replace(self, notes=(*self.notes, *encoding.notes(self.original), *few))

    def save(
        self,
        directory: str | os.PathLike[str],
        *,
        sheet: bool = True,
        encoding: Encoding | None = None,
        latents: bool = False,
    ) -> list[Path]:
        """Write what `files` gives into a directory, made if need be, and return the files' paths.

        With `latents` also fill-00.safetensors, ..., to reroll and blend. Every file appears whole or not at all.
        Raises OutputError where it cannot be written.
        """
        folder = make_folder(Path(directory))
        paths = []
        for name, content in self.files(encoding or Encoding(), sheet=sheet):
            save_bytes(folder / name, content)
            paths.append(folder / name)
        for name, content in self.latent_files(folder) if latents else ():
            save_bytes(folder / name, content)
            paths.append(folder / name)
        return paths

    def latent_files(self, folder: Path) -> Iterator[tuple[str, bytes]]:
        """Names and contents of fill-00.safetensors, ..., to lie in a folder."""
        for i, fill in enumerate(self.fills):
            yield f"fill-{i:02d}.safetensors", fill.content(folder)

    def files(
        self, encoding: Encoding, *, sheet: bool = True, with_quantiles: bool = True
    ) -> Iterator[tuple[str, bytes]]:
        """Names and contents of the files of `pictures`, of `deviations` and of sheet.png.

        The pictures are files like the original, or as `encoding` says. The quantiles are the fills' own values at the
        ranks that the record tells. OutputError.
        """
        suffix = encoding.suffix(self.original)
        for name, pixels in self.pictures(with_quantiles).items():
            yield name + suffix, encoding.encode(self.original, pixels, self.mask)
        yield from self.deviations(encoding)
        if sheet:
            yield "sheet.png", png_bytes(self.sheet())

    def deviations(self, encoding: Encoding) -> Iterator[tuple[str, bytes]]:
        """std.png, a heat map up to the largest value; for measurements also std as float32, in their unit."""
        yield "std.png", png_bytes(self.uncertainty())
        if self.original.measured:
            std = self.original.in_own_units(self.std)[..., None]
            own = Encoding("npy" if encoding.target(self.original) == "NPY" else "tiff")
            yield f"std{own.suffix(self.original)}", own.encode(Original(std, "L"), self.mean, np.zeros_like(self.mask))

    def pictures(self, with_quantiles: bool = True) -> dict[str, np.ndarray]:
        """fill-00, fill-01, ..., mean, q05, q50 and q95 as they are shown, uint8 (H, W, C)."""
        found = {f"fill-{i:02d}": image for i, image in enumerate(self.images)} | {"mean": self.mean}
        return found | (quantiles(self.images, self.mask) if with_quantiles else {})

    def uncertainty(self, region: tuple[slice, slice] = (slice(None), slice(None))) -> np.ndarray:
        """`std` of a region as a heat map uint8 (H, W, 3), dark for 0 to bright for its largest value."""
        return heatmap(self.std[region] / max(float(self.std.max()), 1e-6))

    def sheet(self) -> np.ndarray:
        """Input, mask, fills, mean and uncertainty map of the region around the hole, uint8 (H', W', 3)."""
        region = self.crop.inside(*self.mask.shape) if self.crop else (slice(None), slice(None))
        mask = self.mask[region]
        head = {
            "input": hatched(self.picture[region], mask),
            "mask": mask.astype(np.uint8)[..., None] * 255,
            "mean": self.mean[region],
            f"std, up to {self.std.max():.1f} levels": self.uncertainty(region),
        }
        if self.truth is not None:
            head["truth"] = self.truth[region]
        columns = max(FEWEST_COLUMNS, len(head), math.ceil(math.sqrt(len(self.images))))
        rows, labels = [list(head.values())], [list(head)]
        for start in range(0, len(self.images), columns):
            rows.append([image[region] for image in self.images[start : start + columns]])
            labels.append([f"fill {start + i}" for i in range(len(rows[-1]))])
        longer = max(mask.shape)
        # A whole multiple, so that every pixel of a small picture is enlarged alike.
        tile = min(longer, LARGEST_TILE) if longer >= SMALLEST_TILE else longer * math.ceil(SMALLEST_TILE / longer)
        return contact_sheet(rows, labels, tile=tile)


def hatched(pixels: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """The picture with grey stripes where it is missing, uint8 (H, W, C)."""
    height, width = mask.shape
    stripe = max(2, max(height, width) // 64)
    rows, columns = np.ogrid[:height, :width]
    stripes = np.where((rows + columns) // stripe % 2, 190, 110).astype(np.uint8)
    return np.where(mask[..., None], stripes[..., None], pixels)


def spread(images: list[np.ndarray], mask: np.ndarray) -> np.ndarray:
    """Standard deviation over the fills, averaged over channels, float32 (H, W); exactly 0 where all agree."""
    std, missing = np.zeros(mask.shape, np.float32), np.flatnonzero(mask)
    # In parts, so that never all the fills are in memory once more.
    for part in np.split(missing, range(PART, len(missing), PART)):
        values = np.stack([image.reshape(-1, image.shape[2]).take(part, 0) for image in images])
        std.put(part, values.std(0).mean(-1))
    return std
