"""What the torch network says of a picture besides its fills: what it is told of it, and how likely the truth is.

Legend: C channels of the model, S its size, x (1, C, S, S) a picture in [-1, 1], m (1, 1, S, S) its hole.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyfill.caption import tell
from manyfill.crop import shrink, surround
from manyfill.device import autocast
from manyfill.images import to_tensor
from manyfill.inputs import Subject
from manyfill.models.bound import bits_per_dim, importance_bound, level_kl, log_weight
from manyfill.models.guidance import UNGUIDED, Guidance
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.rng import key

AT_ONCE = 16  # samples of a bound: in portions, so that memory does not grow with their number


@dataclass(frozen=True)
class Likelihood:
    """Bounds on the likelihood of the hole's true content, at the model's size, over `dims` values.

    `nats` is the evidence lower bound, a mean over `samples` draws of the posterior, `kl` its divergence by level in
    nats, coarsest first; `nats_k` is the tighter importance-weighted bound of the same draws.
    """

    nats: float
    nats_k: float
    kl: tuple[float, ...]
    dims: int
    samples: int

    @property
    def bits_per_dim(self) -> float:
        """The evidence lower bound as a code length: bits for each missing value."""
        return bits_per_dim(-self.nats, self.dims)

    @property
    def bits_per_dim_k(self) -> float:
        """The importance-weighted bound as a code length: bits for each missing value."""
        return bits_per_dim(-self.nats_k, self.dims)

    def record(self) -> dict[str, Any]:
        return asdict(self) | {"bits_per_dim": self.bits_per_dim, "bits_per_dim_k": self.bits_per_dim_k}


@torch.inference_mode()
def condition(model: ConditionalHVAE, subject: Subject) -> Known:
    """What the model is told of a picture with a hole, at its own size."""
    x, m = at_once(model, subject.picture.pixels, subject.hole)
    with autocast(x.device):
        return model.encode_known(x, m)


def at_once(model: ConditionalHVAE, pixels: np.ndarray, hole: np.ndarray) -> tuple[Tensor, Tensor]:
    """The square around all that is missing at the model's own size: x and m, on its device."""
    box, size = surround(hole, model.config.size), model.config.size
    small, missing = shrink(box.cut(pixels), box.cut(hole), size)
    x = _tensor(model, small)
    return x, torch.from_numpy(missing)[None, None].float().to(x.device)


def _tensor(model: ConditionalHVAE, pixels: np.ndarray) -> Tensor:
    """(1, C, S, S) on the device; a grey picture takes the model's channels."""
    return to_tensor(pixels).expand(model.config.channels, -1, -1)[None].to(next(model.parameters()).device)


@torch.inference_mode()
def bound(model: ConditionalHVAE, subject: Subject, seed: int, samples: int) -> Likelihood:
    """Of a subject whose whole picture is known, given its caption if it has one."""
    assert subject.whole is not None
    told = tell(model, subject.caption) if subject.caption else {}
    guidance = Guidance(subject.caption.guidance) if subject.caption else UNGUIDED
    known, m = at_once(model, subject.picture.pixels, subject.hole)
    box, size = surround(subject.hole, model.config.size), model.config.size
    whole, _ = shrink(box.cut(subject.whole), np.zeros_like(box.cut(subject.hole)), size)
    x = torch.where(m > 0, _tensor(model, whole), known)
    # The noise must be made where the model lives.
    noise = torch.Generator(x.device).manual_seed(key(seed, "bound"))
    pixels, kl, weights = [], [], []
    with autocast(x.device):
        seen = model.encode(x, m, told=told, guidance=guidance)
        for start in range(0, samples, AT_ONCE):
            drawn, steps = model.infer(seen.repeat(min(AT_ONCE, samples - start)), noise)
            pixels.append(drawn)
            kl.append(level_kl(steps))
            weights.append(log_weight(drawn, steps))
    levels = torch.cat(kl).double().mean(0)
    return Likelihood(
        nats=float(torch.cat(pixels).double().mean() - levels.sum()),
        nats_k=float(importance_bound(torch.cat(weights).double())),
        kl=tuple(levels.tolist()),
        dims=int(m.sum()) * model.config.channels,
        samples=samples,
    )
