"""Masked convolutions over a hole: who sees whom, in which order, and that the cache changes nothing."""

import pytest
import torch
import torch.nn.functional as F
from autoregression import ends
from torch import Tensor

from manyfill.masks import KINDS, draw
from manyfill.models.causal import CausalNetwork, Order, Rows, skewed
from manyfill.models.multiscale import coarse_to_fine
from manyfill.progress import following
from manyfill.rng import generator, numpy_generator

SIZE, VALUES, CONTEXT, OUTPUTS = 16, 3, 8, 4
ORDERS = {"skewed": skewed, "coarse_to_fine": coarse_to_fine}
each_order = pytest.mark.parametrize("order", ORDERS.values(), ids=ORDERS.keys())


def network(order: Order, width: int = 32) -> CausalNetwork:
    """With nothing near 0, so that whatever can be seen is seen."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = CausalNetwork(order, VALUES, CONTEXT, OUTPUTS, width, depth=2)
        torch.nn.init.normal_(made.leave.weight)
    return made


def holes(*kinds: str, size: int = SIZE) -> Tensor:
    rng = numpy_generator(0, "holes")
    return torch.stack([torch.from_numpy(draw(kind, size, size, rng))[None] for kind in kinds]).float()


def inputs(rows: Rows) -> tuple[Tensor, Tensor]:
    g, count = generator(0, "inputs"), len(rows.where)
    return torch.randn(count, VALUES, generator=g), torch.randn(count, CONTEXT, generator=g)


@each_order
@pytest.mark.parametrize("size", [1, 2, 3, 8, 12, 64])
def test_an_order_has_every_position_once_and_no_empty_stage(order, size: int) -> None:
    stage = order(size).stage
    assert stage.shape == (size, size)
    assert stage.unique().tolist() == list(range(int(stage.max()) + 1))


def test_an_order_takes_few_stages() -> None:
    assert int(skewed(64).stage.max()) + 1 == 3 * 64 - 2
    assert int(coarse_to_fine(64).stage.max()) + 1 == 1 + 3 * 6
    hole = holes("centre", size=64)
    assert hole.sum() == 32 * 32
    assert network(skewed(64)).rows(hole).passes == 3 * 32 - 2
    assert network(coarse_to_fine(64)).rows(hole).passes <= 16


def test_coarse_to_fine_draws_grids_that_double() -> None:
    stage, spacing = coarse_to_fine(8).stage, coarse_to_fine(8).spacing
    assert (stage == 0).nonzero().tolist() == [[0, 0]]
    for k in range(4):
        grid = stage[:: 8 >> k, :: 8 >> k]
        assert (stage <= grid.max()).sum() == grid.numel() == 4**k
    assert torch.equal(spacing[1::2, 1::2], torch.ones(4, 4, dtype=torch.long)) and spacing[0, 4] == spacing[4, 4] == 4


def test_only_what_positions_of_a_kind_ever_see_is_worked_out() -> None:
    net, worked_out = network(coarse_to_fine(64)), []
    kind = net.order.kind(net.order.stage).flatten()
    for each in range(3):
        for table, taps_of in ((net.near, net.near_of), (net.far, net.far_of)):
            seen = table[kind == each] < 64**2
            assert torch.equal(seen[:, taps_of[each]].sum(1), seen.sum(1))
        entering, layers = net.matrices(torch.zeros(1), each)
        worked_out.append((len(entering) // VALUES, len(layers[0][1]) // net.width))
    assert worked_out == [(16, 4), (24, 4), (40, 8)]


@each_order
@pytest.mark.parametrize("kind", [*KINDS, "all"])
def test_a_position_sees_earlier_ones_and_no_others(order, kind: str) -> None:
    """The gradient of each position's outputs is exactly 0 at its own and later values, and not 0 at some earlier."""
    net, size = network(order(8)), 8
    m = torch.ones(1, 1, size, size) if kind == "all" else holes(kind, size=size)
    rows = net.rows(m)
    values, context = inputs(rows)
    values.requires_grad_()
    outputs = net(rows, values, context)
    sees = torch.zeros(len(values), len(values), dtype=torch.bool)
    for i, output in enumerate(outputs):
        (seen,) = torch.autograd.grad(output.sum(), values, retain_graph=True)
        sees[i] = seen.abs().sum(1) > 0
    earlier = rows.stage[None] < rows.stage[:, None]
    assert not sees[~earlier].any()
    assert sees.any() == (rows.passes > 1 and bool((rows.far < len(values)).any()))
    # Whatever the first layer looks at directly is seen.
    for i, neighbours in enumerate(rows.far.tolist()):
        assert all(sees[i, j] for j in neighbours if j < len(values))


def test_a_position_of_the_skewed_order_sees_all_that_a_masked_kernel_shows() -> None:
    taps = skewed(16).neighbours(1)[0].tolist()
    assert taps == [[-1, -1], [-1, 0], [-1, 1], [0, -1]]
    wide = skewed(16).neighbours(3)[0].tolist()
    assert all(2 * r + c < 0 for r, c in wide) and len(wide) == 23
    assert len(coarse_to_fine(16).neighbours(1)[0]) == 8


def test_rows_equal_a_masked_convolution_of_the_whole_map() -> None:
    """One layer of neighbours, against torch's own convolution with a masked kernel."""
    order, m = skewed(SIZE), holes("brush", "centre")
    rows, taps = network(order).rows(m), order.neighbours(3)[0].tolist()
    values, _ = inputs(rows)
    linear = torch.nn.Linear(len(taps) * VALUES, 5)
    kernel = torch.zeros(5, VALUES, 7, 7)
    for tap, (r, c) in enumerate(taps):
        kernel[:, :, 3 + r, 3 + c] = linear.weight.view(5, -1, VALUES)[:, tap]
    dense = F.conv2d(rows.put(values, torch.zeros(2, VALUES, SIZE, SIZE)), kernel, linear.bias, padding=3)
    seen = F.pad(values, (0, 0, 0, 1))[rows.far].flatten(1)
    torch.testing.assert_close(linear(seen), rows.take(dense), rtol=1e-4, atol=1e-5)


@each_order
@pytest.mark.parametrize("kinds", [("centre", "brush", "pixels"), ("scratches",), ("boxes", "outpaint")])
def test_cached_equals_uncached_bit_for_bit(order, kinds: tuple[str, ...], one_thread: None) -> None:
    """What every stage is told while it is drawn is what one pass over all values tells; uncached, each stage would
    take such a pass."""
    net = network(order(SIZE))
    rows = net.rows(holes(*kinds))
    told = torch.zeros(len(rows.where), OUTPUTS)
    _, context = inputs(rows)
    noise = torch.randn(len(rows.where), VALUES, generator=generator(0, "noise"))
    values, naive = torch.zeros_like(noise), torch.zeros_like(noise)
    visited: list[int] = []

    def value(now: slice, outputs: Tensor) -> Tensor:
        return torch.tanh(outputs[:, :VALUES] + noise[now])

    def choose(now: slice, outputs: Tensor) -> Tensor:
        visited.extend(range(len(told))[now])
        told[now] = outputs
        values[now] = value(now, outputs)
        return values[now]

    with torch.inference_mode():
        net.draw(rows, context, choose, "values")
        assert torch.equal(net(rows, values, context), told)
        start = 0
        for end in ends(rows):
            now = slice(start, end)
            naive[now] = value(now, net(rows, naive, context)[now])
            start = end
    assert torch.equal(values, naive)
    assert visited == list(range(len(told)))  # each position once, and none but the hole's


@each_order
def test_pictures_drawn_together_do_not_touch(order, one_thread: None) -> None:
    net, m = network(order(SIZE)), holes("centre", "boxes", "pixels")
    rows = net.rows(m)
    values, context = inputs(rows)
    picture = rows.where // SIZE**2
    together = net(rows, values, context)
    for b in range(3):
        own = picture == b
        alone = net.rows(m[b : b + 1])
        assert torch.equal(alone.where, rows.where[own] - b * SIZE**2)
        torch.testing.assert_close(net(alone, values[own], context[own]), together[own], rtol=1e-5, atol=1e-5)


def test_no_hole_no_work() -> None:
    net = network(skewed(SIZE))
    rows = net.rows(torch.zeros(2, 1, SIZE, SIZE))
    assert ends(rows) == [] and net(rows, *inputs(rows)).shape == (0, OUTPUTS)
    net.draw(rows, inputs(rows)[1], lambda *_: pytest.fail("drew something"), "values")


def test_whoever_follows_is_told_of_every_stage() -> None:
    net = network(skewed(SIZE))
    rows = net.rows(holes("centre"))
    seen: list[tuple[int, str]] = []

    def show(items, what: str):
        for index, item in enumerate(items):
            seen.append((index, what))
            yield item

    with following(show):
        net.draw(rows, inputs(rows)[1], lambda _, outputs: outputs[:, :VALUES], "values")
    assert seen == [(index, "values") for index in range(3 * 8 - 2)]
