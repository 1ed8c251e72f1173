"""Sharing a model: uploaded to a stand-in for the Hub over HTTP by the real client, fetched again, and its card."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from evaluating import saved
from hubserver import Hub, hub
from huggingface_hub import ModelCard
from PIL import Image

from manyfill import Filler
from manyfill.checkpoint import load_model, read_directory
from manyfill.errors import ModelError
from manyfill.hub import hub_card, plots, push

CARD = (
    "---\ntags:\n- inpainting\n---\n# A model\n\n    manyfill fill photo.png --model DIR\n\n## Figures\n\n4.5 bits.\n"
)
INTERVAL = {"mean": 0.9, "low": 0.88, "high": 0.91}
FIGURES = {"kl_01": 0.1, "kl_02": 0.4, "masks": {"centre": {"crps": INTERVAL, "coverage_90": INTERVAL}}}


@pytest.fixture
def server() -> Iterator[Hub]:
    with hub() as running:
        yield running


@pytest.fixture
def model(tmp_path: Path) -> Path:
    filler = Filler.from_pretrained(saved(tmp_path / "made", 0))
    filler.card, filler.figures = CARD, FIGURES
    filler.save_pretrained(tmp_path / "model")
    return tmp_path / "model"


def manyfill(server: Hub, home: Path, *arguments: str, token: str = "hf_secret") -> subprocess.CompletedProcess[str]:
    """The command with this hub for its own, and nobody's login."""
    asked = {"HF_ENDPOINT": server.address, "HF_HOME": str(home), "HF_TOKEN": token, "HF_HUB_DISABLE_XET": "1"}
    command = [sys.executable, "-m", "manyfill", *arguments]
    return subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, timeout=300)


def test_save_pretrained_is_what_from_pretrained_reads(model: Path, tmp_path: Path) -> None:
    filler = Filler.from_pretrained(model)
    filler.save_pretrained(tmp_path / "again")
    assert (filler.card, filler.figures) == (CARD, FIGURES)
    assert read_directory(tmp_path / "again", "") == read_directory(model, "")


def test_a_pushed_model_comes_back_from_the_hub_whole(model: Path, server: Hub, tmp_path: Path) -> None:
    pushed = manyfill(
        server, tmp_path / "one", "push", str(model), "me/pictures", "--licence", "cc-by-4.0", "--private"
    )
    assert pushed.returncode == 0, pushed.stderr
    assert pushed.stdout.strip() == f"{server.address}/me/pictures"
    assert server.private["me/pictures"]
    held = server.repositories["me/pictures"]
    assert {"config.json", "model.safetensors", "manifest.json", "levels.png", "holes.png"} <= held.keys()
    assert "--model me/pictures" in held["README.md"].decode()
    shown = manyfill(server, tmp_path / "two", "info", "me/pictures")
    assert shown.returncode == 0, shown.stderr
    assert "cc-by-4.0" in shown.stdout
    fetched = next((tmp_path / "two").rglob("snapshots/*"))
    pixels = np.zeros((32, 32, 3), np.uint8)
    first, again = (Filler.from_pretrained(place)(pixels, pixels[..., 0] == 0, n=1) for place in (model, fetched))
    assert np.array_equal(first.images[0], again.images[0])


def test_pushing_again_replaces_the_model(model: Path, server: Hub, tmp_path: Path) -> None:
    server.repositories["me/pictures"] = {"README.md": b"an older card"}
    pushed = manyfill(server, tmp_path, "push", str(model), "me/pictures")
    assert pushed.returncode == 0, pushed.stderr
    assert b"No licence was stated" in server.repositories["me/pictures"]["README.md"]


def test_a_refused_login_is_one_line_and_exit_2(model: Path, server: Hub, tmp_path: Path) -> None:
    refused = manyfill(server, tmp_path, "push", str(model), "me/pictures", token="hf_wrong")
    assert refused.returncode == 2 and refused.stderr.count("\n") == 1
    assert refused.stderr.startswith("error: me/pictures: not uploaded (") and "hf auth login" in refused.stderr
    assert server.repositories == {}


def test_a_name_that_is_none_is_refused_before_anything_is_made(model: Path) -> None:
    with pytest.raises(ModelError, match="pictures: is no name on the hub; give 'owner/name'"):
        push(load_model(model), "pictures")


# --------------------------------------------------------------------------------------------------------- the card


def test_the_shipped_models_card_has_all_of_it() -> None:
    loaded = load_model()
    pictures = plots(loaded.figures)
    card = ModelCard(hub_card(loaded.card, "me/base64", "cc-by-nc-4.0", list(pictures)))
    assert card.data.license == "cc-by-nc-4.0" and card.data.library_name == "manyfill"
    assert 'from_pretrained("me/base64")' in card.text
    order = ["## Figures", "levels.png", "holes.png", "## Limits", "## Licence of the data"]
    assert sorted(order, key=card.text.index) == order
    for content in pictures.values():
        assert content.startswith(b"\x89PNG")


@pytest.mark.parametrize("licence, said", [("mit", "under the licence `mit`"), (None, "No licence was stated")])
def test_a_licence_is_stated_or_said_to_be_missing(licence: str | None, said: str) -> None:
    card = hub_card(CARD, "me/x", licence, [])
    assert said in card and "Apache-2.0" in card
    assert hub_card(card, "me/x", None, []).count("## Licence") == 1


def test_a_card_without_headings_still_gets_its_pictures() -> None:
    card = hub_card("", "me/x", None, ["levels.png"])
    assert "levels.png" in card and ModelCard(card).data.library_name == "manyfill"


def test_plots_are_of_what_is_there(tmp_path: Path) -> None:
    assert plots({"steps": 3}) == {}
    assert list(plots({"validation": {"kl_01": 0.5}})) == ["levels.png"]
    (tmp_path / "levels.png").write_bytes(plots(FIGURES)["levels.png"])
    assert Image.open(tmp_path / "levels.png").width > 200
