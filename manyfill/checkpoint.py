"""The only way from disk to a model, and back.

Tensors are safetensors, the rest is JSON or text: nothing in a file is ever executed.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from manyfill.errors import ModelError
from manyfill.locate import locate
from manyfill.manifest import first_line, read_directory, sha256, write_directory
from manyfill.models.config import ModelConfig, parse
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.pretrained import PretrainedText
from manyfill.models.tokens import Vocabulary


@dataclass(frozen=True)
class Loaded:
    """A model ready for use (eval mode), the name it was asked for by, its card (Markdown) and its measured figures."""

    model: ConditionalHVAE
    id: str
    card: str
    figures: dict[str, Any]


def save_model(directory: Path, model: ConditionalHVAE, card: str, figures: dict[str, Any]) -> None:
    """Write config, weights (float32 safetensors), vocabulary, card and figures as one directory; OutputError.

    A model that is there already is replaced, but for files of others in its directory.
    """
    write_directory(directory, model_files(model, card, figures))


def model_files(model: ConditionalHVAE, card: str, figures: dict[str, Any]) -> dict[str, bytes]:
    """What a model directory holds, but for its manifest: config, weights (float32 safetensors), vocabulary, card and
    figures."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}
    files = {
        "config.json": model.config.to_json().encode(),
        "model.safetensors": safetensors.torch.save(tensors),
        "README.md": card.encode(),
        "figures.json": (json.dumps(figures, indent=2) + "\n").encode(),
    }
    if model.vocabulary is not None:
        files[model.vocabulary.file] = model.vocabulary.text.encode()
    return files


def load_model(source: str | Path = "default") -> Loaded:
    """The model of `source`: "default", a directory, or a Hugging Face hub id "owner/name". ModelError if unusable."""
    directory = locate(source)
    files = read_directory(directory, "copy the model directory again, or train it anew")
    _check_holds(directory, files, "config.json", "model.safetensors")
    try:
        config = parse(ModelConfig, json.loads(files["config.json"]), f"{directory}/config.json")
        model = ConditionalHVAE(config)
        model.load_state_dict(safetensors.torch.load(files["model.safetensors"]))
        if config.captions:
            kind = PretrainedText if config.captions.encoder else Vocabulary
            _check_holds(directory, files, kind.file)
            model.vocabulary = kind.of(files[kind.file].decode())
        card, figures = files.get("README.md", b"").decode(), json.loads(files.get("figures.json", b"{}"))
    except (ValueError, SafetensorError) as error:
        raise ModelError(f"{directory}: cannot be read as a model ({first_line(error)}); copy it again") from None
    except RuntimeError:
        raise ModelError(
            f"{directory}/model.safetensors: does not fit config.json; copy the model directory again"
        ) from None
    return Loaded(model.eval(), str(source), card, figures)


def _check_holds(directory: Path, files: dict[str, bytes], *names: str) -> None:
    missing = sorted(set(names) - files.keys())
    if missing:
        raise ModelError(f"{directory}: is no model directory, it lacks {', '.join(missing)}")


def save_temperatures(directory: Path, model: ConditionalHVAE) -> None:
    """Write the calibration of `model` to the directory it was loaded from; ModelError, OutputError."""
    stored = load_model(directory)
    stored.model.temperatures.copy_(model.temperatures)
    figures = stored.figures | {"temperatures": [round(t, 4) for t in model.temperatures.tolist()]}
    save_model(directory, stored.model, stored.card, figures)


def digest(model: ConditionalHVAE) -> str:
    """A model's fingerprint, of its config, its weights and its vocabulary."""
    tensors = (tensor.detach().cpu().contiguous().numpy().tobytes() for _, tensor in sorted(model.state_dict().items()))
    vocabulary = [model.vocabulary.text.encode()] if model.vocabulary else []
    return sha256([model.config.to_json().encode(), *tensors, *vocabulary])


def save_state(directory: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write a training state: tensors by name and a JSON record."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    files = {"state.safetensors": safetensors.torch.save(whole), "record.json": json.dumps(record, indent=2).encode()}
    write_directory(directory, files)


def load_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote; ModelError if it is incomplete or altered."""
    files = read_directory(directory, "delete it to go back to the checkpoint before")
    return safetensors.torch.load(files["state.safetensors"]), json.loads(files["record.json"])
