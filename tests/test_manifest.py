"""A model's directory is written whole or not at all, and takes the place of nothing but an older model."""

import errno
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from storing import CARD, FIGURES, FILES, some_model

from manyfill.checkpoint import load_model, save_model
from manyfill.errors import OutputError
from manyfill.manifest import MANIFEST, read_directory, write_directory


class Failing:
    """Stands for a function of the system that fails once, at its n-th call counted from 0, on a full disk."""

    def __init__(self, real: Callable[..., object], n: int) -> None:
        self.real, self.left = real, n

    def __call__(self, *args: object) -> object:
        self.left -= 1
        if self.left == -1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return self.real(*args)


@pytest.mark.parametrize(("function", "n"), [("fsync", 0), ("fsync", 3), ("rename", 0), ("rename", 1)])
def test_a_failure_while_replacing_leaves_the_old_model_alone(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, n: int
) -> None:
    """While writing, and between the two renames of a replacement."""
    before = {name: (stored / name).read_bytes() for name in FILES}
    monkeypatch.setattr(os, function, Failing(getattr(os, function), n))
    with pytest.raises(
        OutputError, match=f"^{stored}: cannot be written .No space left on device on the disk at /.*; free space or"
    ):
        save_model(stored, some_model(seed=1), "# Another card\n", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {name: (stored / name).read_bytes() for name in FILES} == before
    assert load_model(stored).card == CARD


def test_a_failure_at_the_first_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1))
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "model", some_model(), CARD, FIGURES)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_the_old_model_alone(
    stored: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(stored, some_model(seed=1), "# Another card\n", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and load_model(stored).card == CARD


def test_a_kill_between_the_two_renames_loses_nothing(stored: Path) -> None:
    """The old directory has been moved away, the new one does not yet stand in its place."""
    before = load_model(stored)
    away = stored.rename(stored.with_name(f".{stored.name}.0123abcd.old"))
    again = load_model(stored)
    assert not away.exists() and again.card == before.card
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), before.model.parameters(), strict=True))


def test_replacing_takes_over_what_is_not_the_old_models(stored: Path, tmp_path: Path) -> None:
    (stored / "notes.txt").write_text("mine")
    (stored / "plots").mkdir()
    (stored / "plots" / "loss.svg").write_text("mine too")
    write_directory(stored, {"only.txt": b"new"})
    assert sorted(path.name for path in stored.iterdir()) == [MANIFEST, "notes.txt", "only.txt", "plots"]
    assert (stored / "notes.txt").read_text() == "mine" and (stored / "plots" / "loss.svg").read_text() == "mine too"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_directory(stored, "") == {"only.txt": b"new"}


@pytest.mark.parametrize("content", ['{"name": "an app", "icons": []}', "{}", "[]", "no JSON", '{"a": "0123"}'])
def test_a_folder_with_a_manifest_of_another_tool_is_not_replaced(tmp_path: Path, content: str) -> None:
    (tmp_path / "app").mkdir()
    (tmp_path / "app" / MANIFEST).write_text(content)
    with pytest.raises(OutputError, match="is in the way"):
        save_model(tmp_path / "app", some_model(), CARD, FIGURES)
    assert [path.name for path in tmp_path.rglob("*")] == ["app", MANIFEST]
    assert (tmp_path / "app" / MANIFEST).read_text() == content


@pytest.mark.parametrize("name", ["photo.jpg", "photos", "."])
def test_nothing_but_an_older_model_is_replaced(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    photos = [tmp_path / "photo.jpg", tmp_path / "photos" / "cat.jpg"]
    for photo in photos:
        photo.write_text("mine")
    with pytest.raises(OutputError, match="is in the way"):
        save_model(Path(name), some_model(), CARD, FIGURES)
    assert [photo.read_text() for photo in photos] == ["mine", "mine"]
    assert len(list(tmp_path.iterdir())) == 2


def test_an_empty_folder_becomes_a_model(tmp_path: Path) -> None:
    save_model(tmp_path, some_model(), CARD, FIGURES)
    assert {path.name for path in tmp_path.iterdir()} == set(FILES)


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match=f"^{tmp_path}/file/model: cannot be written"):
        save_model(tmp_path / "file" / "model", some_model(), CARD, FIGURES)
