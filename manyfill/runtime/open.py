"""From what a user calls a model to what computes it."""

import importlib.util
from typing import TYPE_CHECKING

from manyfill.errors import ConfigError, ModelError
from manyfill.locate import locate
from manyfill.runtime import Runtime
from manyfill.runtime.exported import is_exported, read_exported

if TYPE_CHECKING:
    from manyfill.models.hvae import ConditionalHVAE

RUNTIMES = ("torch", "onnx")


def open_runtime(source: str, runtime: str | None = None, device: str | None = None) -> Runtime:
    """The model of `source`, computed by torch or onnx, or by whichever it is for; ModelError and ConfigError."""
    if runtime not in (None, *RUNTIMES):
        raise ConfigError(f"--runtime {runtime}: is none; give {' or '.join(RUNTIMES)}")
    directory = locate(source)
    if is_exported(directory):
        if runtime == "torch":
            raise ModelError(f"{source}: is exported, which --runtime onnx runs; name the model it was exported from")
        from manyfill.runtime.graphs import Graphs

        return Graphs(read_exported(directory), device)
    if runtime == "onnx":
        raise ModelError(
            f"{source}: is not exported; run `manyfill export {source} --onnx DIR` first, then give --model DIR"
        )
    if importlib.util.find_spec("torch") is None:
        raise ConfigError(
            f"{source}: takes torch, which is not installed; pip install 'manyfill[torch]', or name an exported model"
        )
    return _network(source, device)


def _network(source: str, device: str | None) -> Runtime:
    from manyfill.checkpoint import load_model
    from manyfill.device import best_device, named
    from manyfill.runtime.network import Network

    where = named(device) if device else best_device()
    loaded = load_model(source)
    network = Network(loaded.model.to(where))
    network.card, network.figures = loaded.card, loaded.figures
    return network


def as_runtime(model: "Runtime | ConditionalHVAE") -> Runtime:
    """A torch network as a runtime."""
    if isinstance(model, Runtime):
        return model
    from manyfill.runtime.network import Network

    return Network(model)
