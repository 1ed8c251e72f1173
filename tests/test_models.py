"""What every model promises: one contract for all presets, and what the switches of a design do."""

import itertools
import math

import pytest
import torch
from models import SHAPES, TINY, each_preset, each_variant, fill, fresh, holes, noises, pictures
from torch import Tensor, nn

from manyfill.models.config import ModelConfig
from manyfill.models.hvae import CAPTION_PARTS
from manyfill.models.topdown import Border, LatentBlock
from manyfill.rng import generator


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
    # Evaluation works out less of the pictures, which changes the order of sums.
    assert torch.allclose(trained, evaluated, rtol=1e-6) == (config.norm != "batch")


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


@pytest.mark.parametrize("bounded", [True, False])
def test_whatever_the_weights_no_level_hands_on_without_limit(bounded: bool) -> None:
    """Weights ten times those of a fresh model stand for a picture that a trained one has never seen the like of."""
    config = TINY.model_copy(update={"bounded": bounded})
    model, x = fresh(config).eval(), pictures(config)
    with torch.inference_mode():
        for parameter in model.topdown.parameters():
            parameter.mul_(10)
        bound = model(x, torch.ones_like(x[:, :1]), noise=generator(0, "wild"))
        latents = bound.dims.new_tensor([level.latent * level.size**2 for level in config.levels])
    within = bool((bound.kl.isfinite().all() and (bound.kl / latents).max() < 16**2) and bound.pixels.isfinite().all())
    assert within == bounded


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


GOLDEN = [-8.469994, -8.882219]
