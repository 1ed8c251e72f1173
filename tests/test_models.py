"""What every model promises: one contract for all presets, and what holes, guides and noise may and may not do."""

import itertools
import math
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import pytest
import torch
from models import SHAPES, TINY, VARIANTS, each_preset, each_variant, fill, fresh, holes, noises, pictures, shaken
from torch import Tensor, nn

from manyfill.distributions import Gaussian, kl
from manyfill.models.bound import level_kl
from manyfill.models.config import ModelConfig
from manyfill.models.hvae import CAPTION_PARTS, ConditionalHVAE
from manyfill.models.topdown import Border, Choose, Evidence, LatentBlock
from manyfill.rng import generator

# ------------------------------------------------------------------------------------------------ every preset


@each_preset
def test_every_parameter_gets_a_finite_gradient(preset: str) -> None:
    config = SHAPES[preset]
    count = 1 if config.size > 64 else 2
    model, x = fresh(config).train(), pictures(config, count)
    # A guide that told the very truth would leave no error to code.
    bound = model(x, holes(config)[:count], 0.9 * x, torch.ones(count), generator(0, "gradient"))
    (-bound.total.sum() / bound.dims.sum()).backward()
    # A shift before a batch norm is taken out again: it has no effect, hence no gradient but rounding.
    idle = biases_before_batch_norm(model)
    for name, p in model.named_parameters():
        if name.startswith(CAPTION_PARTS):
            continue  # there are none here; test_captions.py looks at these
        assert p.grad is not None, f"{name} is not used"
        assert p.grad.isfinite().all(), f"{name} has a gradient that is not finite"
        assert p.grad.any() or name in idle, f"{name} has no effect"
    assert (preset == "tan2017") == bool(idle)


def biases_before_batch_norm(model: nn.Module) -> set[str]:
    found = set()
    for path, chain in model.named_modules():
        if isinstance(chain, nn.Sequential):
            parts = list(chain.named_children())
            for (name, first), (_, second) in itertools.pairwise(parts):
                if isinstance(first, nn.Conv2d) and isinstance(second, nn.BatchNorm2d):
                    found.add(f"{path}.{name}.bias")
    return found


@each_preset
@pytest.mark.parametrize("channels", [1, 3])
def test_forward_and_fill_keep_their_promises(preset: str, channels: int) -> None:
    config = SHAPES[preset].model_copy(update={"channels": channels})
    count = 1 if config.size > 64 else 2
    model, x, m = fresh(config).eval(), pictures(config, count), holes(config)[:count]
    guide, present = pictures(config, count, seed=1), torch.tensor([1.0, 0.0])[:count]
    with torch.inference_mode():
        bound = model(x, m, guide, present, generator(0, "noise"))
        filled = model.fill(model.encode_known(x, m, guide, present), noises(count))
    assert bound.pixels.shape == (count,) and bound.kl.shape == (count, len(config.levels))
    assert bound.total.isfinite().all() and (bound.pixels < 0).all() and (bound.kl >= 0).all()
    assert torch.equal(bound.dims, m.sum((1, 2, 3)) * channels)
    for drawn in (filled.x, filled.mean):
        assert drawn.shape == x.shape and drawn.abs().max() <= 1
        assert torch.equal(drawn[m.expand_as(x) == 0], x[m.expand_as(x) == 0])
    levels = (filled.x + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    for z, spec in zip(filled.latents, config.levels, strict=True):
        assert z.shape == (count, spec.latent, spec.size, spec.size)


@each_variant
def test_training_and_evaluation_differ_in_nothing_but_batch_norm(config: ModelConfig) -> None:
    model, x, m = fresh(config), pictures(config), holes(config)
    with torch.no_grad():
        trained = model.train()(x, m, noise=generator(0, "noise")).total
        evaluated = model.eval()(x, m, noise=generator(0, "noise")).total
    assert torch.equal(trained, evaluated) == (config.norm != "batch")


@pytest.mark.parametrize("setting", ["dropout", "border_dropout"])
def test_dropout_is_for_training_only(setting: str) -> None:
    model, x, m = fresh(TINY.model_copy(update={setting: 0.5})), pictures(TINY), holes(TINY)

    def bound() -> Tensor:
        with torch.no_grad():
            return model(x, m, noise=generator(0, "noise")).total

    with torch.random.fork_rng():
        model.train()
        assert not torch.equal(bound(), bound())
    assert torch.equal(model.eval()(x, m, noise=generator(0, "noise")).total, bound())
    assert torch.equal(bound(), fresh(TINY).eval()(x, m, noise=generator(0, "noise")).total)


def test_border_dropout_leaves_all_of_the_known_side_or_none() -> None:
    config = TINY.model_copy(update={"border_dropout": 0.25})
    border = Border(config, 6, 5).train()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        told = border(torch.zeros(1, 6, 4, 4), torch.ones(400, 6, 4, 4), torch.zeros(1, 3, 4, 4))
    shares = (told - border(torch.zeros(1, 6, 4, 4), torch.zeros(1, 6, 4, 4), torch.zeros(1, 3, 4, 4))).flatten(1)
    assert (shares == shares[:, :1]).all()
    gone = shares[:, 0] == 0
    torch.testing.assert_close(shares[~gone, 0], torch.full((int((~gone).sum()),), 4 / 3))
    assert gone.float().mean().item() == pytest.approx(0.25, abs=0.07)


def test_scales_are_softplus_or_exp_and_latents_bounded_or_not() -> None:
    raw = torch.full((1, 2, 1, 1), 20.0)
    raw[:, 1] = 3.0
    found = {}
    for scale, bounded in itertools.product(("softplus", "exp"), (True, False)):
        config = TINY.model_copy(update={"scale": scale, "bounded": bounded})
        block = LatentBlock(config, config.levels[0], 8, 1.0)
        found[scale, bounded] = block._gaussian(*raw.split(1, 1))
    assert found["exp", False].mean.item() == 20 and found["exp", False].std.item() == pytest.approx(math.exp(3))
    assert found["exp", True].mean.item() < 8 and found["softplus", False].mean.item() == 20
    assert found["softplus", True].std.item() == pytest.approx(math.log1p(math.e**3 * (math.e - 1)) + 0.01)


@pytest.mark.parametrize(("norm", "kind"), [("batch", nn.BatchNorm2d), ("group", nn.GroupNorm), ("none", nn.Identity)])
@pytest.mark.parametrize("block", ["residual", "plain"])
def test_every_norm_builds_and_learns(norm: str, kind: type[nn.Module], block: str) -> None:
    config = TINY.model_copy(update={"norm": norm, "block": block})
    model, x, m = fresh(config).train(), pictures(config), holes(config)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d | nn.GroupNorm | nn.Identity)]
    assert norms and all(isinstance(part, kind) for part in norms)
    optimizer = torch.optim.Adam(model.parameters(), lr=3e-4)
    losses = []
    for _ in range(10):
        bound = model(x, m, noise=generator(0, "noise"))
        loss = -bound.total.sum() / bound.dims.sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert all(map(math.isfinite, losses)) and losses[-1] < losses[0]


def test_one_size_and_one_level_are_enough() -> None:
    level, stage = {"size": 8, "width": 4, "latent": 2}, {"size": 8, "width": 4}
    config = ModelConfig.model_validate({"size": 8, "stages": [stage], "levels": [level]})
    model, x, m = fresh(config), pictures(config), holes(config)
    bound = model(x, m, noise=generator(0, "noise"))
    assert bound.total.isfinite().all() and bound.kl.shape == (2, 1)
    assert fill(model, x, m, noises(2)).x.shape == x.shape


def test_golden_bound_of_tiny32() -> None:
    """Whoever changes this on purpose has changed what a seed means: say so, and store the new value."""
    x, m = pictures(TINY), holes(TINY)
    with torch.inference_mode():
        bound = fresh(TINY).eval()(x, m, noise=generator(0, "golden"))
    assert (bound.total / bound.dims).tolist() == pytest.approx(GOLDEN, abs=1e-3)


GOLDEN = [-8.627269, -8.929896]

# ------------------------------------------------------------------------------------- what a hole hides


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


# --------------------------------------------------------------------------------------- guides, noise, branches


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
    if isinstance(record, Tensor | float | int):
        return [record] if isinstance(record, Tensor) else []
        return [record] if isinstance(record, Tensor) else []
    parts = record.values() if isinstance(record, dict) else [getattr(record, f.name) for f in fields(record)]
    return [tensor for each in parts for tensor in tensors(each)]
