"""The model as exported graphs, computed by ONNX Runtime: no torch.

Legend: T tiles that are told, N tiles that are drawn, C channels, S the model's size.
"""

from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from manyfill.caption import Caption, check
from manyfill.errors import ConfigError, ModelError
from manyfill.manifest import first_line
from manyfill.processors import processors, threads
from manyfill.rng import TwisterDraws
from manyfill.runtime import Masked, Noise, Runtime, Said, Tiles
from manyfill.runtime.exported import ENCODER, EXPECTATION, SAMPLER, STAGE, Exported

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}


@dataclass(frozen=True)
class Told:
    """What is known of tiles: the holes m (T, 1, S, S), and what the sampler is fed, by the names of its inputs."""

    m: np.ndarray
    inputs: dict[str, np.ndarray]


class Graphs(Runtime):
    """Sessions of the graphs of an exported model."""

    draws = TwisterDraws()

    def __init__(self, exported: Exported, device: str | None = None) -> None:
        self.exported, self.config, self.temperatures = exported, exported.config, exported.export.temperatures
        provider = _provider(device)
        self.sessions = {name: _session(name, graph, provider) for name, graph in exported.graphs.items()}

    def read(self, caption: Caption) -> Said:
        """ConfigError: models with captions are not exported."""
        check(self.config, caption)
        raise AssertionError("a model with captions was exported")

    def tell(self, masked: Masked) -> Told:
        """As `Runtime`; nothing is said, and all is right whatever is kept."""
        assert not any(masked.said), "an exported model reads no captions"
        x, m, guide = masked.x, masked.m, masked.guide
        guided = guide is not None and self.config.guide
        present = np.full(len(x), guided, np.float32)
        inputs = {"x": x * (1 - m), "m": m, "guide": guide if guided else np.zeros_like(x), "present": present}
        inputs["completed"] = inputs["x"]
        if EXPECTATION in self.sessions:
            inputs |= self.run(EXPECTATION, inputs)
        return Told(m, {"x": inputs["x"], **self.run(ENCODER, inputs)})

    def draw(self, told: Told, copies: int, noise: Noise) -> Tiles:
        """As `Runtime`."""
        # What a single tile tells need not be copied: the graph spreads it over all that is drawn.
        inputs = told.inputs
        if len(told.m) > 1 and copies > 1:
            inputs = {name: value.repeat(copies, 0) for name, value in inputs.items()}
        inputs = inputs | {f"z{level:02d}": z for level, z in enumerate(noise.levels, 1)}
        inputs["given"] = np.array(noise.given, np.int64)
        inputs["where"] = np.flatnonzero(told.m.repeat(copies, 0))
        inputs["uniform"] = noise.pixels
        found = self.run(SAMPLER, inputs)
        if STAGE in self.sessions:
            found |= self._stages(inputs, found)
        return Tiles(found["fill"], found["mean"], [found[f"latents{n:02d}"] for n in range(1, len(noise.levels) + 1)])

    def _stages(self, inputs: dict[str, np.ndarray], opened: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Fills and means (N, C, S, S), the hole's pixels stage by stage."""
        where = inputs["where"][opened["rank"]]
        rows = {name: opened[name] for name in ("near", "far", "told", "own", "base")}
        rows["uniform"] = inputs["uniform"][opened["rank"]]
        # What is held of the rows drawn so far, with a last one of zeros: what a pixel sees where it may see nothing.
        widths = {each.name: each.shape[1] for each in self.sessions[STAGE].get_inputs() if each.name not in rows}
        held = {name: np.zeros((len(where) + 1, width), np.float32) for name, width in widths.items()}
        known = inputs["x"].repeat(len(inputs["z01"]) // len(inputs["x"]), 0).transpose(0, 2, 3, 1)
        maps = {name: known.copy() for name in ("fill", "mean")}
        ends = np.flatnonzero(np.diff(opened["stage"], append=-1)) + 1
        for start, end in pairwise([0, *ends.tolist()]):
            now = slice(start, end)
            found = self.run(STAGE, held | {name: values[now] for name, values in rows.items()})
            for name, pictures in maps.items():
                pictures.reshape(-1, pictures.shape[-1])[where[now]] = found[name]
            for name, values in held.items():
                values[now] = found[f"{name}_now"]
        return {name: np.ascontiguousarray(pictures.transpose(0, 3, 1, 2)) for name, pictures in maps.items()}

    @cached_property
    def digest(self) -> str:
        """Of the graphs."""
        return self.exported.digest

    @property
    def spares_a_core(self) -> bool:
        """As `Runtime`."""
        return threads() < processors()

    def run(self, name: str, inputs: dict[str, Any]) -> dict[str, np.ndarray]:
        """What a graph makes of its inputs, all of them by name; others that are there it does not look at."""
        session = self.sessions[name]
        found = session.run(None, {each.name: inputs[each.name] for each in session.get_inputs()})
        return {each.name: value for each, value in zip(session.get_outputs(), found, strict=True)}


def _provider(device: str | None) -> tuple[str, dict[str, str]]:
    """ONNX Runtime's name of a device, and which one of several it is; ConfigError where it cannot be had."""
    import importlib.util

    if importlib.util.find_spec("onnxruntime") is None:
        raise ConfigError("--runtime onnx: takes onnxruntime, which is not installed; pip install 'manyfill[onnx]'")
    import onnxruntime

    kind, colon, number = (device or "cpu").partition(":")
    provider = PROVIDERS.get(kind, "")
    if provider not in onnxruntime.get_available_providers() or (colon and not number.isdecimal()):
        raise ConfigError(f"--device {device}: cannot be used by this onnxruntime; leave it out, or install one for it")
    return provider, {"device_id": number} if kind == "cuda" and number else {}


def _session(name: str, graph: bytes, provider: tuple[str, dict[str, str]]) -> "InferenceSession":
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads(), 1
    # Three graphs take turns: a thread that waits for work by spinning would take a processor from the others.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    options.log_severity_level = 3
    try:
        return onnxruntime.InferenceSession(graph, options, providers=[provider])
    except Exception as error:  # its kinds have nothing in common
        raise ModelError(
            f"{name}.onnx: onnxruntime cannot run it ({first_line(error)}); export the model anew"
        ) from None
