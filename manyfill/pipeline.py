"""From any picture and any hole to many fills: read, crop, shrink to the model's size, draw, enlarge, paste.

Legend: H W the picture's size, C its channels (1 or 3), S the model's size, N fills. Pixels are uint8 (H, W, C),
masks bool (H, W) with True = missing, tensors (C, H, W) in [-1, 1].
"""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from torch import Tensor

from manyfill.checkpoint import load_model
from manyfill.completions import Completions, Likelihood, Timings
from manyfill.crop import Box, paste, shrink, surround
from manyfill.device import autocast, best_device
from manyfill.errors import PictureError
from manyfill.images import DEFAULT_MAX_PIXELS, to_pixels, to_tensor
from manyfill.inputs import PictureLike, Sampling, Subject, read
from manyfill.models.bound import importance_bound, level_kl, log_weight
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.rng import generator, key

AT_ONCE = 16  # fills of a picture, or samples of a bound: in portions, so that memory does not grow with their number
BOUND_SAMPLES = 16
PART = 4096  # pixels
EMPTY_NOTE = "the mask is empty (all black): nothing to fill, the picture is unchanged"
NOTHING_KNOWN_NOTE = "nothing of the picture is known: the fills are what the model makes up"
TOO_FINE_NOTE = "the holes are too fine for the model's size: nothing known is left there, the fills ignore the picture"


@dataclass(frozen=True)
class Shown:
    """What the model is shown of a picture: x (1, C, S, S) and m (1, 1, S, S) of the square `box`."""

    box: Box
    x: Tensor
    m: Tensor
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Drawn:
    """Fills x (N, C, S, S), their mean (C, S, S), the latents by level (N, Z, size, size), and the seconds it took.

    All of it lies where the model does.
    """

    x: Tensor
    mean: Tensor
    latents: list[Tensor]
    seconds: float


class Filler:
    """A model that fills pictures of any size.

    A call is `read`, `show`, `draw`, `complete`. Whoever fills many pictures takes these steps one by one, to draw
    several pictures in one batch of the model, and to do all the others in threads meanwhile.
    """

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
        assert bound_samples >= 1
        sampling = Sampling(n, seed, temperature)
        subject = read(image, mask, truth, max_pixels)
        shown = self.show(subject)
        drawn = self.draw([shown], sampling)[0] if shown else None
        began = perf_counter()
        bound = self._bound(subject, shown, seed, bound_samples) if shown else None
        now = perf_counter()
        spent = Timings(draw=drawn.seconds if drawn else 0.0, bound=now - began if bound else 0.0, total=now - started)
        return self.complete(subject, shown, drawn, sampling, spent, bound)

    @torch.inference_mode()
    def condition(self, image: PictureLike, mask: PictureLike | None = None) -> Known:
        """What the model is told of a picture with a hole, as in a call."""
        shown = self.show(read(image, mask))
        assert shown, "a hole to fill"
        with autocast(self.device):
            return self.model.encode_known(shown.x, shown.m)

    def show(self, subject: Subject) -> Shown | None:
        """The square around the hole at the model's size; None where nothing is missing. PictureError."""
        config, pixels, hole = self.model.config, subject.picture.pixels, subject.hole
        if not hole.any():
            return None
        if pixels.shape[2] > config.channels:
            name = subject.picture.name
            raise PictureError(f"{name}: is in colour but the model is grey; convert it or change --model")
        box = surround(hole, config.size)
        small, small_hole = shrink(box.cut(pixels), box.cut(hole), config.size)
        notes = () if not small_hole.all() else (NOTHING_KNOWN_NOTE,) if hole.all() else (TOO_FINE_NOTE,)
        m = torch.from_numpy(small_hole)[None, None].float().to(self.device)
        return Shown(box, self._tensor(small), m, notes)

    @torch.inference_mode()
    def draw(self, pictures: Sequence[Shown], sampling: Sampling) -> list[Drawn]:
        """The fills of each picture, of all of them in one batch; each from generators of its own."""
        began, n = perf_counter(), sampling.n
        portions = [range(start, min(start + AT_ONCE, n)) for start in range(0, n, AT_ONCE)]
        parts: list[list[tuple[Tensor, Tensor, list[Tensor]]]] = [[] for _ in pictures]
        with autocast(self.device):
            known = self.model.encode_known(torch.cat([s.x for s in pictures]), torch.cat([s.m for s in pictures]))
            for portion in portions:
                noise = [generator(sampling.seed, "fill", i) for _ in pictures for i in portion]
                fills = self.model.fill(known, noise, sampling.temperature)
                for place, part in enumerate(parts):
                    own = slice(place * len(portion), (place + 1) * len(portion))
                    part.append((fills.x[own], fills.mean[own].sum(0), [z[own] for z in fills.latents]))
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)  # else the seconds would be those of asking
        seconds = (perf_counter() - began) / len(pictures)
        return [_joined(part, n, seconds) for part in parts]

    def complete(
        self,
        subject: Subject,
        shown: Shown | None,
        drawn: Drawn | None,
        sampling: Sampling,
        spent: Timings,
        bound: Likelihood | None = None,
    ) -> Completions:
        """The fills at the picture's size; `shown` and `drawn` are None where nothing is missing.

        `spent` are the seconds so far, to which those of this step are added.
        """
        began = perf_counter()
        pixels, hole = subject.picture.pixels, subject.hole
        if shown and drawn:
            box, notes = shown.box, shown.notes
            mean, *images = (paste(pixels, hole, box, to_pixels(fill)) for fill in (drawn.mean, *drawn.x))
        else:
            box, notes = None, (EMPTY_NOTE,)
            mean, *images = (pixels.copy() for _ in range(sampling.n + 1))
        return Completions(
            images=images,
            mean=mean,
            std=_spread(images, hole),
            bound=bound,
            latents=[z.float().cpu() for z in drawn.latents] if drawn else [],
            seeds=tuple(key(sampling.seed, "fill", i) for i in range(sampling.n)),
            crop=box,
            notes=subject.picture.notes + notes,
            timings=Timings(spent.draw, spent.bound, spent.total + perf_counter() - began),
            picture=pixels,
            mask=hole,
            truth=subject.whole,
            original=subject.original,
            model=self.id,
            seed=sampling.seed,
            temperature=sampling.temperature,
        )

    def _tensor(self, pixels: np.ndarray) -> Tensor:
        """(1, C, S, S) on the device; a grey picture takes the model's channels."""
        return to_tensor(pixels).expand(self.model.config.channels, -1, -1)[None].to(self.device)

    @torch.inference_mode()
    def _bound(self, subject: Subject, shown: Shown, seed: int, samples: int) -> Likelihood | None:
        if subject.whole is None:
            return None
        box, size = shown.box, self.model.config.size
        whole, _ = shrink(box.cut(subject.whole), np.zeros_like(box.cut(subject.hole)), size)
        x = torch.where(shown.m > 0, self._tensor(whole), shown.x)
        # The noise must be made where the model lives.
        noise = torch.Generator(self.device).manual_seed(key(seed, "bound"))
        pixels, kl, weights = [], [], []
        with autocast(self.device):
            seen = self.model.encode(x, shown.m)
            for start in range(0, samples, AT_ONCE):
                drawn, steps = self.model.infer(seen.repeat(min(AT_ONCE, samples - start)), noise)
                pixels.append(drawn)
                kl.append(level_kl(steps))
                weights.append(log_weight(drawn, steps))
        levels = torch.cat(kl).double().mean(0)
        return Likelihood(
            nats=float(torch.cat(pixels).double().mean() - levels.sum()),
            nats_k=float(importance_bound(torch.cat(weights).double())),
            kl=tuple(levels.tolist()),
            dims=int(shown.m.sum()) * self.model.config.channels,
            samples=samples,
        )


def _joined(portions: list[tuple[Tensor, Tensor, list[Tensor]]], n: int, seconds: float) -> Drawn:
    """One picture's portions: fills, the sum of their means, latents by level."""
    fills, sums, latents = zip(*portions, strict=True)
    return Drawn(torch.cat(fills), sum(sums) / n, [torch.cat(level) for level in zip(*latents, strict=True)], seconds)


def _spread(images: list[np.ndarray], hole: np.ndarray) -> np.ndarray:
    """Standard deviation over the fills, averaged over channels, float32 (H, W); exactly 0 where all agree."""
    std, missing = np.zeros(hole.shape, np.float32), np.flatnonzero(hole)
    # In parts, so that never all the fills are in memory once more.
    for part in np.split(missing, range(PART, len(missing), PART)):
        values = np.stack([image.reshape(-1, image.shape[2]).take(part, 0) for image in images])
        std.put(part, values.std(0).mean(-1))
    return std
