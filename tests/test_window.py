"""Working out only the window around a hole gives the very fills, and the very bound, that working out all gives."""

import dataclasses

import pytest
import torch
from captions import CAPTIONS
from captions import tiny as captioned
from models import TINY, VARIANTS, holes, noises, pictures, shaken
from torch import Tensor

from manyfill.distributions import Gaussian
from manyfill.models.bound import level_kl, log_weight
from manyfill.models.config import PRESETS
from manyfill.models.guidance import Guidance
from manyfill.models.window import Window, hole_of, windows
from manyfill.rng import generator


def box(size: int, top: int = 10, bottom: int = 14, left: int = 6, right: int = 12) -> Tensor:
    m = torch.zeros(1, 1, size, size)
    m[..., top:bottom, left:right] = 1
    return m


@pytest.mark.parametrize("kind", ["centre", "boxes", "brush", "half"])
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("variant", ["tiny32", "batch", "separate", "no borders", "plain", "tan2017", "multiscale"])
def test_windowed_fills_are_bit_for_bit_those_of_the_whole(variant: str, precise: bool, kind: str) -> None:
    config = VARIANTS[variant]
    model, x, m = shaken(config), pictures(config, 1), holes(config, kind) if kind != "boxes" else box(config.size)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        known = model.encode_known(x, m)
        one = model.fill(known, noises(2))
        whole = model.fill(dataclasses.replace(known, windows=None), noises(2))
    assert torch.equal(one.x, whole.x) and torch.equal(one.mean, whole.mean)
    assert all(torch.equal(a, b) for a, b in zip(one.latents, whole.latents, strict=True))
    if kind == "boxes":
        assert known.windows and not known.windows[config.size].is_whole


@pytest.mark.parametrize("weight", [1.0, 2.0])
@pytest.mark.parametrize("precise", [True, False])
def test_windowed_fills_under_a_caption_are_those_of_the_whole(precise: bool, weight: float) -> None:
    model = captioned()
    config = model.config
    x, m = pictures(config, 1), box(config.size)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        told = model.tell(model.tokens(CAPTIONS[:1]))
        known = model.encode_known(x, m, told=told, guidance=Guidance(weight))
        one = model.fill(known, noises(2))
        whole = model.fill(dataclasses.replace(known, windows=None), noises(2))
        untold = model.fill(model.encode_known(x, m), noises(2))
    assert torch.equal(one.x, whole.x) and torch.equal(one.mean, whole.mean)
    assert all(torch.equal(a, b) for a, b in zip(one.latents, whole.latents, strict=True))
    assert known.windows and not known.windows[config.size].is_whole
    assert config.captions and all(known.windows[s].is_whole for s in known.windows if s <= max(config.captions.attend))
    assert not torch.equal(one.x, untold.x)


@pytest.mark.parametrize("kind", ["large", "half", "boxes", "brush"])
@pytest.mark.parametrize("precise", [True, False])
@pytest.mark.parametrize("variant", ["tiny32", "batch", "group", "no borders", "plain", "pixelvae", "multiscale"])
def test_what_is_kept_of_a_hole_is_bit_for_bit_that_of_the_whole(variant: str, precise: bool, kind: str) -> None:
    config = VARIANTS[variant]
    model, x, m = shaken(config), pictures(config, 1), torch.ones(1, 1, config.size, config.size)
    if kind != "large":
        m = holes(config, kind)
    kept = m * box(config.size, 12, 18, 14, 19)
    (source,) = noises(1)
    own = [torch.randn(1, level.latent, level.size, level.size, generator=source) for level in config.levels]
    uniform = torch.rand(int(m.sum()), config.pixel_noise, generator=generator(0, "pixels"))

    def choose(level: int, prior: Gaussian, _posterior: Gaussian | None) -> Tensor:
        return prior.sample(own[level])

    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=not precise):
        known = model.encode_known(x, m, kept=kept)
        part, whole = (model.decode(each, choose, uniform) for each in (known, model.encode_known(x, m)))
    inside = kept.expand_as(x) > 0
    assert torch.equal(part.x[inside], whole.x[inside]) and torch.equal(part.mean[inside], whole.mean[inside])
    if variant not in ("group", "pixelvae", "multiscale") and kept.any():
        assert known.windows and not known.windows[config.size].is_whole
        assert not torch.equal(part.mean, whole.mean) or torch.equal(kept, m)


@pytest.mark.parametrize("variant", ["tiny32", "multiscale"])
def test_windowed_bounds_are_those_of_the_whole(variant: str) -> None:
    model, x, m = shaken(VARIANTS[variant]), pictures(TINY, 1), box(TINY.size)
    with torch.inference_mode():
        seen = model.encode(x, m)
        assert seen.known.windows and not seen.known.windows[TINY.size].is_whole
        everything = dataclasses.replace(seen, known=dataclasses.replace(seen.known, windows=None))
        (one, steps), (two, others) = (model.infer(s, generator(0, "noise")) for s in (seen, everything))
        assert torch.allclose(level_kl(steps), level_kl(others), rtol=1e-6)
        assert torch.allclose(log_weight(one, steps), log_weight(two, others), rtol=1e-6)
        assert torch.allclose(one, two, rtol=1e-6)


def test_what_is_worked_out_reaches_as_far_as_the_layers_look() -> None:
    """Nothing outside of a window, made infinite, reaches the hole; within it, at every side, something does."""
    config, m = TINY, box(TINY.size)
    model, x = shaken(config), pictures(config, 1)
    places = windows(config, m)
    assert places[32] == Window(32, 8, 16, 4, 14) and places[16] == Window(16, 0, 13, 0, 12) and places[8].is_whole

    def drawn(change: tuple[int, int] | None) -> Tensor:
        with torch.inference_mode():
            known = dataclasses.replace(model.encode_known(x, m), windows=None)
            recalled = {size: t.clone() for size, t in known.evidence.recalled.items()}
            if change:
                recalled[32][..., change[0], change[1]] += 100
            evidence = dataclasses.replace(known.evidence, recalled=recalled)
            return model.fill(dataclasses.replace(known, evidence=evidence), noises(1)).mean

    undisturbed = drawn(None)
    middle = {"top": (8, 9), "bottom": (15, 9), "left": (12, 4), "right": (12, 13)}
    outside = {"top": (7, 9), "bottom": (16, 9), "left": (12, 3), "right": (12, 14)}
    assert not any(torch.equal(drawn(place), undisturbed) for place in middle.values())
    assert all(torch.equal(drawn(place), undisturbed) for place in outside.values())


@pytest.mark.parametrize("variant", ["group", "pixelvae"])
def test_parts_that_look_at_all_of_a_map_work_all_out(variant: str) -> None:
    config = VARIANTS[variant]
    assert all(window.is_whole for window in windows(config, box(config.size)).values())


def test_windows_cover_the_holes_of_all_pictures() -> None:
    m = torch.cat([box(64, 4, 6, 8, 10), box(64, 20, 30, 1, 2)])
    assert hole_of(m) == Window(64, 4, 30, 1, 10) and hole_of(torch.zeros(2, 1, 64, 64)) is None
    places = windows(PRESETS["base64"], m)
    assert places[64] == Window(64, 2, 32, 0, 12)
    assert all(places[size].is_whole for size in (1, 4)) and all(
        window.bottom >= 30 * s // 64 for s, window in places.items()
    )
    assert all(window.is_whole for window in windows(PRESETS["base64"], torch.zeros_like(m)).values())


def test_cut_and_paste() -> None:
    x = torch.arange(64.0).view(1, 1, 8, 8)
    window, outer = Window(8, 2, 5, 3, 7), Window(4, 1, 3, 1, 4)
    assert torch.equal(window.cut(x), x[..., 2:5, 3:7])
    assert torch.equal(window.cut(x[..., 2:6, 2:8], outer), window.cut(x))
    pasted = window.paste(window.cut(x), -1.0)
    assert torch.equal(window.cut(pasted), window.cut(x)) and (pasted == -1).sum() == 64 - 12
    assert Window.whole(8).cut(x) is x and Window.whole(8).paste(x) is x
    put = window.put(-window.cut(x), x)
    assert torch.equal(window.cut(put), -window.cut(x)) and (put == x).sum() == 64 - 12
    read = (torch.cat([put, x, put]) != x).flatten().nonzero()[:, 0]
    inner = window.cut(torch.cat([put, x, put]) != x).flatten().nonzero()[:, 0]
    for some, part in ((read, Window.whole(8)), (inner, window)):
        picture, place = part.places(some)
        assert torch.equal(picture * 64 + place, read)
    assert window.coarser(2) == Window(4, 1, 3, 1, 4) and window.grown(3) == Window(8, 0, 8, 0, 8)
