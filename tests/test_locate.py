"""From what a user calls a model to the directory that holds it: shipped names, directories, the hub."""

import errno
import shutil
from pathlib import Path

import pytest
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled
from storing import CARD

from manyfill.benchmark import model_named
from manyfill.checkpoint import digest, load_model
from manyfill.errors import ModelError
from manyfill.locate import locate, shipped


@pytest.mark.parametrize("source", ["/no/such/model", "./none", "~/none", "none", "a/b/c"])
def test_a_name_that_is_no_model_says_what_would_be(source: str) -> None:
    with pytest.raises(
        ModelError, match="no such model; give a model directory, a hub id 'owner/name' or one of 'default'"
    ):
        load_model(source)


def test_a_directory_takes_precedence_over_a_shipped_name(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    for name in shipped():
        assert locate(name) == shipped()[name]
        (tmp_path / name).mkdir()
    assert locate("default") == shipped()["default"]
    assert all(locate(name) == Path(name) for name in shipped() if name != "default")


def test_a_benchmark_takes_the_weights_of_a_shipped_name() -> None:
    for name in shipped():
        assert digest(model_named(name)) == digest(load_model(name).model)


def test_a_hub_id_is_fetched_and_read_like_any_directory(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(repo: str) -> str:
        asked.append(repo)
        return str(stored)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    loaded = load_model("owner/name")
    assert asked == ["owner/name"] and loaded.id == "owner/name" and loaded.card == CARD
    (stored / "model.safetensors").unlink()
    with pytest.raises(ModelError, match=r"model\.safetensors is missing"):
        load_model("owner/name")


@pytest.mark.parametrize(
    "error",
    [
        LocalEntryNotFoundError("no snapshot in the cache\nand no network"),
        OfflineModeIsEnabled("offline mode is on"),
        HFValidationError("no valid repo id"),
        ConnectionError("connection refused"),
        OSError(errno.ENOSPC, "No space left on device"),
        RuntimeError(),
    ],
    ids=lambda error: type(error).__name__,
)
def test_a_hub_that_cannot_help_is_one_line(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(_repo: str) -> str:
        raise error

    monkeypatch.setattr("huggingface_hub.snapshot_download", refused)
    with pytest.raises(ModelError, match=r"^owner/name: neither a directory here nor to be had from the hub \(.+\)$"):
        load_model("owner/name")


def test_a_directory_comes_before_a_hub_id_of_the_same_name(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _repo: pytest.fail("asked the hub"))
    monkeypatch.chdir(stored.parent.parent)
    shutil.copytree(stored, stored.parent / "copy")
    assert load_model(f"{stored.parent.name}/copy").card == CARD
