"""The optimiser, its schedule, the guard against bad steps, and the averaged weights."""

import math
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from manyfill.models.hvae import CAPTION_PARTS
from manyfill.train.settings import TrainSettings

HOPELESS = 1e4
"""A loss that only a broken model has: 256 equally likely values cost 5.5 nats each."""


def optimizer(model: nn.Module, settings: TrainSettings) -> torch.optim.AdamW:
    """AdamW; biases, norms and other vectors are not decayed. What captions are read by has groups of its own, whose
    `scale` multiplies the learning rate."""
    named = list(model.named_parameters())
    groups = []
    for of_captions, scale in ((False, 1.0), (True, settings.caption_rate)):
        own = [p for name, p in named if name.startswith(CAPTION_PARTS) == of_captions]
        for matrices, decay in ((True, settings.weight_decay), (False, 0.0)):
            found = [p for p in own if (p.ndim > 1) == matrices]
            if found or not of_captions:
                groups.append({"params": found, "weight_decay": decay, "scale": scale})
    return torch.optim.AdamW(groups, lr=settings.learning_rate, betas=settings.betas, fused=True)


def learning_rate(settings: TrainSettings, step: int, progress: float) -> float:
    """The rate at `step` when `progress` (0..1) of the run is over: linear warm-up times the schedule."""
    warm = min(1.0, (step + 1) / max(1, settings.warmup_steps))
    decay = {
        "linear": 1 - progress,
        "cosine": 0.5 * (1 + math.cos(math.pi * progress)),
        "constant": 1.0,
    }[settings.schedule]
    return settings.learning_rate * warm * decay


def averaged(model: nn.Module, decay: float) -> AveragedModel:
    """Exponential moving average of the weights, short at first so that the start is soon forgotten."""

    @torch.no_grad()
    def update(average: Sequence[Tensor], current: Sequence[Tensor], seen: Tensor | int) -> None:
        count = int(seen)
        torch._foreach_lerp_(list(average), list(current), 1 - min(decay, (1 + count) / (20 + count)))

    return AveragedModel(model, multi_avg_fn=update)


def spectral_norms(model: nn.Module) -> Tensor:
    """The largest singular value of every layer's weights as a matrix (outputs, the rest), exactly; to be regularised
    as by Vahdat & Kautz (2020), section 3.2, who estimate it by power iteration."""
    layers = [part for part in model.modules() if isinstance(part, nn.Conv2d | nn.Linear)]
    matrices = [layer.weight.float().flatten(1) for layer in layers]
    grams = [m @ m.T if len(m) <= m.shape[1] else m.T @ m for m in matrices]
    # The square root is not smooth at 0, where zero-initialised layers stand.
    return torch.stack([(torch.linalg.eigvalsh(gram)[-1] + 1e-8).sqrt() for gram in grams])


class Guard:
    """Decides whether a step can be trusted, by its loss and its gradient's norm against the recent median.

    An outlier, `factor` times the median of the last hundred norms, is refused but joins them, so that a lasting
    change of scale is accepted once it is the usual. A broken step, whose loss or gradient is not finite or whose loss
    is HOPELESS, is never accepted: `in_a_row` counts them, and the loop goes back when there are too many. `skipped`
    counts the refused steps of both kinds, `broken` those of the second.
    """

    def __init__(self, factor: float) -> None:
        self.factor = factor
        self.norms: deque[float] = deque(maxlen=100)
        self.in_a_row = 0
        self.skipped = self.broken = 0

    def accepts(self, norm: float, loss: float) -> bool:
        """Whether to take the step with this gradient norm and loss; counts it either way."""
        broken = not (math.isfinite(norm) and loss < HOPELESS)
        outlier = len(self.norms) >= 20 and norm > self.factor * sorted(self.norms)[len(self.norms) // 2]
        if not broken:
            self.norms.append(norm)
        self.in_a_row = self.in_a_row + 1 if broken else 0
        self.broken += broken
        self.skipped += broken or outlier
        return not (broken or outlier)

    def state(self) -> dict[str, Any]:
        names = ("in_a_row", "skipped", "broken")
        return {"norms": list(self.norms)} | {name: getattr(self, name) for name in names}

    def restore(self, state: dict[str, Any]) -> None:
        self.norms = deque(state["norms"], maxlen=100)
        self.in_a_row, self.skipped = state["in_a_row"], state["skipped"]
        self.broken = state.get("broken", 0)  # older checkpoints do not tell
