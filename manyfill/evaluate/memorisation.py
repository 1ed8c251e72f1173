"""Whether fills are copies: how near the nearest training picture comes, next to how near it comes to the truth.

Compared in the hole only, in pixels and in the model's own features. A copy lies far nearer to one training picture
than to all others, whatever the picture; so what counts is the nearest distance over that of the tenth nearest.

Legend: P pictures, R training pictures, S the model's size, D values compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from manyfill.data import Source
from manyfill.data.loader import tile, with_channels
from manyfill.device import autocast
from manyfill.diagnostics import Neighbours
from manyfill.evaluate.cases import Case
from manyfill.images import to_tensor
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler

KEEP = 10
COPY = 0.5
"""A picture whose nearest neighbour is at most this share of the tenth's distance away looks like a copy of it."""
ALLOWED = 0.05
AT_ONCE = 64
FEATURE_SIZE = 8


@dataclass(frozen=True)
class Closest:
    """One case's nearest training picture: distances as root mean squares, to a fill and to the truth."""

    case: Case
    fill: np.ndarray
    training: int
    fill_ratio: float
    truth_ratio: float


@dataclass(frozen=True)
class Memorisation:
    """`copied` and `copied_of_truth`: the share of fills, and of true pictures, that look like copies."""

    space: str
    copied: float
    copied_of_truth: float
    closest: list[Closest]

    @property
    def passed(self) -> bool:
        """True pictures set the mark: those that have a double among the training pictures count for both."""
        return self.copied <= self.copied_of_truth + ALLOWED


Embed = Callable[[Tensor], Tensor]
"""Pictures (B, C, S, S) to the maps (B, c, s, s) they are compared by."""


def check(filler: Filler, training: Source, cases: Sequence[Case], seed: int) -> list[Memorisation]:
    """One fill of each case against all training pictures, in pixels and in features."""
    fills = [filler(case.pixels, case.mask, 1, seed).images[0] for case in cases]
    return [_check(space, embed, filler, training, cases, fills) for space, embed in _spaces(filler).items()]


def _spaces(filler: Filler) -> dict[str, Embed]:
    return {"pixels": lambda x: x, "features": lambda x: _features(filler.model, x)}


def _features(model: ConditionalHVAE, x: Tensor) -> Tensor:
    """The extractor's map of about FEATURE_SIZE a side of whole pictures."""
    sizes = [stage.size for stage in model.config.stages]
    size = min(sizes, key=lambda s: abs(s - FEATURE_SIZE))
    m = torch.zeros_like(x[:, :1])
    with torch.inference_mode(), autocast(x.device):
        return model.encode(x, m).full.features[size].float()


def _check(
    space: str, embed: Embed, filler: Filler, training: Source, cases: Sequence[Case], fills: Sequence[np.ndarray]
) -> Memorisation:
    config, device = filler.model.config, filler.device
    queries = [_embedded(embed, group, device) for group in (fills, [case.pixels for case in cases])]
    masks = [_shrunk(case.mask, queries[0].shape[-1]) for case in cases]
    found = [[Neighbours(maps[i][:, mask].flatten()[None], KEEP) for i, mask in enumerate(masks)] for maps in queries]
    for group in _portions(training, config.size, config.channels):
        rows = _embedded(embed, group, device)
        for neighbours in found:
            for mask, each in zip(masks, neighbours, strict=True):
                each.add(rows[:, :, mask].flatten(1))
    ratios = [[_ratio(each) for each in neighbours] for neighbours in found]
    closest = [
        Closest(case, fill, int(found[0][i].indices[0, 0]), ratios[0][i], ratios[1][i])
        for i, (case, fill) in enumerate(zip(cases, fills, strict=True))
    ]
    copied, of_truth = (float(np.mean([ratio <= COPY for ratio in each])) for each in ratios)
    return Memorisation(space, copied, of_truth, sorted(closest, key=lambda one: one.fill_ratio))


def _ratio(neighbours: Neighbours) -> float:
    distances = neighbours.distances[0].sqrt()
    return float(distances[0] / distances[-1].clamp(min=1e-12))


def _portions(source: Source, size: int, channels: int) -> Iterator[list[np.ndarray]]:
    for start in range(0, len(source), AT_ONCE):
        group = range(start, min(start + AT_ONCE, len(source)))
        yield [with_channels(tile(source[index].pixels, size, None), channels) for index in group]


def _embedded(embed: Embed, pictures: Sequence[np.ndarray], device: torch.device) -> Tensor:
    maps = [
        embed(torch.stack([to_tensor(picture) for picture in pictures[start : start + AT_ONCE]]).to(device)).cpu()
        for start in range(0, len(pictures), AT_ONCE)
    ]
    return torch.cat(maps)


def _shrunk(mask: np.ndarray, size: int) -> np.ndarray:
    """The cells of a (size, size) grid with any missing pixel."""
    share = torch.nn.functional.adaptive_max_pool2d(torch.from_numpy(mask)[None, None].float(), size)
    return share[0, 0].numpy() > 0
