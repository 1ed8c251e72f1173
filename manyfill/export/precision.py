"""Graphs in fewer bits: weights stored in half precision, or blocks computed on 8-bit integers.

What the closed form computes spans more orders of magnitude than either holds, so its graph stays as it is.
"""

import logging
import tempfile
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from manyfill.export.graphs import drop_unused
from manyfill.masks import KINDS, draw
from manyfill.rng import key, numpy_generator
from manyfill.runtime import Masked, Noise
from manyfill.runtime.exported import EXPECTATION, Exported, Precision
from manyfill.runtime.graphs import Graphs

SMALLEST = 64  # values: what is smaller is not worth a conversion
BLOCKS = (".stages.", ".prepare.", ".refine.")
"""Where the work is. All other convolutions read or write what few bits harm: latents, canvas, states with far
outliers. With those on integers too, fills of the default model move by 11 grey levels instead of 2."""
PICTURES = 4  # drawn for each kind of hole to find the range of every activation


def unchanged(exported: Exported) -> Exported:
    """Single precision, as torch has it."""
    return exported


def halved(exported: Exported) -> Exported:
    """Weights in half precision, and so half the size; they are turned back on loading, and computed with as before."""
    graphs = {
        name: graph if name == EXPECTATION else _halved(onnx.load_from_string(graph))
        for name, graph in exported.graphs.items()
    }
    return replace(exported, graphs=graphs, export=exported.export.model_copy(update={"precision": "fp16"}))


def _halved(model: onnx.ModelProto) -> bytes:
    casts = []
    for weights in model.graph.initializer:
        values = numpy_helper.to_array(weights)
        if values.dtype == np.float32 and values.size >= SMALLEST and np.abs(values).max() < np.finfo(np.float16).max:
            name, stored = weights.name, f"{weights.name}.half"
            weights.CopyFrom(numpy_helper.from_array(values.astype(np.float16), stored))
            casts.append(helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *model.graph.node]
    del model.graph.node[:]
    model.graph.node.extend(nodes)
    return model.SerializeToString()


def quantised(exported: Exported) -> Exported:
    """The blocks' convolutions on 8-bit integers: weights by output channel, activations by the ranges that they take
    in fills of the model's own pictures with every kind of hole."""
    fed = Recorder(exported).calibrated()
    graphs = {
        name: graph if name == EXPECTATION else _quantised(graph, fed[name]) for name, graph in exported.graphs.items()
    }
    return replace(exported, graphs=graphs, export=exported.export.model_copy(update={"precision": "int8"}))


class Recorder(Graphs):
    """Graphs that keep what they are fed."""

    def calibrated(self) -> dict[str, list[dict[str, np.ndarray]]]:
        """Feeds of every graph, of fills of the model's own pictures."""
        size, kinds = self.config.size, list(KINDS) * PICTURES
        x = np.zeros((len(kinds), self.config.channels, size, size), np.float32)
        nothing = np.ones((len(kinds), 1, size, size), np.float32)
        holes = [draw(kind, size, size, numpy_generator(0, "calibrate", i)) for i, kind in enumerate(kinds)]
        m = np.stack(holes)[:, None].astype(np.float32)
        self.fed: dict[str, list[dict[str, np.ndarray]]] = defaultdict(list)
        pictures = self.draw(self.tell(Masked(x, nothing)), 1, self._noise(nothing, 0)).x
        self.draw(self.tell(Masked(pictures, m)), 1, self._noise(m, 1))
        if self.config.guide:
            self.draw(self.tell(Masked(pictures, m, pictures)), 1, self._noise(m, 2))
        return self.fed

    def _noise(self, m: np.ndarray, turn: int) -> Noise:
        levels = [
            temperature * self.draws.normal(key(turn, "calibrate", i), (len(m), level.latent, level.size, level.size))
            for i, (level, temperature) in enumerate(zip(self.config.levels, self.temperatures, strict=True))
        ]
        uniform = self.draws.uniform(key(turn, "calibrate"), (int(m.sum()), self.config.pixel_noise))
        return Noise([z.astype(np.float32) for z in levels], 0, uniform)

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """As `Graphs`, and kept."""
        self.fed[name].append({each.name: inputs[each.name] for each in self.sessions[name].get_inputs()})
        return super().run(name, inputs)


def _of_a_block(node: onnx.NodeProto) -> bool:
    return node.op_type == "Conv" and any(part in node.input[1] for part in BLOCKS)


def _with_biases_apart(model: onnx.ModelProto) -> onnx.ModelProto:
    """Each convolution with a bias of its own: to shared ones the quantiser gives names that others have already."""
    stored = {weights.name: weights for weights in model.graph.initializer}
    for number, node in enumerate(model.graph.node):
        if node.op_type == "Conv" and len(node.input) == 3 and node.input[2] in stored:
            own = onnx.TensorProto()
            own.CopyFrom(stored[node.input[2]])
            own.name = node.input[2] = f"bias.{number}"
            model.graph.initializer.append(own)
    drop_unused(model.graph)
    return model


def _quantised(graph: bytes, feeds: list[dict[str, np.ndarray]]) -> bytes:
    from onnxruntime import quantization

    class Feeds(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.each: Iterator[dict[str, np.ndarray]] = iter(feeds)

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self.each, None)

    model = _with_biases_apart(onnx.load_from_string(graph))
    chosen = [node.name for node in model.graph.node if _of_a_block(node)]
    if not chosen:  # which the quantiser would take for all
        return graph
    before = logging.root.manager.disable
    logging.disable(logging.WARNING)  # it recommends what has no use here
    try:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "graph.onnx")
            quantization.quantize_static(
                model,
                path,
                Feeds(),
                quant_format=quantization.QuantFormat.QDQ,
                op_types_to_quantize=["Conv"],
                nodes_to_quantize=chosen,
                per_channel=True,
                activation_type=quantization.QuantType.QUInt8,
                weight_type=quantization.QuantType.QInt8,
            )
            return path.read_bytes()
    finally:
        logging.disable(before)


VARIANTS: dict[Precision, Callable[[Exported], Exported]] = {"fp32": unchanged, "fp16": halved, "int8": quantised}
