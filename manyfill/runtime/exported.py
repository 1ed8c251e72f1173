"""The directory that `manyfill export` writes: graphs, what they were made of, a card, checksums."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field

from manyfill.errors import ModelError
from manyfill.manifest import read_directory, sha256, write_directory
from manyfill.models.config import ModelConfig, Strict, parse

Precision = Literal["fp32", "fp16", "int8"]
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
EXPECTATION, ENCODER, SAMPLER, STAGE = "expectation", "encoder", "sampler", "stage"


class Export(Strict):
    """export.json: the layout's version, the graphs' precision, the model's calibration by level, and by what versions
    the graphs were made."""

    format: Literal[1] = 1
    precision: Precision
    temperatures: list[float] = Field(min_length=1)
    made_by: dict[str, str]


@dataclass(frozen=True)
class Exported:
    """An exported model: graphs in ONNX by name, its card (Markdown), its measured figures, its own fingerprint."""

    config: ModelConfig
    export: Export
    graphs: dict[str, bytes]
    card: str
    figures: dict[str, Any]

    @property
    def digest(self) -> str:
        """Of all that fills depend on: other runtimes and precisions round otherwise, so they count as other models."""
        described = [self.config.to_json(), self.export.model_dump_json()]
        return sha256([*(text.encode() for text in described), *(graph for _, graph in sorted(self.graphs.items()))])

    def save(self, directory: Path) -> None:
        """Write it with its checksums, all or nothing; OutputError."""
        texts = {
            "config.json": self.config.to_json(),
            "export.json": self.export.model_dump_json(indent=2) + "\n",
            "figures.json": json.dumps(self.figures, indent=2) + "\n",
            "README.md": self.card,
        }
        files = {name: text.encode() for name, text in texts.items()}
        write_directory(directory, files | {f"{name}.onnx": graph for name, graph in self.graphs.items()})


def is_exported(directory: Path) -> bool:
    """Whether a directory is, or is what is left of, an exported model."""
    return (directory / "export.json").exists() or any(directory.glob("*.onnx"))


def read_exported(directory: Path) -> Exported:
    """What `Exported.save` wrote; ModelError for what is incomplete or altered."""
    mend = "copy it again, or export the model anew"
    files = read_directory(directory, mend)
    graphs = {name.removesuffix(".onnx"): files[name] for name in files if name.endswith(".onnx")}
    wanted = {"config.json", "export.json"} | {f"{name}.onnx" for name in (ENCODER, SAMPLER)}
    if missing := sorted(wanted - files.keys()):
        raise ModelError(f"{directory}: is no exported model, it lacks {', '.join(missing)}; {mend}")
    try:
        parts = {name: json.loads(files.get(name, b"{}")) for name in ("config.json", "export.json", "figures.json")}
        card = files.get("README.md", b"").decode()
    except ValueError as error:
        raise ModelError(f"{directory}: cannot be read as an exported model ({error}); {mend}") from None
    described = parts["export.json"]
    if not isinstance(described, dict) or described.get("format") != Export.model_fields["format"].default:
        raise ModelError(f"{directory}: was exported by another version of manyfill; export the model anew")
    config = parse(ModelConfig, parts["config.json"], f"{directory}/config.json")
    export = parse(Export, described, f"{directory}/export.json")
    optional = {EXPECTATION: config.canvas, STAGE: config.head != "mixture"}
    fits = all((name in graphs) == needed for name, needed in optional.items())
    if len(export.temperatures) != len(config.levels) or not fits:
        raise ModelError(f"{directory}: export.json does not fit config.json; {mend}")
    return Exported(config, export, graphs, card, parts["figures.json"])
