"""A network as three or four graphs in ONNX, whose noise is an input.

    expectation  x, m, guide, present             -> completed
    encoder      completed, m, guide, present     -> recalled*, picture*, missing*  (by size)
    sampler      x, recalled*, picture*, missing*, z* (by level), given, where, uniform -> fill, mean, latents*

The first is the closed form, which needs its single precision whatever the others are stored in; a model without a
canvas has none. All batches are dynamic. In the sampler what is told (T tiles) is one tile or as many as are drawn (N).

With a head that draws the hole's pixels in stages, the sampler goes as far as the first, and another graph draws those
of one stage, given what was told and kept of those before it:

    sampler      x, recalled*, picture*, missing*, z*, given, where -> rank, stage, near, far, told, own, base, latents*
    stage        near, far, told, own, base, uniform, values, kept* -> fill, mean, values_now, kept*_now  (by layer)

Legend: C channels, S the model's size, Z latent channels, R hole pixels of all N tiles, r those of one stage, T the
neighbours of a pixel, W the width of the head's network, V what it is told of a pixel, P a pixel's raw parameters.
"""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Sequence

import numpy as np
import onnx
import onnx_ir
import torch
from onnx import numpy_helper
from onnx_ir.passes import common as passes
from onnxscript import optimizer
from torch import Tensor, nn
from torch.export import Dim

from manyfill.distributions import Gaussian
from manyfill.errors import ConfigError
from manyfill.models.causal import Part
from manyfill.models.config import ModelConfig
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.models.mixture import Scene
from manyfill.models.pixelcnn import PixelCNNHead
from manyfill.models.topdown import Evidence
from manyfill.models.window import Window
from manyfill.runtime.exported import ENCODER, EXPECTATION, SAMPLER, STAGE

OPSET = 20
TILES, DRAWN, PIXELS = "tiles", "drawn", "pixels"  # the names of the dynamic dimensions


def check(source: str, config: ModelConfig) -> None:
    """ConfigError for a network that reads captions, or whose latents are drawn position after position."""
    chained = any(level.autoregressive for level in config.levels)
    if config.captions is not None or chained:
        what, without = ("reads captions", "captions") if config.captions else ("has autoregressive priors", "them")
        raise ConfigError(f"{source}: {what}, which cannot be exported; export a model without {without}")


class Encoder(nn.Module):
    """What is known of completed pictures, as a flat list."""

    def __init__(self, model: ConditionalHVAE) -> None:
        super().__init__()
        self.model = model

    def forward(self, completed: Tensor, m: Tensor, guide: Tensor, present: Tensor) -> list[Tensor]:
        features = self.model.features(completed, m, guide, present)
        return list(flat(self.model.known(completed, completed, m, features)).values())


class Sampler(nn.Module):
    """Fills, their means and latents, from what is known and noise."""

    def __init__(self, model: ConditionalHVAE, names: Sequence[str]) -> None:
        super().__init__()
        self.model, self.names = model, names

    def forward(
        self, x: Tensor, told: list[Tensor], z: list[Tensor], given: Tensor, where: Tensor, uniform: Tensor
    ) -> list[Tensor]:
        """z (N, Z, size, size) by level are deviations in the prior's units, those before level `given` the latents
        themselves; where (R,) are the hole's pixels among all N * S * S, uniform (R, K + C) their noise."""
        scene, latents = self.traversed(x, told, z, given)
        head = self.model.head
        return [*head.draw(scene, where, head.uniform(x, uniform)), *latents]

    def traversed(self, x: Tensor, told: list[Tensor], z: list[Tensor], given: Tensor) -> tuple[Scene, list[Tensor]]:
        """The scene of N tiles, with their known pixels, and their latents by level."""
        recalled, pictures, missing = unflat(dict(zip(self.names, told, strict=True)))

        def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            return torch.where(given > level, z[level], prior.sample(z[level]))

        h, canvas, steps = self.model.topdown(Evidence(recalled, pictures), None, missing, choose)
        shared = canvas, x, missing[self.model.config.size]  # which may be one tile's
        canvas, known, m = (t.expand(z[0].shape[0], -1, -1, -1) for t in shared)
        return Scene(h, canvas, known, m, Window.whole(self.model.config.size)), [step.z for step in steps]


class Opening(Sampler):
    """The sampler of a head that draws in stages, up to the first of them."""

    def forward(  # type: ignore[override]
        self, x: Tensor, told: list[Tensor], z: list[Tensor], given: Tensor, where: Tensor
    ) -> list[Tensor]:
        """As `Sampler`; rank and stage (R,), near and far (R, T) of `Rows`, what the network is told (R, ...), the raw
        parameters so far (R, P), what the means start from (R, C); latents."""
        scene, latents = self.traversed(x, told, z, given)
        head = self.model.head
        assert isinstance(head, PixelCNNHead)
        rows = head.network.ordered(where, scene.h.shape[0], scene.window)
        own, base, context = head.begin(rows, scene)
        return [rows.rank, rows.stage, rows.near, rows.far, head.network.told(context), own, base, *latents]


class Stage(nn.Module):
    """The pixels of one stage."""

    def __init__(self, head: PixelCNNHead) -> None:
        super().__init__()
        self.head = head

    def forward(
        self,
        near: Tensor,
        far: Tensor,
        told: Tensor,
        own: Tensor,
        base: Tensor,
        uniform: Tensor,
        values: Tensor,
        kept: list[Tensor],
    ) -> list[Tensor]:
        """Of the stage's r rows: pixels and means (r, C), what is told of them (r, V), activations (r, W) by layer.

        values (R + 1, V) and kept (R + 1, W) by layer are those of all rows, as far as they are drawn, zeros last.
        """
        layers: list[Tensor] = []

        def keep(layer: int, fresh: Tensor) -> Tensor:
            layers.append(fresh)
            return kept[layer]  # neighbours are of earlier stages

        part = Part(slice(None), near, far, told, self.head.network.matrices(told))
        raw = own + self.head.network.outputs([part], values, keep)
        mixture = self.head.mixture(raw, base)
        pixels = mixture.sample(*self.head.noise_of(self.head.uniform(base, uniform)))
        return [pixels, mixture.mean(), self.head.what_is_told(pixels, base), *layers]


def flat(known: Known) -> dict[str, Tensor]:
    """What is known, by the names that it has in the graphs."""
    groups = {"recalled": known.evidence.recalled, "picture": known.evidence.pictures, "missing": known.missing}
    return {f"{group}{size:03d}": t for group, maps in groups.items() for size, t in maps.items()}


def unflat(told: dict[str, Tensor]) -> list[dict[int, Tensor]]:
    """The recalled, the pictures and the missing shares, by size."""
    return [
        {int(name[-3:]): t for name, t in told.items() if name[:-3] == group}
        for group in ("recalled", "picture", "missing")
    ]


@torch.no_grad()
def graphs(model: ConditionalHVAE) -> dict[str, bytes]:
    """The graphs of a network on the processor, by name."""
    config, two = model.eval().config, 2  # torch takes batches of 1 for fixed ones
    x, m = torch.zeros(two, config.channels, config.size, config.size), torch.ones(two, 1, config.size, config.size)
    inputs, names = (x, m, torch.zeros_like(x), torch.zeros(two)), ["x", "m", "guide", "present"]
    tiles = [{0: Dim(TILES)}] * 4
    found = {}
    if model.expectation is not None:
        found[EXPECTATION] = _onnx(model.expectation, inputs, tiles, names, ["completed"])
    known = flat(model.encode_known(x[:1], m[:1]))
    found[ENCODER] = _onnx(Encoder(model), inputs, tiles, ["completed", *names[1:]], list(known))
    z = [torch.zeros(two, level.latent, level.size, level.size) for level in config.levels]
    where = torch.arange(two * config.size**2)
    drawing = [x[:1], list(known.values()), z, torch.tensor(0), where]
    drawn, pixels = {0: Dim(DRAWN)}, {0: Dim(PIXELS)}
    shapes: list[object] = [None, [None] * len(known), [drawn] * len(z), None, pixels]
    levels = [f"{level:02d}" for level in range(1, len(z) + 1)]
    names = ["x", *known, *(f"z{level}" for level in levels), "given", "where"]
    latents, spread = [f"latents{level}" for level in levels], ["x", *known]
    if isinstance(model.head, PixelCNNHead):
        opened = ["rank", "stage", "near", "far", "told", "own", "base"]
        opening = Opening(model, list(known))
        found[SAMPLER] = _onnx(opening, drawing, shapes, names, opened + latents, spread)
        found[STAGE] = _stage(model.head, opening(*drawing)[2:7])
    else:
        uniform = torch.full((len(where), config.pixel_noise), 0.5)
        sampler, outputs = Sampler(model, list(known)), ["fill", "mean", *latents]
        found[SAMPLER] = _onnx(sampler, [*drawing, uniform], [*shapes, pixels], [*names, "uniform"], outputs, spread)
    return found


def _stage(head: PixelCNNHead, opened: Sequence[Tensor]) -> bytes:
    """The graph of one stage, given what was opened: near, far, told, own, base of all rows."""
    few, count, network = 5, len(opened[0]) + 1, head.network
    near, far, told, own, base = (t[:few] for t in opened)
    uniform = torch.full((few, head.noise), 0.5)
    values, kept = torch.zeros(count, network.values), [torch.zeros(count, network.width) for _ in network.blocks]
    held = ["values", *(f"kept{layer:02d}" for layer in range(1, len(kept) + 1))]
    now, ever = {0: Dim("now")}, {0: Dim("ever")}
    return _onnx(
        Stage(head),
        [near, far, told, own, base, uniform, values, kept],
        [now, now, now, now, now, now, ever, [ever] * len(kept)],
        ["near", "far", "told", "own", "base", "uniform", *held],
        ["fill", "mean", *(f"{name}_now" for name in held)],
    )


def _onnx(
    module: nn.Module,
    inputs: Sequence[object],
    shapes: Sequence[object],
    names: list[str],
    outputs: list[str],
    spread: Sequence[str] = (),
) -> bytes:
    """A module's graph. The inputs of `spread`, traced with a batch of 1, may also have the batch of all others: what
    meets them broadcasts."""
    with _quiet():
        program = torch.export.export(module, tuple(inputs), dynamic_shapes=tuple(shapes), strict=False)
        made = torch.onnx.export(
            program,
            tuple(inputs),
            input_names=names,
            output_names=outputs,
            dynamic_shapes=tuple(shapes),
            opset_version=OPSET,
            dynamo=True,
            optimize=False,
            verbose=False,
        )
        assert made is not None
        tidy(made.model)
    proto = made.model_proto
    split_weights(proto.graph)
    del proto.graph.value_info[:]  # which tells of a batch of 1
    for each in proto.graph.input:
        if each.name in spread:
            each.type.tensor_type.shape.dim[0].dim_param = TILES
    for each in proto.graph.output if spread else ():
        each.type.tensor_type.shape.dim[0].dim_param = DRAWN
    return proto.SerializeToString()


def tidy(model: onnx_ir.Model) -> None:
    """Leave out of a graph what is constant or unused.

    The exporter's own optimiser would go too far: it takes the 1e-12 that keeps a logarithm finite for a 0 to add.
    """
    optimizer.inline(model)
    optimizer.fold_constants(model)
    optimizer.remove_unused_nodes(model)
    for each in (
        passes.LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0),
        passes.DeduplicateInitializersPass(),
        passes.CommonSubexpressionEliminationPass(),
        passes.OutputFixPass(),
        passes.NameFixPass(),
    ):
        each(model)


def split_weights(graph: onnx.GraphProto) -> None:
    """Store apart what the graph would split at every run: whatever quantises it looks for whole weights."""
    stored = {weights.name: numpy_helper.to_array(weights) for weights in graph.initializer}
    kept = []
    for node in graph.node:
        if node.op_type != "Split" or not all(name in stored for name in node.input):
            kept.append(node)
            continue
        whole, sizes = (stored[name] for name in node.input)
        axis = next((each.i for each in node.attribute if each.name == "axis"), 0)
        parts = np.split(whole, np.cumsum(sizes)[:-1], axis)
        graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(part), name)
            for part, name in zip(parts, node.output, strict=True)
        )
    del graph.node[:]
    graph.node.extend(kept)
    drop_unused(graph)


def drop_unused(graph: onnx.GraphProto) -> None:
    """Leave out the weights that no node takes."""
    used = {name for node in graph.node for name in node.input}
    weights = [each for each in graph.initializer if each.name in used]
    del graph.initializer[:]
    graph.initializer.extend(weights)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """The exporter tells of every step and of what it cannot fold; errors are raised all the same."""
    before = logging.root.manager.disable
    logging.disable(logging.ERROR)
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(before)
