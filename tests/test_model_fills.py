"""What guides, noise, temperature and branching may and may not do to the fills of a model."""

from dataclasses import fields
from typing import Any

import torch
from models import TINY, VARIANTS, each_variant, fill, holes, noises, pictures, shaken
from torch import Tensor

from manyfill.models.config import ModelConfig
from manyfill.rng import generator


def test_an_absent_guide_is_not_read_and_a_present_one_is() -> None:
    model, x, m = shaken(TINY), pictures(TINY), holes(TINY)
    guide, other = pictures(TINY, seed=1), pictures(TINY, seed=2)

    def outcome(guide: Tensor | None, present: Tensor | None) -> Tensor:
        with torch.inference_mode():
            total = model(x, m, guide, present, generator(0, "noise")).total
            mean = model.fill(model.encode_known(x, m, guide, present), noises(2)).mean
        return torch.cat([total[:, None], mean.flatten(1)], 1)

    none, first = outcome(None, None), torch.tensor([1.0, 0.0])
    assert torch.equal(outcome(guide, torch.zeros(2)), none)
    assert torch.equal(outcome(guide, first)[1], none[1])
    assert torch.equal(outcome(guide, None), outcome(guide, torch.ones(2)))
    assert torch.equal(outcome(guide, first)[0], outcome(guide, None)[0])
    assert (outcome(guide, None) != none).any(1).all() and (outcome(other, None) != outcome(guide, None)).any(1).all()


def test_a_model_without_guide_takes_no_notice_of_one() -> None:
    config = VARIANTS["plain"]
    x, m = pictures(config), holes(config)
    with torch.inference_mode():
        with_guide, without = (
            shaken(config)(x, m, guide, noise=generator(0, "noise")).total for guide in (x.flip(0), None)
        )
    assert torch.equal(with_guide, without)


@each_variant
def test_a_fill_depends_on_its_own_generator_alone(config: ModelConfig) -> None:
    model, x, m = shaken(config), pictures(config, 1), holes(config, "centre")
    first = fill(model, x, m, noises(3))
    second = fill(model, x, m, [generator(9, "other"), noises(3)[1], generator(9, "another")])
    assert torch.equal(first.x[1], second.x[1])
    for i in (0, 2):
        assert not torch.equal(first.x[i], second.x[i])
    # Another number of fills at once may round differently, but draws the same.
    alone = fill(model, x, m, noises(3)[1:2])
    for a, b in zip(first.latents, alone.latents, strict=True):
        torch.testing.assert_close(a[1:2], b, rtol=1e-3, atol=1e-3)
    assert (first.x[1] != alone.x[0]).float().mean() < 1e-3


def test_temperature_0_leaves_only_the_pixels_own_noise() -> None:
    cold = fill(shaken(TINY), pictures(TINY, 1), holes(TINY, "centre"), noises(3), temperature=0.0)
    assert torch.equal(cold.mean[0], cold.mean[1]) and not torch.equal(cold.x[0], cold.x[1])
    warm = fill(shaken(TINY), pictures(TINY, 1), holes(TINY, "centre"), noises(3))
    assert not torch.equal(warm.mean[0], warm.mean[1])


@each_variant
def test_branching_what_is_known_equals_reading_the_repeated_picture(config: ModelConfig) -> None:
    model, x, m = shaken(config), pictures(config), holes(config, "brush", "boxes")
    with torch.inference_mode():
        branched = model.encode_known(x, m).repeat(2)
        repeated = model.encode_known(x.repeat_interleave(2, 0), m.repeat_interleave(2, 0))
        fills = [model.fill(known, noises(4)) for known in (branched, repeated)]
    for one, two in zip(tensors(branched), tensors(repeated), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)
    assert torch.equal(branched.x, repeated.x) and torch.equal(branched.m, repeated.m)
    torch.testing.assert_close(fills[0].mean, fills[1].mean, rtol=1e-3, atol=1e-3)
    assert torch.equal(fill(model, x, m, noises(4)).x, fills[0].x)


def tensors(record: Any) -> list[Tensor]:
    """All tensors of a record of tensors, numbers, records and dictionaries."""
    if isinstance(record, Tensor | float | int | None):
        return [record] if isinstance(record, Tensor) else []
    parts = record.values() if isinstance(record, dict) else [getattr(record, f.name) for f in fields(record)]
    return [tensor for each in parts for tensor in tensors(each)]
