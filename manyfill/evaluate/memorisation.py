"""Whether fills are copies: how near the nearest training picture comes, next to how near it comes to the truth.

Compared in the hole only, in pixels and in the model's own features, with the training pictures and their mirror
images. A copy lies far nearer to one training picture than to all others, whatever the picture; so what counts is the
nearest distance over that of the tenth nearest.

Legend: P pictures, N fills of each, S the model's size, D values compared.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from manyfill.data import Source
from manyfill.data.loader import tile, with_channels
from manyfill.device import autocast
from manyfill.diagnostics import Neighbours
from manyfill.errors import DataError, PictureError
from manyfill.evaluate.cases import Case, Cases
from manyfill.images import to_tensor
from manyfill.pipeline import Filler

KEEP = 10
COPY = 0.5
"""What has its nearest neighbour at no more than this share of the tenth's distance looks like a copy of it."""
ALLOWED = 0.05
FEWEST = 5
FILLS = 4
AT_ONCE = 64
FEATURE_SIZE = 8

Embed = Callable[[Tensor], Tensor]
"""Pictures (B, C, S, S) to the maps (B, c, s, s) they are compared by."""


@dataclass(frozen=True)
class Match:
    """A fill or a true picture and its nearest training picture, all uint8 (S, S, C); `ratio` is its distance over
    the tenth nearest's."""

    picture: np.ndarray
    nearest: np.ndarray
    ratio: float


@dataclass(frozen=True)
class Suspect:
    """One case: the fill that looks most like a copy, and the truth for comparison."""

    case: Case
    fill: Match
    truth: Match


@dataclass(frozen=True)
class Memorisation:
    """The share of fills that look like copies, over the cases whose truth has no double among the training pictures.

    `judged` counts those cases, `doubles` the others; `suspects` are ordered from the most suspicious.
    """

    space: str
    copied: float
    judged: int
    doubles: int
    suspects: list[Suspect]

    @property
    def verdict(self) -> str:
        """ "passed", "failed", or "undecided" where nearly all true pictures are among the training pictures."""
        if self.judged < FEWEST:
            return "undecided"
        return "passed" if self.copied <= ALLOWED else "failed"


def check(filler: Filler, training: Source, cases: Cases) -> list[Memorisation]:
    """A few fills of every case against all training pictures, in pixels and in features.

    Unreadable training pictures are left out, as in training; DataError where too few remain.
    """
    picked = [cases[place] for place in range(len(cases))]
    fills = [filler(case.pixels, case.mask, FILLS, case.seed).images for case in picked]
    spaces: dict[str, Embed] = {"pixels": lambda x: x, "features": lambda x: _features(filler, x)}
    return [_check(space, embed, training, cases, picked, fills) for space, embed in spaces.items()]


@torch.inference_mode()
def _features(filler: Filler, x: Tensor) -> Tensor:
    """The extractor's map of about FEATURE_SIZE a side of whole pictures."""
    size = min((stage.size for stage in filler.model.config.stages), key=lambda size: abs(size - FEATURE_SIZE))
    with autocast(filler.device):
        x = x.to(filler.device)
        nothing_missing, no_guide = torch.zeros_like(x[:, :1]), torch.zeros_like(x)
        return filler.model.features(x, nothing_missing, no_guide, x.new_zeros(len(x)))[size].float().cpu()


def _check(
    space: str, embed: Embed, training: Source, cases: Cases, picked: Sequence[Case], fills: Sequence[list[np.ndarray]]
) -> Memorisation:
    found = []
    for case, images in zip(picked, fills, strict=True):
        maps = embed(_stacked([*images, case.pixels]))
        where = F.adaptive_max_pool2d(torch.from_numpy(case.mask)[None].float(), maps.shape[-1])[0] > 0
        found.append((where, Neighbours(maps[:, :, where].flatten(1), KEEP)))
    numbers: list[int] = []
    for group in _portions(training, cases, numbers):
        rows = embed(group)
        for where, neighbours in found:
            neighbours.add(rows[:, :, where].flatten(1))
    if len(numbers) < 2 * KEEP:
        raise DataError(f"--training: holds {len(numbers) // 2} readable pictures; the check takes {KEEP} or more")
    suspects, ratios, of_truth = [], [], []
    for case, images, (_, neighbours) in zip(picked, fills, found, strict=True):
        each = (neighbours.distances[:, 0] / neighbours.distances[:, -1].clamp(min=1e-12)).sqrt().tolist()
        pictures = [_prepared(training, numbers[int(row[0])], cases) for row in neighbours.indices]
        worst = int(np.argmin(each[:-1]))
        fill = Match(images[worst], pictures[worst], each[worst])
        suspects.append(Suspect(case, fill, Match(case.pixels, pictures[-1], each[-1])))
        ratios.append(each[:-1])
        of_truth.append(each[-1])
    judged = [own for own, truth in zip(ratios, of_truth, strict=True) if truth > COPY]
    copied = float(np.mean(np.array(judged) <= COPY)) if judged else 0.0
    suspects.sort(key=lambda one: one.fill.ratio)
    return Memorisation(space, copied, len(judged), len(ratios) - len(judged), suspects)


def _portions(training: Source, cases: Cases, numbers: list[int]) -> Iterator[Tensor]:
    """Readable training pictures, each followed by its mirror image; `numbers` grows by the number of each row."""
    group: list[np.ndarray] = []
    for number in range(len(training)):
        try:
            picture = _prepared(training, number, cases)
        except PictureError:
            continue
        group += [picture, picture[:, ::-1]]
        numbers += [number, number]
        if len(group) >= AT_ONCE:
            yield _stacked(group)
            group = []
    if group:
        yield _stacked(group)


def _prepared(training: Source, number: int, cases: Cases) -> np.ndarray:
    return with_channels(tile(training[number].pixels, cases.size, None), cases.channels)


def _stacked(pictures: Sequence[np.ndarray]) -> Tensor:
    return torch.stack([to_tensor(np.ascontiguousarray(picture)) for picture in pictures])
