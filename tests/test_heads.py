"""What every head promises: a normalised distribution of the hole's pixels, draws from it, nothing seen too early."""

import itertools
import math

import pytest
import torch
from autoregression import chi_square_fits, generators, shake, tiny, uncached
from torch import Tensor

from manyfill.errors import ConfigError
from manyfill.models.config import ModelConfig, parse
from manyfill.models.heads import HEADS, make_head
from manyfill.models.mixture import MixtureHead, Scene
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.models.window import Window
from manyfill.rng import generator

DRAWS, AT_ONCE = 100_000, 5_000
each_head = pytest.mark.parametrize("name", HEADS)
each_causal = pytest.mark.parametrize("name", ["pixelcnn", "multiscale"])


def head_of(
    name: str, size: int, channels: int, bins: int = 256, memory: float = 20.0, amount: float = 0.7
) -> MixtureHead:
    """A narrow head of pictures of this size and `bins` values; the sizes of the levels before it play no part."""
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        patch.setattr("manyfill.models.pixelcnn.WIDTH", 32)
        torch.manual_seed(1)
        head = make_head(tiny(name, channels, size=size, mixtures=2))
    shake(head, amount)
    head.bins = bins
    if isinstance(head, PixelCNNHead):
        with torch.no_grad():
            head.network.leave.weight.mul_(memory)  # so that what was drawn before matters
    return head


def scene(head: MixtureHead, x: Tensor, m: Tensor) -> Scene:
    """Pictures x (B, C, S, S) with holes m (1 or B, 1, S, S), all with the same state and canvas."""
    g, size = generator(0, "surroundings"), x.shape[-1]
    h = torch.randn(1, head.project.in_features, size, size, generator=g)
    canvas = 0.6 * torch.rand(1, head.channels, size, size, generator=g) - 0.3
    h, canvas, m = (t.expand(len(x), -1, -1, -1) for t in (h, canvas, m))
    return Scene(h, canvas, x, m, Window.whole(size))


def all_pictures(channels: int, bins: int, m: Tensor, known: float = 1.0) -> Tensor:
    """Every picture of 2x2 pixels that has `known` where m (1, 1, 2, 2) is 0."""
    values = torch.linspace(-1, 1, bins).tolist()
    free = m.expand(1, channels, 2, 2).flatten() > 0
    flat = torch.full((bins ** int(free.sum()), 4 * channels), known)
    flat[:, free] = torch.tensor(list(itertools.product(values, repeat=int(free.sum()))))
    return flat.view(-1, channels, 2, 2)


@each_head
@pytest.mark.parametrize("channels,bins", [(1, 4), (3, 2)])
@pytest.mark.parametrize("hole", [[[1, 1], [1, 1]], [[0, 1], [1, 1]], [[1, 0], [0, 1]]], ids=["all", "three", "two"])
def test_probabilities_of_all_pictures_sum_to_1(name: str, channels: int, bins: int, hole: list[list[int]]) -> None:
    head, m = head_of(name, 2, channels, bins), torch.tensor(hole)[None, None].float()
    every = all_pictures(channels, bins, m)
    with torch.inference_mode():
        log_p = head.log_prob(scene(head, every, m))
    assert log_p.exp().max() < 0.8  # nothing is certain, or the sum would say little
    assert log_p.double().exp().sum().item() == pytest.approx(1, abs=1e-5)


@each_head
@pytest.mark.parametrize("channels,bins", [(1, 4), pytest.param(3, 2, marks=pytest.mark.slow)])
def test_draws_have_these_probabilities(name: str, channels: int, bins: int, one_thread: None) -> None:
    head, m = head_of(name, 2, channels, bins), torch.ones(1, 1, 2, 2)
    every = all_pictures(channels, bins, m)
    with torch.inference_mode():
        log_p = head.log_prob(scene(head, every, m))
        counts = torch.zeros(len(every))
        blank = scene(head, torch.zeros(AT_ONCE, channels, 2, 2), m)
        weights = bins ** torch.arange(4 * channels).flip(0)
        for portion in range(DRAWS // AT_ONCE):
            noise = [torch.Generator().manual_seed(portion * AT_ONCE + i) for i in range(AT_ONCE)]
            x, _ = head.sample(blank, noise)
            digits = ((x.flatten(1) + 1) / 2 * (bins - 1)).round().long()
            counts += (digits * weights).sum(1).bincount(minlength=len(every))
    assert chi_square_fits(counts, DRAWS * log_p.exp())
    assert not chi_square_fits(counts, DRAWS * log_p.exp().roll(1))


@each_causal
def test_pixels_do_depend_on_those_drawn_before(name: str) -> None:
    """Else the two tests above would hold of a head that sees nothing."""
    head, m = head_of(name, 2, 1, 4), torch.ones(1, 1, 2, 2)
    every = all_pictures(1, 4, m)
    with torch.inference_mode():
        p = head.log_prob(scene(head, every, m)).exp()
    joint = p.view(4, 4, 4, 4)
    for first, second in itertools.combinations(range(4), 2):
        pair = joint.sum([axis for axis in range(4) if axis not in (first, second)])
        independent = pair.sum(1, keepdim=True) * pair.sum(0)
        apart = (pair - independent).abs().sum()
        # Position 0 tells all others; the two middle ones of four are of one stage in neither order.
        if first == 0:
            assert apart > 0.01


@each_causal
@pytest.mark.parametrize("kind", ["centre", "pixels"])
def test_each_pixel_sees_earlier_pixels_and_every_known_one(name: str, kind: str) -> None:
    """By gradients of each pixel's own term, exactly 0 at later pixels and not 0 at known ones beside it."""
    size = 8
    head, g = head_of(name, size, 3), generator(0, "x")
    assert isinstance(head, PixelCNNHead)
    m = torch.zeros(1, 1, size, size)
    if kind == "centre":
        m[..., 2:6, 2:6] = 1
    else:
        m[:] = torch.rand(m.shape, generator=g) < 0.5
    x = (2 * torch.rand(1, 3, size, size, generator=g) - 1).requires_grad_()
    rows = head.network.rows(m)
    stage = torch.full((size * size,), -1).index_copy(0, rows.where, rows.stage)
    seen_at_all = torch.zeros(size * size, dtype=torch.bool)
    for i, place in enumerate(rows.where.tolist()):
        only = torch.zeros(size * size).index_fill(0, rows.where[: i + 1], 1.0)
        before = torch.zeros(size * size).index_fill(0, rows.where[:i], 1.0)
        terms = []
        for part in (only, before):
            # log p(x_<=i) - log p(x_<i): the chain rule, with the hole as it is and the later pixels' terms left out.
            with pytest.MonkeyPatch.context() as patch:
                patch.setattr("manyfill.models.pixelcnn.per_picture", lambda v, w, m, part=part: (v * part[w]).sum())
                terms.append(head.log_prob(scene(head, x, m)))
        (gradient,) = torch.autograd.grad(terms[0] - terms[1], x)
        seen = gradient[0].abs().sum(0).flatten() > 0
        later = (stage >= stage[place]) & (torch.arange(size * size) != place)
        assert not seen[later].any()
        assert seen[place]
        row, column = divmod(place, size)
        for r, c in itertools.product((-1, 0, 1), repeat=2):
            beside = (row + r) * size + column + c
            if 0 <= row + r < size and 0 <= column + c < size and stage[beside] == -1:
                assert seen[beside], "a known pixel beside it, on whatever side"
        seen_at_all |= seen
    assert seen_at_all[stage >= 0].all()


@each_causal
def test_the_cache_changes_no_bit_of_a_draw(name: str, one_thread: None) -> None:
    head, g = head_of(name, 16, 3), generator(0, "x")
    m = (torch.rand(3, 1, 16, 16, generator=g) < 0.6).float()
    known = (2 * torch.rand(3, 3, 16, 16, generator=g) - 1) * (1 - m)
    with torch.inference_mode(), pytest.MonkeyPatch.context() as patch:
        cached = head.sample(scene(head, known, m), generators(3))
        patch.setattr("manyfill.models.causal.CausalNetwork.draw", uncached)
        for one, two in zip(cached, head.sample(scene(head, known, m), generators(3)), strict=True):
            assert torch.equal(one, two)


@each_head
def test_the_expectation_is_that_of_the_distribution(name: str) -> None:
    """Over draws, what is drawn is on average what each pixel's distribution expected, but for tails beyond white."""
    head, m = head_of(name, 4, 3, memory=5, amount=0.1), torch.ones(1, 1, 4, 4)
    with torch.inference_mode():
        x, mean = head.sample(scene(head, torch.zeros(3000, 3, 4, 4), m), generators(3000))
    torch.testing.assert_close(x.mean(0), mean.mean(0), rtol=0, atol=0.1)


def test_causal_heads_learn_what_independent_pixels_cannot(one_thread: None) -> None:
    """Pictures of one random grey each, give or take 4 of 256: 3 bits a pixel for who sees others, else nearly 8."""
    bits = {}
    for name in HEADS:
        head, g, m = head_of(name, 8, 1, memory=1.0, amount=0.0), generator(0, "greys"), torch.ones(16, 1, 8, 8)
        h, canvas = torch.zeros(16, head.project.in_features, 8, 8), torch.zeros(16, 1, 8, 8)
        optimizer, losses = torch.optim.Adam(head.parameters(), lr=1e-2), []
        for _ in range(120):
            grey = torch.randint(10, 246, (16, 1, 1, 1), generator=g) + torch.randint(-4, 4, m.shape, generator=g)
            loss = -head.log_prob(Scene(h, canvas, grey / 127.5 - 1, m, Window.whole(8))).mean() / (64 * math.log(2))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        bits[name] = sum(losses[-10:]) / 10
    assert bits["mixture"] > 7.5
    assert bits["pixelcnn"] < 5.5 and bits["multiscale"] < 5.5


def test_an_unknown_head_or_prior_is_refused_with_the_valid_ones() -> None:
    levels = [{"size": 4, "width": 4, "latent": 2}, {"size": 8, "width": 4, "latent": 2}]
    good = {"size": 8, "stages": [{"size": 8, "width": 4}, {"size": 4, "width": 4}], "levels": levels}
    with pytest.raises(ConfigError, match=r"^here: head: .*'mixture', 'pixelcnn' or 'multiscale'$"):
        parse(ModelConfig, good | {"head": "wavenet"}, "here")
    with pytest.raises(ConfigError, match=r"^here: levels\.0\.prior: .*'gaussian' or 'autoregressive'$"):
        parse(ModelConfig, good | {"levels": [{**levels[0], "prior": "flow"}, levels[1]]}, "here")
