"""`manyfill export`. As in cli.py, nothing heavy is imported before the command runs."""

from pathlib import Path
from typing import Literal


def export(model: str = "default", /, *, onnx: Path, precision: Literal["fp32", "fp16", "int8"] = "fp32") -> None:
    """Write MODEL as ONNX graphs, which `fill --model` draws with on onnxruntime, without torch.

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, or a shipped model's name.
    onnx
        The directory to write; an exported model that is there already is replaced.
    precision
        fp16 stores the weights in half the size, int8 also does most of the work on 8-bit integers; both change fills.
    """
    from manyfill.export import export_model

    exported = export_model(model, onnx, precision)
    size = sum(map(len, exported.graphs.values())) / 1e6
    print(f"{onnx}: {len(exported.graphs)} graphs, {size:.1f} MB; fill with --model {onnx}")
