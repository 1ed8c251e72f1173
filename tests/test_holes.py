"""What a hole hides: no prior and no fill can see it, and latents and KL live nowhere else."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from models import TINY, each_variant, fill, holes, noises, pictures, shaken
from torch import Tensor

from manyfill.distributions import Gaussian, kl
from manyfill.models.bound import level_kl
from manyfill.models.config import ModelConfig
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.topdown import Choose, Evidence
from manyfill.rng import generator


@each_variant
def test_no_prior_can_see_the_hole(config: ModelConfig) -> None:
    """The gradient of everything known, and of every prior, is exactly 0 at hole pixels and not elsewhere."""
    model, m = shaken(config), holes(config)
    x = pictures(config).requires_grad_()
    known, walked, noise = model.encode_known(x, m), [], generator(0, "weights")
    with model.topdown.register_forward_hook(lambda *call: walked.append(call[-1])):
        model.fill(known, noises(2))
    ((h, canvas, steps),) = walked
    told = [*known.evidence.recalled.values(), *known.evidence.pictures.values(), h, canvas]
    told += [part for step in steps for part in (step.prior.mean, step.prior.std)]
    weighted = [(tensor * torch.randn(tensor.shape, generator=noise)).sum() for tensor in told]
    (seen,) = torch.autograd.grad(torch.stack(weighted).sum(), x)
    assert not seen[m.expand_as(x) > 0].any()
    assert seen[m.expand_as(x) == 0].all()


@each_variant
def test_priors_stay_blind_on_the_way_of_a_bound_while_posteriors_see(config: ModelConfig) -> None:
    """With the latents held fixed; `infer` gives both sides one batched pass."""
    model, m, x = shaken(config), holes(config), pictures(config)
    other = torch.where(m > 0, x.flip(2), x)
    with torch.inference_mode():
        priors, posteriors = zip(*(fixed_latents(model, picture, m) for picture in (x, other)), strict=True)
    for one, two in zip(*priors, strict=True):
        assert torch.equal(one.mean, two.mean) and torch.equal(one.std, two.std)
    for one, two in zip(*posteriors, strict=True):
        assert not torch.equal(one.mean, two.mean)


def fixed_latents(model: ConditionalHVAE, x: Tensor, m: Tensor) -> tuple[list[Gaussian], list[Gaussian]]:
    """Priors and posteriors of `infer`, when its posterior draws are replaced by noise of their own."""
    noise = generator(0, "fixed")
    walk: Callable[..., Any] = model.topdown.forward

    def choose(_level: int, prior: Gaussian, _posterior: Gaussian | None) -> Tensor:
        return torch.randn(prior.mean.shape, generator=noise)

    def blind(known: Evidence, full: Evidence, missing: dict[int, Tensor], _choose: Choose, **options: Any) -> Any:
        return walk(known, full, missing, choose, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(model.topdown, "forward", blind)
        steps = model.infer(model.encode(x, m))[1]
    return [step.prior for step in steps], [step.posterior for step in steps if step.posterior is not None]


@each_variant
def test_hole_pixels_cannot_change_a_fill(config: ModelConfig) -> None:
    model, m, x = shaken(config), holes(config), pictures(config)
    other = torch.where(m > 0, pictures(config, seed=5), x)
    one, two = (fill(model, picture, m, noises(4)) for picture in (x, other))
    assert torch.equal(one.x, two.x) and torch.equal(one.mean, two.mean)
    assert all(torch.equal(a, b) for a, b in zip(one.latents, two.latents, strict=True))


@pytest.mark.parametrize("kind", ["centre", "brush", "pixels", "outpaint"])
def test_known_pixels_come_back_bit_for_bit_even_in_bfloat16(kind: str) -> None:
    m, x = holes(TINY, kind, kind), pictures(TINY)
    where = m.expand_as(x) == 0
    for precise in (True, False):
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise):
            filled = fill(shaken(TINY), x, m, noises(4))
        for drawn in (filled.x, filled.mean):
            assert drawn.dtype == torch.float32
            assert torch.equal(drawn.view(2, 2, *x.shape[1:])[:, 0][where], x[where])
            assert torch.equal(drawn.view(2, 2, *x.shape[1:])[:, 1][where], x[where])
    assert not torch.equal(filled.x[0], filled.x[1])


@each_variant
def test_a_picture_without_a_hole_is_its_own_fill_and_costs_nothing(config: ModelConfig) -> None:
    model, x = shaken(config), pictures(config)
    m = torch.zeros_like(holes(config))
    filled = fill(model, x, m, noises(4))
    assert torch.equal(filled.x, x.repeat_interleave(2, 0)) and torch.equal(filled.mean, filled.x)
    assert not any(z.any() for z in filled.latents)
    with torch.inference_mode():
        bound = model(x, m, noise=generator(0, "noise"))
    for nothing in (bound.total, bound.pixels, bound.kl, bound.dims):
        assert not nothing.any()


@each_variant
def test_nothing_known_is_plain_generation(config: ModelConfig) -> None:
    model, x = shaken(config), pictures(config)
    m = torch.ones_like(holes(config))
    filled, other = fill(model, x, m, noises(2)), fill(model, torch.zeros_like(x), m, noises(2))
    assert torch.equal(filled.x, other.x) and not torch.equal(filled.x[0], filled.x[1])
    with torch.inference_mode():
        bound = model(x, m, noise=generator(0, "noise"))
    assert bound.total.isfinite().all() and (bound.dims == x[0].numel()).all()


@each_variant
def test_latents_and_kl_live_only_where_the_hole_is(config: ModelConfig) -> None:
    model, x, m = shaken(config), pictures(config), holes(config, "centre", "brush")
    with torch.inference_mode():
        steps = model.infer(model.encode(x, m), generator(0, "noise"))[1]
        found = level_kl(steps)
    drawn = fill(model, x, m, noises(2)).latents
    for level, (step, z, spec) in enumerate(zip(steps, drawn, config.levels, strict=True)):
        cell = config.size // spec.size
        pooled = m.unflatten(2, (spec.size, cell)).unflatten(4, (spec.size, cell)).amax((3, 5))
        assert torch.equal(step.mask, pooled)
        inside = pooled.expand_as(z) > 0
        assert not z[~inside].any() and not step.z[~inside].any()
        assert z[inside].all() and step.z[inside].all()
        assert step.posterior is not None
        each = kl(step.posterior, step.prior)
        for b in range(len(x)):
            assert found[b, level].item() == pytest.approx(each[b][inside[b]].sum().item(), rel=1e-4)
