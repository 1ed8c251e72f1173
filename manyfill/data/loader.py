"""The training stream: which picture, crop, mask and guide stand at each position.

The sample at position p depends on (seed, p) alone. With N pictures, epoch e = p // N and place i = p % N name its
draws, so any number of workers gives the same batches, and the step is all that a resumed run needs.
"""

import itertools
import math
import signal
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from PIL import Image, ImageFilter
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from manyfill.data.batch import Batch, Example, Sample, Skipped, Source, collate
from manyfill.data.captions import mirrored
from manyfill.errors import ConfigError, DataError, ManyfillError, PictureError
from manyfill.images import resize, to_tensor
from manyfill.masks import KINDS, LARGE_KINDS, SMALLEST_SIDE, MaskFolder, draw
from manyfill.rng import numpy_generator

DEFAULT_MASKS: Mapping[str, float] = {
    "centre": 0.3,
    "boxes": 0.15,
    "brush": 0.2,
    "scratches": 0.07,
    "pixels": 0.1,
    "outpaint": 0.08,
    "half": 0.1,
    # Rarely wanted, but a model that never met them is lost where next to nothing is known.
    "large": 0.05,
    "all": 0.05,
}


@dataclass(frozen=True)
class StreamConfig:
    """What is drawn: pictures of `size`, with holes by weight of kind ("folder" stands for the user's own masks).

    `augment` takes random square tiles of pictures larger than `size`, else the central one; `flip` mirrors half of
    all pictures, and exchanges left and right in their captions. A picture's captions are kept from the model in
    `caption_drop` of the cases, and one is drawn in the others. ConfigError for impossible values.
    """

    size: int
    channels: int = 3
    seed: int = 0
    masks: Mapping[str, float] = field(default_factory=lambda: dict(DEFAULT_MASKS))
    guide_probability: float = 0.5
    augment: bool = True
    flip: bool = True
    caption_drop: float = 1.0

    def __post_init__(self) -> None:
        if self.size < SMALLEST_SIDE:
            raise ConfigError(f"size={self.size}: must be {SMALLEST_SIDE} or more")
        if self.channels not in (1, 3):
            raise ConfigError(f"channels={self.channels}: must be 1 (grey) or 3 (colour)")
        if not 0 <= self.guide_probability <= 1:
            raise ConfigError(f"guide_probability={self.guide_probability}: must lie in 0..1")
        if not 0 <= self.caption_drop <= 1:
            raise ConfigError(f"caption_drop={self.caption_drop}: must lie in 0..1")
        valid = (*KINDS, *LARGE_KINDS, "folder")
        for kind, weight in self.masks.items():
            if kind not in valid:
                raise ConfigError(f"masks: unknown kind '{kind}'; valid kinds are {', '.join(valid)}")
            if not (math.isfinite(weight) and weight >= 0):
                raise ConfigError(f"masks: weight {weight} of '{kind}' must be 0 or more")
        if not sum(self.masks.values()) > 0:
            raise ConfigError("masks: give at least one kind a weight above 0")


class TrainingSamples(Dataset[Sample]):
    """The endless row of training samples, each by its position.

    Unreadable pictures give way to the next one in the source and are noted in the sample, or raise PictureError
    if `strict`. DataError if no picture can be read.
    """

    def __init__(
        self, source: Source, config: StreamConfig, mask_folder: MaskFolder | None = None, strict: bool = False
    ):
        if (mask_folder is not None) != (config.masks.get("folder", 0) > 0):
            raise ConfigError("masks: a mask folder and a weight for 'folder' go together; give both or neither")
        self.source, self.config, self.mask_folder, self.strict = source, config, mask_folder, strict
        self._order: tuple[int, np.ndarray] = (-1, np.empty(0, np.int64))

    def __getitem__(self, position: int) -> Sample:
        config = self.config
        epoch, place = divmod(position, len(self.source))
        example, skipped = self._read(int(self._epoch_order(epoch)[place]))
        crop = self._rng("crop", epoch, place) if config.augment else None
        example = replace(example, pixels=tile(example.pixels, config.size, crop))
        if config.flip and self._rng("flip", epoch, place).random() < 0.5:
            example = flipped(example)
        pixels = with_channels(example.pixels, config.channels)
        rng = self._rng("guide", epoch, place)
        guide = draw_guide(pixels, rng) if rng.random() < config.guide_probability else None
        mask = self._draw_mask(self._rng("mask", epoch, place))
        told = draw_caption(example.captions, self._rng("caption", epoch, place), config.caption_drop)
        return _sample(pixels, mask, guide, example, skipped, told)

    def _rng(self, purpose: str, epoch: int, place: int) -> np.random.Generator:
        return numpy_generator(self.config.seed, purpose, epoch, place)

    def _epoch_order(self, epoch: int) -> np.ndarray:
        if self._order[0] != epoch:
            rng = numpy_generator(self.config.seed, "order", epoch)
            self._order = (epoch, rng.permutation(len(self.source)))
        return self._order[1]

    def _read(self, index: int) -> tuple[Example, list[Skipped]]:
        skipped: list[Skipped] = []
        count = len(self.source)
        for candidate in ((index + step) % count for step in range(count)):
            try:
                return self.source[candidate], skipped
            except PictureError as error:
                if self.strict:
                    raise
                skipped.append(Skipped(self.source.name(candidate), str(error)))
        raise DataError(f"none of the {count} pictures can be read, the last because {skipped[-1].reason}")

    def _draw_mask(self, rng: np.random.Generator) -> np.ndarray:
        kinds, weights = zip(*self.config.masks.items(), strict=True)
        kind = kinds[rng.choice(len(kinds), p=np.array(weights) / sum(weights))]
        size = self.config.size
        if kind == "folder":
            assert self.mask_folder is not None
            return self.mask_folder.draw(size, size, rng)
        return draw(kind, size, size, rng)


def tile(pixels: np.ndarray, size: int, rng: np.random.Generator | None) -> np.ndarray:
    """A square of a picture (H, W, C) at size (size, size, C): at random, or the largest central one without `rng`.

    The random square's side is log-uniform between `size` and the picture's shorter side. A picture too small for
    that gives its central square, enlarged.
    """
    height, width = pixels.shape[:2]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    if rng is not None and side >= size:
        side = round(math.exp(rng.uniform(math.log(size), math.log(side))))
        top, left = rng.integers(height - side + 1), rng.integers(width - side + 1)
    square = pixels[top : top + side, left : left + side]
    return square if side == size else resize(np.ascontiguousarray(square), size, size)


def flipped(example: Example) -> Example:
    """The mirrored picture, and what is said of that."""
    return Example(np.ascontiguousarray(example.pixels[:, ::-1]), list(map(mirrored, example.captions)), example.name)


def with_channels(pixels: np.ndarray, channels: int) -> np.ndarray:
    """A picture (H, W, 1 or 3) as (H, W, channels): grey repeated, colour weighed to luma (ITU-R BT.601)."""
    if pixels.shape[2] == channels:
        return pixels
    if channels == 3:
        return pixels.repeat(3, axis=2)
    return np.asarray(Image.fromarray(pixels).convert("L"))[:, :, None]


def coarse_guide(pixels: np.ndarray, factor: int, blur: float = 0.0, noise: np.ndarray | None = None) -> np.ndarray:
    """A picture uint8 (H, W, C) shrunk by `factor` and brought back to its size by bicubic interpolation.

    `blur` is a Gaussian radius in small pixels; `noise`, in grey levels, has the small picture's shape.
    """
    height, width, channels = pixels.shape
    small = Image.fromarray(pixels[:, :, 0] if channels == 1 else pixels)
    small = small.resize(_small_size(width, height, factor), Image.Resampling.BOX)
    if blur > 0:
        small = small.filter(ImageFilter.GaussianBlur(blur))
    if noise is not None:
        values = np.asarray(small, np.float32).reshape(noise.shape) + noise
        values = np.clip(np.rint(values), 0, 255).astype(np.uint8)
        small = Image.fromarray(values[:, :, 0] if channels == 1 else values)
    return np.array(small.resize((width, height), Image.Resampling.BICUBIC)).reshape(pixels.shape)


def _small_size(width: int, height: int, factor: int) -> tuple[int, int]:
    return max(1, width // factor), max(1, height // factor)


def draw_guide(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A coarse answer as refinement would meet it: by 2 (80 %) or 4, half the time a little blurred, noisy or both.

    The flaws are there because in use the guide is the model's own answer, which is never as good as the truth.
    """
    factor = 2 if rng.random() < 0.8 else 4
    flaw = rng.integers(1, 4) if rng.random() < 0.5 else 0
    blur = rng.uniform(0.3, 1.0) if flaw & 1 else 0.0
    noise = None
    if flaw & 2:
        width, height = _small_size(pixels.shape[1], pixels.shape[0], factor)
        noise = rng.normal(0.0, rng.uniform(0.5, 4.0), (height, width, pixels.shape[2])).astype(np.float32)
    return coarse_guide(pixels, factor, blur, noise)


def draw_caption(captions: Sequence[str], rng: np.random.Generator, drop: float) -> str | None:
    """One of a picture's captions, each as likely, or in a share `drop` of the cases none."""
    if not captions or rng.random() < drop:
        return None
    return captions[int(rng.integers(len(captions)))]


def _sample(
    pixels: np.ndarray,
    mask: np.ndarray,
    guide: np.ndarray | None,
    example: Example,
    skipped: list[Skipped],
    told: str | None,
) -> Sample:
    m: Tensor = torch.from_numpy(np.ascontiguousarray(mask)).to(torch.float32)[None]
    coarse = None if guide is None else to_tensor(guide)
    return Sample(to_tensor(np.ascontiguousarray(pixels)), m, coarse, example.captions, example.name, skipped, told)


class _Steps(Dataset[Batch | ManyfillError]):
    """One rank's batches by step. Errors are values: a worker that raises buries its one line in a traceback."""

    def __init__(self, samples: TrainingSamples, batch_size: int, rank: int, world: int):
        self.samples, self.batch_size = samples, batch_size
        self.share = batch_size // world
        self.offset = rank * self.share

    def __getitem__(self, step: int) -> Batch | ManyfillError:
        first = step * self.batch_size + self.offset
        try:
            return collate([self.samples[position] for position in range(first, first + self.share)])
        except ManyfillError as error:
            return error


def _start_worker(_: int) -> None:
    # Ctrl-C and a cluster's SIGTERM reach the whole process group; the training loop alone decides what they mean.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(1)


def batches(
    samples: TrainingSamples, batch_size: int, start_step: int = 0, workers: int = 1, rank: int = 0, world: int = 1
) -> Iterator[Batch]:
    """The batches of steps start_step, start_step + 1, ... without end, the same for any number of workers.

    Step s holds positions s * batch_size onwards; of these, `rank` of `world` processes takes its own equal share, so
    that the shares in order of rank make up the batch of one process. workers=0 decodes in this process. ConfigError
    if the batch cannot be shared out equally, PictureError if the samples are strict and one is unreadable, DataError
    if all are.
    """
    if batch_size < 1:
        raise ConfigError(f"batch_size={batch_size}: must be 1 or more")
    if batch_size % world:
        raise ConfigError(
            f"train.batch_size={batch_size}: cannot be shared out equally among {world} processes; "
            f"make it a multiple of {world}"
        )
    assert 0 <= rank < world, f"rank {rank} of {world}"
    loader = DataLoader(
        _Steps(samples, batch_size, rank, world),
        batch_size=None,
        sampler=itertools.count(start_step),
        num_workers=workers,
        worker_init_fn=_start_worker,
        generator=torch.Generator(),  # or making the loader would advance the global one
    )
    for item in loader:
        if isinstance(item, ManyfillError):
            raise item
        yield item


def fixed_batches(
    source: Source,
    size: int,
    channels: int,
    seed: int,
    kind: str,
    batch_size: int,
    limit: int | None = None,
    guide: bool = False,
    strict: bool = False,
) -> Iterator[Batch]:
    """The first `limit` pictures in order for validation: central crops, one kind of mask fixed by (seed, picture).

    `guide` adds the clean guide of factor 2; of several captions the first is told. The last batch may be smaller.
    Unreadable pictures are noted in `skipped`, or raise PictureError if `strict`; DataError if none can be read.
    """
    ready: list[Sample] = []
    skipped: list[Skipped] = []
    for index in range(len(source) if limit is None else min(limit, len(source))):
        try:
            example = source[index]
        except PictureError as error:
            if strict:
                raise
            skipped.append(Skipped(source.name(index), str(error)))
            continue
        if len(ready) == batch_size:
            yield collate(ready)
            ready = []
        pixels = with_channels(tile(example.pixels, size, None), channels)
        mask = draw(kind, size, size, numpy_generator(seed, "mask", index))
        coarse, first = coarse_guide(pixels, 2) if guide else None, next(iter(example.captions), None)
        ready.append(_sample(pixels, mask, coarse, example, skipped, first))
        skipped = []
    if not ready:
        raise DataError(f"no validation picture can be read{f': {skipped[0].reason}' if skipped else ''}")
    ready[-1].skipped.extend(skipped)
    yield collate(ready)
