"""A trained model as graphs that run without torch: `manyfill export`."""

from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from manyfill.errors import ConfigError, OutputError
from manyfill.manifest import is_free
from manyfill.runtime.exported import Exported, Precision, is_exported

NEEDED = ("torch", "onnx", "onnxscript", "onnxruntime")

CARD = """{front}# {source}, exported

The model below as graphs in ONNX, {precision}, made by `manyfill export`. They take their noise as inputs, their
batches are dynamic, and manyfill fills pictures with them on onnxruntime, without torch:

    pip install 'manyfill[onnx]'
    manyfill fill photo.png --mask mask.png --model DIR

{card}"""


def export_model(source: str, directory: Path, precision: Precision = "fp32") -> Exported:
    """Write the model of `source` (a directory, a hub id, "default") as an exported one.

    int8 and fp16 are of the networks; the closed form stays in fp32. Raises ModelError, ConfigError for a model
    that no graph can hold, OutputError.
    """
    if missing := [name for name in NEEDED if find_spec(name) is None]:
        raise ConfigError(f"export: needs {', '.join(missing)}; pip install 'manyfill[export]'")
    _check_place(directory)
    from manyfill.checkpoint import load_model
    from manyfill.export.graphs import check, graphs
    from manyfill.export.precision import VARIANTS
    from manyfill.runtime.exported import Export

    loaded = load_model(source)
    check(source, loaded.model.config)
    export = Export(
        precision="fp32",
        temperatures=loaded.model.temperatures.tolist(),
        made_by={name: version(name) for name in ("manyfill", *NEEDED)},
    )
    name = loaded.id if source == "default" or not Path(source).exists() else Path(source).resolve().name
    whole = Exported(
        loaded.model.config, export, graphs(loaded.model), write_card(name, precision, loaded.card), loaded.figures
    )
    exported = VARIANTS[precision](whole)
    exported.save(directory)
    return exported


def write_card(source: str, precision: Precision, card: str) -> str:
    """The model's card with how it is used when exported; what a hub reads at its head stays there."""
    front, body = "", card
    if card.startswith("---\n") and card.count("---\n") > 1:
        _, head, body = card.split("---\n", 2)
        front = f"---\n{head}---\n"
    return CARD.format(front=front, source=source, precision=precision, card=body)


def _check_place(directory: Path) -> None:
    """OutputError, before minutes of work, where no directory can be written or something else would be replaced."""
    if not (there := next(path for path in directory.absolute().parents if path.exists())).is_dir():
        raise OutputError(f"{there}: is no folder; choose another --onnx")
    other = directory.is_dir() and any(directory.iterdir()) and not is_exported(directory)
    if other or not is_free(directory):
        raise OutputError(f"{directory}: is in the way of the exported model; choose another --onnx")
