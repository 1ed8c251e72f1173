"""Sharing a model on the Hugging Face Hub: its card, with plots and a licence, and the upload.

What is uploaded is a model directory like any other, manifest included, so `load_model` checks every file that it gets
back. huggingface_hub's own mixins write weights and config without one, and are not used for that.
"""

import io
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import HfApi, ModelCard

from manyfill.checkpoint import Loaded, model_files
from manyfill.errors import ModelError
from manyfill.manifest import first_line, write_directory
from manyfill.plots import panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LICENCE = """
## Licence

{weights} The code that runs them, manyfill, is under Apache-2.0.
"""
STATED = "The weights are under the licence `{}`."
UNSTATED = "No licence was stated for the weights: ask whoever published them before you use them."
PLOTS = {
    "levels.png": "Bits per hole value that each latent level costs, coarse to fine",
    "holes.png": "Error of the fills by kind of hole, and how often their 90 % interval covers the truth",
}


def push(loaded: Loaded, repo: str, licence: str | None = None, private: bool = False, token: str | None = None) -> str:
    """Upload a model to the hub as `repo` ("owner/name"), made if it is not there, and return its address; ModelError.

    `licence` is the Hub's name for that of the weights, such as apache-2.0 or cc-by-nc-4.0. Without `token`, the one
    that `hf auth login` stored or HF_TOKEN is taken.
    """
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", repo):
        raise ModelError(f"{repo}: is no name on the hub; give 'owner/name'")
    pictures = plots(loaded.figures)
    card = hub_card(loaded.card, repo, licence, list(pictures))
    with tempfile.TemporaryDirectory() as folder:
        directory = Path(folder) / "model"
        write_directory(directory, model_files(loaded.model, card, loaded.figures) | pictures)
        try:
            api = HfApi(token=token)
            address = api.create_repo(repo, private=private, exist_ok=True)
            api.upload_folder(repo_id=repo, folder_path=directory, commit_message="Model, card and figures")
        except Exception as error:  # the hub, proxies and sockets raise kinds that have nothing in common
            said = first_line(error)
            raise ModelError(f"{repo}: not uploaded ({said}); log in with `hf auth login` or set HF_TOKEN") from None
    return str(address)


def hub_card(card: str, repo: str, licence: str | None, pictures: list[str]) -> str:
    """A model's card as the Hub shows it: how to use it under its name there, its plots, and a licence."""
    whole = ModelCard(card, ignore_metadata_errors=True)
    stated = licence or whole.data.get("license")
    whole.data["license"] = stated
    whole.data["library_name"] = whole.data.get("library_name") or "manyfill"
    text = re.sub(r"\bDIR\b", repo, whole.text)
    shown = "".join(f"\n![{PLOTS[name]}]({name})\n\n*{PLOTS[name]}.*\n" for name in pictures)
    head, figures, rest = text.partition("\n## Figures\n")
    text = f"{head}{figures}{shown}{rest}" if figures else f"{text.rstrip()}\n{shown}"
    if "\n## Licence" not in text:
        weights = STATED.format(stated) if stated else UNSTATED
        text = f"{text.rstrip()}\n{LICENCE.format(weights=weights)}"
    whole.text = text
    return str(whole)


def plots(figures: Mapping[str, Any]) -> dict[str, bytes]:
    """What a model's figures hold, as PNG files by name; ModelError where matplotlib is not installed."""
    validation = {**figures, **figures.get("validation", {})}
    levels = [value for name, value in sorted(validation.items()) if re.fullmatch(r"kl_\d+", name)]
    holes = {kind: row for kind, row in figures.get("masks", {}).items() if {"crps", "coverage_90"} <= row.keys()}
    try:
        drawn = {"levels.png": _levels(levels), "holes.png": _holes(holes)}
    except ImportError as error:
        raise ModelError(f"the card's plots need {error.name}: pip install 'manyfill[evaluate]'") from None
    return {name: _png(figure) for name, figure in drawn.items() if figure}


def _levels(bits: list[float]) -> "Figure | None":
    if not bits:
        return None
    figure, places = panels(1)
    axes = next(places)
    levels = range(1, len(bits) + 1)
    axes.bar(levels, bits)
    axes.set(xticks=levels, xlabel="level, coarse to fine", ylabel="bits per hole value")
    return figure


def _holes(rows: Mapping[str, Mapping[str, Any]]) -> "Figure | None":
    if not rows:
        return None
    figure, places = panels(2)
    for axes, name, label in zip(places, ("crps", "coverage_90"), ("CRPS, grey levels", "90 % covers"), strict=True):
        values = [rows[kind][name] for kind in rows]
        middle = [value["mean"] for value in values]
        reach = [[v["mean"] - v["low"] for v in values], [v["high"] - v["mean"] for v in values]]
        axes.errorbar(middle, list(rows), xerr=reach, fmt="o", markersize=4)
        axes.invert_yaxis()
        axes.set_xlabel(label)
        if name == "coverage_90":
            axes.axvline(0.9, color="black", linewidth=0.8)
            axes.set_xlim(0.5, 1)
        else:
            axes.set_xlim(0)
    return figure


def _png(figure: "Figure") -> bytes:
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=120)
        return file.getvalue()
