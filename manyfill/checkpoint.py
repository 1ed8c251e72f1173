"""The only way from disk to a model, and back.

A saved directory is written aside, flushed to the disk and renamed, with a SHA-256 manifest; whatever differs from
its manifest is refused. Tensors are safetensors, the rest is JSON or text: nothing in a file is ever executed.
"""

import glob
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
from safetensors import SafetensorError
from torch import Tensor

from manyfill.errors import ModelError, OutputError
from manyfill.files import refusal
from manyfill.models.config import ModelConfig, parse
from manyfill.models.hvae import ConditionalHVAE
from manyfill.models.pretrained import PretrainedText
from manyfill.models.tokens import Vocabulary

MANIFEST = "manifest.json"
DEFAULT_MODEL = Path(__file__).parent / "weights" / "base64"


@dataclass(frozen=True)
class Loaded:
    """A model ready for use (eval mode), the name it was asked for by, its card (Markdown) and its measured figures."""

    model: ConditionalHVAE
    id: str
    card: str
    figures: dict[str, Any]


def save_model(
    directory: Path, model: ConditionalHVAE, card: str, figures: dict[str, Any], keep: Sequence[str] = ()
) -> None:
    """Write config, weights (float32 safetensors), vocabulary, card and figures as one directory; OutputError.

    A directory that is there already is replaced, but for what `keep` names in it.
    """
    write_directory(directory, model_files(model, card, figures), keep)


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
    directory = _locate(source)
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


def stored_at(source: str) -> Path:
    """The directory of a model that is to be changed in place; ModelError for one that comes from the hub."""
    if source != "default" and not Path(source).is_dir():
        raise ModelError(f"{source}: comes from the hub, where nothing can be stored; calibrate a copy in a directory")
    return _locate(source)


def save_temperatures(directory: Path, model: ConditionalHVAE) -> None:
    """Write the calibration of `model` to the directory it was loaded from; ModelError, OutputError."""
    stored = load_model(directory)
    stored.model.temperatures.copy_(model.temperatures)
    figures = stored.figures | {"temperatures": [round(t, 4) for t in model.temperatures.tolist()]}
    manifest = json.loads((directory / MANIFEST).read_bytes())
    others = [path.name for path in directory.iterdir() if path.name not in {MANIFEST, *manifest}]
    save_model(directory, stored.model, stored.card, figures, keep=others)


def sha256(parts: Iterable[bytes]) -> str:
    """One fingerprint of several parts."""
    found = hashlib.sha256()
    for part in parts:
        found.update(hashlib.sha256(part).digest())
    return found.hexdigest()


def digest(model: ConditionalHVAE) -> str:
    """A model's fingerprint, of its config, its weights and its vocabulary."""
    tensors = (tensor.detach().cpu().contiguous().numpy().tobytes() for _, tensor in sorted(model.state_dict().items()))
    vocabulary = [model.vocabulary.text.encode()] if model.vocabulary else []
    return sha256([model.config.to_json().encode(), *tensors, *vocabulary])


def looks_like_model(source: str) -> bool:
    """Whether a word of a user's names a model rather than data: "default", a model directory or a hub id."""
    path = Path(source)
    _recover(path)
    return source == "default" or (path / "config.json").is_file() or (not path.exists() and _is_hub_id(source))


def _is_hub_id(source: str) -> bool:
    return source.count("/") == 1 and not source.startswith((".", "/", "~"))


def _locate(source: str | Path) -> Path:
    if str(source) == "default":
        return DEFAULT_MODEL
    _recover(Path(source))
    if Path(source).is_dir():
        return Path(source)
    if isinstance(source, str) and _is_hub_id(source):
        return _download(source)
    raise ModelError(f"{source}: no such model; give a model directory, a hub id 'owner/name' or 'default'")


def _download(repo: str) -> Path:
    import huggingface_hub

    try:
        return Path(huggingface_hub.snapshot_download(repo))
    except Exception as error:  # the hub, proxies and sockets raise kinds that have nothing in common
        raise ModelError(f"{repo}: neither a directory here nor to be had from the hub ({first_line(error)})") from None


def first_line(error: Exception) -> str:
    """What an error says, in one line."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def save_state(directory: Path, tensors: dict[str, Tensor], record: dict[str, Any]) -> None:
    """Write a training state: tensors by name and a JSON record."""
    whole = {name: value.detach().cpu().contiguous() for name, value in tensors.items()}
    files = {"state.safetensors": safetensors.torch.save(whole), "record.json": json.dumps(record, indent=2).encode()}
    write_directory(directory, files)


def load_state(directory: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read what `save_state` wrote; ModelError if it is incomplete or altered."""
    files = read_directory(directory, "delete it to go back to the checkpoint before")
    return safetensors.torch.load(files["state.safetensors"]), json.loads(files["record.json"])


def write_directory(directory: Path, files: dict[str, bytes], keep: Sequence[str] = ()) -> None:
    """Write `files` with their manifest as `directory`, all or nothing.

    An older directory of that name is replaced, but for what `keep` names in it.
    """
    manifest = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    aside = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    try:
        aside.mkdir(parents=True)
        for name, content in {**files, MANIFEST: json.dumps(manifest, indent=2).encode()}.items():
            with (aside / name).open("wb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
        _sync(aside)
        _replace(aside, directory, keep)
    except OSError as error:
        raise OutputError(
            f"{directory}: cannot be written ({refusal(error, directory)}); free space or choose another place"
        ) from None
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _replace(new: Path, directory: Path, keep: Sequence[str]) -> None:
    old = new.with_name(new.name + ".old")
    replaced = directory.exists()
    if replaced:
        directory.rename(old)
    try:
        new.rename(directory)
    except OSError:
        if replaced:
            old.rename(directory)
        raise
    for name in keep:
        (old / name).rename(directory / name)
    for stale in _moved_away(directory):
        shutil.rmtree(stale, ignore_errors=True)
    _sync(directory.parent)


def _sync(directory: Path) -> None:
    """Through to the disk: which names the directory holds."""
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def delete_directory(directory: Path) -> None:
    """Delete what `write_directory` wrote, so that a kill on the way leaves nothing of it under its name."""
    away = directory.with_name(f".{directory.name}.{secrets.token_hex(4)}")
    with suppress(OSError):
        directory.rename(away)
        shutil.rmtree(away)


def clear_leftovers(folder: Path) -> None:
    """Finish what a killed process left half-written or half-deleted in `folder`; nobody else may write there."""
    leftovers = sorted(folder.glob(f".*.{'[0-9a-f]' * 8}*"))
    for leftover in leftovers:
        if leftover.suffix == ".old":
            _recover(folder / leftover.name[1 : -len(".01234567.old")])
    for leftover in leftovers:
        shutil.rmtree(leftover, ignore_errors=True)


def _moved_away(directory: Path) -> list[Path]:
    """What `_replace` moved aside of this directory and, killed before its end, did not delete."""
    return sorted(directory.parent.glob(f".{glob.escape(directory.name)}.*.old")) if directory.name else []


def _recover(directory: Path) -> None:
    """Put the old directory back where the process was killed before the new one stood in its place."""
    if not directory.exists():
        for old in _moved_away(directory)[-1:]:
            old.rename(directory)


def read_directory(directory: Path, mend: str) -> dict[str, bytes]:
    """Every file of the manifest, checked against it; ModelError, ending in `mend`, for what is missing or altered."""
    try:
        manifest = dict(json.loads((directory / MANIFEST).read_bytes()))
        files = {name: (directory / name).read_bytes() for name in manifest}
    except FileNotFoundError as error:
        raise ModelError(f"{directory}: incomplete, {Path(error.filename).name} is missing; {mend}") from None
    except OSError as error:
        raise ModelError(f"{directory}: cannot be read ({first_line(error)}); {mend}") from None
    except (ValueError, TypeError) as error:
        raise ModelError(f"{directory / MANIFEST}: is damaged ({first_line(error)}); {mend}") from None
    for name, content in files.items():
        if hashlib.sha256(content).hexdigest() != manifest[name]:
            raise ModelError(f"{directory / name}: differs from its checksum in {MANIFEST}; {mend}")
    return files
