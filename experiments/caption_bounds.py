"""What captions do to the bound of a hole, picture by picture, all under the same posterior noise.

Legend: P pictures, K captions, N samples, V latent values.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from manyfill.data import Source
from manyfill.data.loader import tile, with_channels
from manyfill.errors import DataError
from manyfill.images import to_tensor
from manyfill.models.bound import level_kl
from manyfill.models.captions import Told, joined
from manyfill.models.guidance import Guidance
from manyfill.models.hvae import ConditionalHVAE, Seen
from manyfill.rng import generator, numpy_generator

Row = dict[str, Any]
OTHERS = 15  # captions of other pictures, against which the true one is to be found
AT_ONCE = 32  # samples


@dataclass(frozen=True)
class Shown:
    """A picture (1, C, S, S), its caption, and those of other pictures."""

    number: int
    x: Tensor
    caption: str
    others: list[str]


def shown(source: Source, model: ConditionalHVAE, limit: int, seed: int) -> Iterator[Shown]:
    """The first pictures that have captions, each with one of its own and of 15 others; DataError if they are few."""
    spoken = [number for number in range(len(source)) if source.captions(number)]
    if len(spoken) <= OTHERS:
        raise DataError(f"--pictures: {len(spoken)} pictures have captions; name more than {OTHERS}")
    size, channels = model.config.size, model.config.channels
    for number in spoken[:limit]:
        rng = numpy_generator(seed, "captions", number)
        rest = rng.permutation([other for other in spoken if other != number])[:OTHERS]
        caption, *others = (one_of(source.captions(int(place)), rng) for place in (number, *rest))
        pixels = with_channels(tile(source[number].pixels, size, None), channels)
        yield Shown(number, to_tensor(np.ascontiguousarray(pixels))[None], caption, others)


def one_of(captions: Sequence[str], rng: np.random.Generator) -> str:
    return captions[int(rng.integers(len(captions)))]


def centred(size: int, side: int) -> Tensor:
    """A hole (1, 1, S, S) of so many pixels a side in the middle."""
    m, edge = torch.zeros(1, 1, size, size), (size - side) // 2
    m[:, :, edge : edge + side, edge : edge + side] = 1
    return m


@torch.inference_mode()
def measured(model: ConditionalHVAE, picture: Shown, sides: Sequence[int], samples: int, seed: int) -> Row:
    """By hole, in nats: the bound without a caption, with the true one, and with each of the others."""
    told = told_of(model, [None, picture.caption, *picture.others])
    found = {
        side: bounds(model, model.encode(picture.x, hole), told, samples, (seed, picture.number))
        for side in sides
        for hole in [centred(model.config.size, side)]
    }
    return {
        "number": picture.number,
        "caption": picture.caption,
        "nats": {str(s): [round(v, 3) for v in nats] for s, nats in found.items()},
    }


@torch.inference_mode()
def guided(
    model: ConditionalHVAE, picture: Shown, side: int, weights: Sequence[float], samples: int, seed: int
) -> list[float]:
    """The bound, in nats, of the model that each weight of guidance makes of this one."""
    hole, (told,) = centred(model.config.size, side), told_of(model, [picture.caption])
    return [
        bounds(
            model,
            model.encode(picture.x, hole, told=told, guidance=Guidance(weight)),
            [told],
            samples,
            (seed, picture.number),
        )[0]
        for weight in weights
    ]


def told_of(model: ConditionalHVAE, captions: Sequence[str | None]) -> list[dict[int, Told]]:
    return [model.tell(model.tokens([caption])) for caption in captions]


def bounds(
    model: ConditionalHVAE, seen: Seen, told: Sequence[dict[int, Told]], samples: int, key: tuple[int, int]
) -> list[float]:
    """The bound (K) of a picture under each caption: means over samples whose noise is the same for all captions."""
    values = sum(level.latent * level.size**2 for level in model.config.levels)
    noise = torch.randn(samples, values, generator=generator(key[0], "caption bounds", key[1]))
    rows = [(one, n) for one in told for n in range(samples)]
    totals = []
    for start in range(0, len(rows), AT_ONCE):
        part = rows[start : start + AT_ONCE]
        many = seen.repeat(len(part))
        evidence = replace(many.known.evidence, told=joined([one for one, _ in part]))
        pixels, steps = model.infer(
            replace(many, known=replace(many.known, evidence=evidence)), noise[[n for _, n in part]]
        )
        totals.append(pixels - level_kl(steps).sum(1))
    return torch.cat(totals).double().view(len(told), samples).mean(1).tolist()
