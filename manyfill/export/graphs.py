"""A network as three graphs in ONNX, whose noise is an input.

    expectation  x, m, guide, present             -> completed
    encoder      completed, m, guide, present     -> recalled*, picture*, missing*  (by size)
    sampler      x, recalled*, picture*, missing*, z* (by level), given, where, uniform -> fill, mean, latents*

The first is the closed form, which needs its single precision whatever the others are stored in; a model without a
canvas has none. All batches are dynamic. In the sampler what is told (T tiles) is one tile or as many as are drawn (N).

Legend: C channels, S the model's size, Z latent channels, R hole pixels of all N tiles.
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
from manyfill.models.config import ModelConfig
from manyfill.models.hvae import ConditionalHVAE, Known
from manyfill.models.topdown import Evidence
from manyfill.runtime.exported import ENCODER, EXPECTATION, SAMPLER

OPSET = 20
TILES, DRAWN, PIXELS = "tiles", "drawn", "pixels"  # the names of the dynamic dimensions


def check(source: str, config: ModelConfig) -> None:
    """ConfigError for a network that reads captions, or draws position after position, which no graph of a fixed length
    does."""
    if config.captions is not None:
        raise ConfigError(f"{source}: reads captions, which cannot be exported; export a model without captions")
    chained = any(level.autoregressive for level in config.levels)
    what = "autoregressive priors" if chained else "" if config.head == "mixture" else f"a {config.head} head"
    if what:
        raise ConfigError(
            f"{source}: has {what}, which draws position after position and cannot be exported; export base64, "
            "or another model with head=mixture and gaussian priors"
        )


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
        recalled, pictures, missing = unflat(dict(zip(self.names, told, strict=True)))

        def choose(level: int, prior: Gaussian, posterior: Gaussian | None) -> Tensor:
            return torch.where(given > level, z[level], prior.sample(z[level]))

        h, canvas, steps = self.model.topdown(Evidence(recalled, pictures), None, missing, choose)
        head, count = self.model.head, z[0].shape[0]
        known, canvas = (t.expand(count, -1, -1, -1) for t in (x, canvas))  # without a canvas that is one tile's, empty
        fill, mean = head.draw(h, canvas, known, where, head.uniform(x, uniform))
        return [fill, mean, *(step.z for step in steps)]


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
    drawing = (
        x[:1],
        list(known.values()),
        z,
        torch.tensor(0),
        where,
        torch.full((len(where), config.pixel_noise), 0.5),
    )
    drawn, pixels = {0: Dim(DRAWN)}, {0: Dim(PIXELS)}
    levels = [f"{level:02d}" for level in range(1, len(z) + 1)]
    found[SAMPLER] = _onnx(
        Sampler(model, list(known)),
        drawing,
        [None, [None] * len(known), [drawn] * len(z), None, pixels, pixels],
        ["x", *known, *(f"z{level}" for level in levels), "given", "where", "uniform"],
        ["fill", "mean", *(f"latents{level}" for level in levels)],
        spread=["x", *known],
    )
    return found


def _onnx(
    module: nn.Module,
    inputs: tuple[object, ...],
    shapes: Sequence[object],
    names: list[str],
    outputs: list[str],
    spread: Sequence[str] = (),
) -> bytes:
    """A module's graph. The inputs of `spread`, traced with a batch of 1, may also have the batch of all others: what
    meets them broadcasts."""
    with _quiet():
        program = torch.export.export(module, inputs, dynamic_shapes=tuple(shapes), strict=False)
        made = torch.onnx.export(
            program,
            inputs,
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
