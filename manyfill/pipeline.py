"""From any picture and any hole to many fills: read, crop, shrink to the model's size, draw, enlarge, paste.

Legend: H W the picture's size, C its channels (1 or 3), S the model's size, N fills. Pixels are uint8 (H, W, C),
masks bool (H, W) with True = missing, tensors (C, H, W) in [-1, 1].
"""

import math
import os
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from manyfill.checkpoint import load_model
from manyfill.completions import Completions, Likelihood, Timings
from manyfill.crop import Box, paste, shrink, surround
from manyfill.device import autocast, best_device
from manyfill.errors import ConfigError, PictureError
from manyfill.images import DEFAULT_MAX_PIXELS, Picture, open_picture, to_pixels, to_tensor
from manyfill.masks import from_alpha, from_picture
from manyfill.models.bound import importance_bound, level_kl, log_weight
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.rng import generator, key

PictureLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

AT_ONCE = 16  # fills, or samples of a bound: in portions, so that memory does not grow with their number
BOUND_SAMPLES = 16
EMPTY_NOTE = "the mask is empty (all black): nothing to fill, the picture is unchanged"
TOO_FINE_NOTE = "the holes are too fine for the model's size: nothing known is left there, the fills ignore the picture"


class Filler:
    """A model that fills pictures of any size."""

    def __init__(self, model: ConditionalHVAE, id: str) -> None:
        self.model, self.id = model.eval(), id
        self.device = next(model.parameters()).device

    @classmethod
    def from_pretrained(cls, source: str | os.PathLike[str] = "default", device: str | None = None) -> "Filler":
        """The model of `source`: "default", a directory or a hub id "owner/name"; raises ModelError.

        `device` is torch's name of where to compute; None takes the GPU if there is one.
        """
        loaded = load_model(os.fspath(source))
        return cls(loaded.model.to(torch.device(device) if device else best_device()), loaded.id)

    def __call__(
        self,
        image: PictureLike,
        mask: PictureLike | None = None,
        n: int = 8,
        seed: int = 0,
        temperature: float = 1.0,
        truth: PictureLike | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        bound_samples: int = BOUND_SAMPLES,
    ) -> Completions:
        """Draw n fills of the picture; fill i is a function of (picture, mask, seed, i) and the temperature.

        Pictures are paths, PIL images, uint8 arrays (H, W), (H, W, 1) or (H, W, 3), or tensors (C, H, W) in [-1, 1];
        masks are paths or PIL images (luma over 127 = missing), or arrays or tensors (H, W) of bool, 0 and 1, or 0 to
        255; None takes the picture's transparent pixels. `truth` is the whole picture, for the bounds,
        estimated with `bound_samples` draws of the posterior at the model's size. Hole pixels of `image` are never
        read. Raises PictureError and ConfigError.
        """
        started = perf_counter()
        _check_settings(n, temperature)
        assert bound_samples >= 1
        picture = _read_picture(image, "picture", max_pixels)
        hole = _read_mask(mask, picture, max_pixels)
        whole = None if truth is None else _read_truth(truth, picture, max_pixels)
        task = _Task(picture, hole, whole, n, seed, temperature, bound_samples)
        filled = self._fill(task) if hole.any() else _unchanged(task)
        return Completions(
            images=filled.images,
            mean=filled.mean,
            std=_spread(filled.images, filled.box),
            bound=filled.bound,
            latents=filled.latents,
            seeds=tuple(key(seed, "fill", i) for i in range(n)),
            crop=filled.box,
            notes=picture.notes + filled.notes,
            timings=Timings(**filled.seconds, total=perf_counter() - started),
            picture=picture.pixels,
            mask=hole,
            truth=whole,
            alpha=_alpha(picture, hole),
            model=self.id,
            seed=seed,
            temperature=temperature,
        )

    @torch.inference_mode()
    def condition(self, image: PictureLike, mask: PictureLike | None = None) -> Known:
        """What the model is told of a picture with a hole, as in a call."""
        picture = _read_picture(image, "picture", DEFAULT_MAX_PIXELS)
        _, _, x, m = self._shown(picture, _read_mask(mask, picture, DEFAULT_MAX_PIXELS))
        with autocast(self.device):
            return self.model.encode_known(x, m)

    def _shown(self, picture: Picture, hole: np.ndarray) -> tuple[Box, np.ndarray, Tensor, Tensor]:
        """The square around the hole, the hole in it at the model's size (S, S), and both as tensors."""
        size = self.model.config.size
        if picture.pixels.shape[2] > self.model.config.channels:
            raise PictureError(f"{picture.name}: is in colour but the model is grey; convert it or change --model")
        box = surround(hole, size)
        small, small_hole = shrink(box.cut(picture.pixels), box.cut(hole), size)
        return box, small_hole, *self._tensors(small, small_hole)

    def _fill(self, task: "_Task") -> "_Filled":
        config, pixels, hole = self.model.config, task.picture.pixels, task.hole
        box, small_hole, x, m = self._shown(task.picture, hole)
        began = perf_counter()
        fills, mean, latents = self._draw(x, m, task)
        drawn = perf_counter()
        bound = None
        if task.whole is not None:
            whole, _ = shrink(box.cut(task.whole), np.zeros_like(box.cut(hole)), config.size)
            bound = self._bound(torch.where(m > 0, self._tensors(whole, small_hole)[0], x), m, task)
        seconds = {"draw": drawn - began, "bound": perf_counter() - drawn}
        return _Filled(
            images=[paste(pixels, hole, box, fill) for fill in fills],
            mean=paste(pixels, hole, box, mean),
            latents=latents,
            bound=bound,
            box=box,
            notes=(TOO_FINE_NOTE,) if small_hole.all() and not hole.all() else (),
            seconds=seconds,
        )

    def _tensors(self, pixels: np.ndarray, hole: np.ndarray) -> tuple[Tensor, Tensor]:
        """(1, C, S, S) and (1, 1, S, S) on the device; a grey picture takes the model's channels."""
        x = to_tensor(pixels).expand(self.model.config.channels, -1, -1)
        return x[None].to(self.device), torch.from_numpy(hole)[None, None].float().to(self.device)

    @torch.inference_mode()
    def _draw(self, x: Tensor, m: Tensor, task: "_Task") -> tuple[list[np.ndarray], np.ndarray, list[Tensor]]:
        """Fills and their mean (S, S, C), and the latents by level (N, Z, size, size)."""
        pixels: list[np.ndarray] = []
        latents: list[list[Tensor]] = []
        total = torch.zeros_like(x[0])
        with autocast(self.device):
            known = self.model.encode_known(x, m)
            for start in range(0, task.n, AT_ONCE):
                noise = [generator(task.seed, "fill", i) for i in range(start, min(start + AT_ONCE, task.n))]
                fills = self.model.fill(known, noise, task.temperature)
                pixels += [to_pixels(fill) for fill in fills.x]
                latents.append([z.float().cpu() for z in fills.latents])
                total += fills.mean.sum(0)
        return pixels, to_pixels(total / task.n), [torch.cat(level) for level in zip(*latents, strict=True)]

    @torch.inference_mode()
    def _bound(self, x: Tensor, m: Tensor, task: "_Task") -> Likelihood:
        # The noise must be made where the model lives.
        noise = torch.Generator(self.device).manual_seed(key(task.seed, "bound"))
        pixels, kl, weights = [], [], []
        with autocast(self.device):
            seen = self.model.encode(x, m)
            for start in range(0, task.bound_samples, AT_ONCE):
                drawn, steps = self.model.infer(seen.repeat(min(AT_ONCE, task.bound_samples - start)), noise)
                pixels.append(drawn)
                kl.append(level_kl(steps))
                weights.append(log_weight(drawn, steps))
        levels = torch.cat(kl).double().mean(0)
        return Likelihood(
            nats=float(torch.cat(pixels).double().mean() - levels.sum()),
            nats_k=float(importance_bound(torch.cat(weights).double())),
            kl=tuple(levels.tolist()),
            dims=int(m.sum()) * self.model.config.channels,
            samples=task.bound_samples,
        )


@dataclass(frozen=True)
class _Task:
    """What was asked for, read and checked."""

    picture: Picture
    hole: np.ndarray
    whole: np.ndarray | None
    n: int
    seed: int
    temperature: float
    bound_samples: int


@dataclass(frozen=True)
class _Filled:
    """Fills and their mean at the picture's size, and how they came about."""

    images: list[np.ndarray]
    mean: np.ndarray
    latents: list[Tensor]
    bound: Likelihood | None
    box: Box | None
    notes: tuple[str, ...]
    seconds: dict[str, float]


def _unchanged(task: _Task) -> _Filled:
    copies = [task.picture.pixels.copy() for _ in range(task.n + 1)]
    return _Filled(copies[1:], copies[0], [], None, None, (EMPTY_NOTE,), {"draw": 0.0, "bound": 0.0})


def _spread(images: list[np.ndarray], box: Box | None) -> np.ndarray:
    """Standard deviation over the fills, averaged over channels, float32 (H, W); exactly 0 where all agree."""
    height, width, channels = images[0].shape
    std = np.zeros((height, width), np.float32)
    if box is None:
        return std
    n, inside = len(images), box.inside(height, width)
    for c in range(channels):
        # Sums of whole numbers: exact, and never all the fills in memory once more.
        total = np.zeros(std[inside].shape, np.uint64)
        squares = total.copy()
        for image in images:
            values = image[inside][..., c].astype(np.uint16)  # holds 255**2
            total += values
            squares += values * values
        std[inside] += np.sqrt(n * squares - total * total) / (n * channels)
    return std


def _alpha(picture: Picture, hole: np.ndarray) -> np.ndarray | None:
    """The picture's transparency, gone where it was filled; None where nothing is transparent."""
    if picture.alpha is None:
        return None
    alpha = np.where(hole, np.uint8(255), picture.alpha)
    return None if (alpha == 255).all() else alpha


# ----------------------------------------------------------------------------------------------------- reading


def _check_settings(n: int, temperature: float) -> None:
    if n < 1:
        raise ConfigError(f"-n {n}: is no number of fills; ask for 1 or more")
    if not (math.isfinite(temperature) and temperature >= 0):
        raise ConfigError(f"--temperature {temperature}: must be 0 or more; 1 draws from the model as it is")


def _read_picture(source: PictureLike, what: str, max_pixels: int) -> Picture:
    if isinstance(source, Tensor):
        return Picture(_tensor_pixels(source, what), None, what)
    if isinstance(source, np.ndarray):
        pixels = source[..., None] if source.ndim == 2 else source
        if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or not pixels.size:
            found = f"{source.dtype} {source.shape}"
            raise PictureError(f"{what}: the array is {found}; give uint8 (H, W), (H, W, 1) or (H, W, 3)")
        return Picture(pixels.copy(), None, what)
    return open_picture(source, name=what if isinstance(source, Image.Image) else None, max_pixels=max_pixels)


def _tensor_pixels(x: Tensor, what: str) -> np.ndarray:
    if x.ndim != 3 or x.shape[0] not in (1, 3) or not x.numel() or not x.is_floating_point():
        raise PictureError(f"{what}: the tensor is {x.dtype} {tuple(x.shape)}; give float (1 or 3, H, W) in [-1, 1]")
    if not x.abs().max() <= 1.001:  # not a NaN either
        raise PictureError(f"{what}: the tensor has values outside [-1, 1]; scale it as x = v / 127.5 - 1")
    return to_pixels(x)


def _read_mask(source: PictureLike | None, picture: Picture, max_pixels: int) -> np.ndarray:
    if source is None:
        if picture.alpha is None:
            raise PictureError(f"{picture.name}: has no transparent pixels to fill; name the hole with --mask")
        return from_alpha(picture.alpha)
    name = "mask" if isinstance(source, (Image.Image, np.ndarray, Tensor)) else os.fspath(source)
    if isinstance(source, Tensor):
        source = source.detach().cpu()
        source = (source.float() if source.is_floating_point() else source).numpy()
        source = source[0] if source.ndim == 3 and len(source) == 1 else source
    if isinstance(source, np.ndarray):
        hole = _array_mask(source)
    else:
        hole = from_picture(_read_picture(source, "mask", max_pixels).pixels)
    if hole.shape != picture.pixels.shape[:2]:
        found, wanted = _size(hole), _size(picture.pixels)
        raise PictureError(f"{name}: the mask is {found} but the picture is {wanted}; save it at the picture's size")
    return hole


def _array_mask(values: np.ndarray) -> np.ndarray:
    values = values[..., 0] if values.ndim == 3 and values.shape[2] == 1 else values
    if values.ndim != 2 or not values.size:
        raise PictureError(f"mask: the array has the shape {values.shape}; give (H, W)")
    if values.max() <= 1:  # bool, or 0 and 1 of any type
        return values > 0.5
    if np.issubdtype(values.dtype, np.integer):
        return values > 127
    raise PictureError("mask: floating-point values must lie in [0, 1], 1 = missing; scale it")


def _read_truth(source: PictureLike, picture: Picture, max_pixels: int) -> np.ndarray:
    whole = _read_picture(source, "truth", max_pixels)
    if whole.pixels.shape != picture.pixels.shape:
        found, wanted = (
            f"{_size(p)} {'colour' if p.shape[2] == 3 else 'grey'}" for p in (whole.pixels, picture.pixels)
        )
        raise PictureError(
            f"{whole.name}: the truth is {found} but the picture is {wanted}; give the same picture whole"
        )
    return whole.pixels


def _size(array: np.ndarray) -> str:
    return f"{array.shape[1]}x{array.shape[0]}"
