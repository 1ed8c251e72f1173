"""Directories that hold models and states: exact round trips, refusal of any damage, all or nothing on the disk."""

import errno
import hashlib
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError, OfflineModeIsEnabled

from manyfill.checkpoint import load_model, load_state, save_model, save_state
from manyfill.errors import ManyfillError, ModelError, OutputError
from manyfill.manifest import MANIFEST, read_directory, write_directory
from manyfill.models.config import LevelSpec, ModelConfig, StageSpec
from manyfill.models.hvae import ConditionalHVAE

FILES = ("config.json", "model.safetensors", "README.md", "figures.json", MANIFEST)
CARD, FIGURES = "# A card\n\nfor tests: äöü\n", {"bits_per_dim": 4.5, "steps": 7}


def config(width: int = 4) -> ModelConfig:
    return ModelConfig(
        size=8,
        stages=(StageSpec(size=8, width=width), StageSpec(size=4, width=width)),
        levels=(LevelSpec(size=4, width=width, latent=2), LevelSpec(size=8, width=width, latent=2)),
        norm="batch",  # for buffers, among them an integer one
        mixtures=2,
    )


def some_model(seed: int = 0) -> ConditionalHVAE:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = ConditionalHVAE(config())
        model(torch.rand(2, 3, 8, 8), torch.ones(2, 1, 8, 8))  # moves the batch norms' statistics
    return model


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    save_model(directory, some_model(), CARD, FIGURES)
    return directory


def refusal(directory: Path) -> str:
    """The one line with which a directory is refused."""
    with pytest.raises(ModelError) as refused:
        load_model(directory)
    assert "\n" not in str(refused.value)
    return str(refused.value)


def reseal(directory: Path) -> None:
    """Make the manifest agree with the files as they are now."""
    sums = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in directory.iterdir()
        if path.name != MANIFEST
    }
    (directory / MANIFEST).write_text(json.dumps(sums))


# ------------------------------------------------------------------------------------------------------- models


def test_a_model_comes_back_bit_for_bit(saved: Path) -> None:
    model, loaded = some_model(), load_model(saved)
    assert sorted(path.name for path in saved.iterdir()) == sorted(FILES)
    assert not loaded.model.training
    assert loaded.model.config == model.config
    assert (loaded.card, loaded.figures, loaded.id) == (CARD, FIGURES, str(saved))
    found = loaded.model.state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_saving_what_was_loaded_writes_the_same_bytes(saved: Path, tmp_path: Path) -> None:
    loaded = load_model(str(saved))
    save_model(tmp_path / "again", loaded.model, loaded.card, loaded.figures)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (saved / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_noticed_and_the_file_named(saved: Path, name: str) -> None:
    path, whole = saved / name, (saved / name).read_bytes()
    positions = {0, len(whole) - 1, *range(0, len(whole), max(1, len(whole) // 150))}
    for position in positions:
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(ModelError) as refused:
                read_directory(saved, "copy it again")
            assert "\n" not in str(refused.value) and str(refused.value).endswith("copy it again")
            # A manifest damaged within a name or a checksum still reads, and then accuses a file of that name.
            assert str(saved) in str(refused.value) and (name in str(refused.value) or name == MANIFEST), position
    path.write_bytes(whole)
    load_model(saved)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(saved: Path, name: str, share: float) -> None:
    whole = (saved / name).read_bytes()
    (saved / name).write_bytes(whole[: int(share * len(whole))])
    assert refusal(saved).startswith(f"{saved / name}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(saved: Path, name: str) -> None:
    (saved / name).unlink()
    assert f"{saved}: incomplete, {name} is missing" in refusal(saved)


def test_a_file_that_is_no_file_is_named(saved: Path) -> None:
    (saved / "config.json").unlink()
    (saved / "config.json").mkdir()
    assert "config.json" in refusal(saved)


@pytest.mark.parametrize("content", ["", "[]", "5", '["config.json"]', '{"config.json": 5}', '"text"', "null"])
def test_a_manifest_of_another_form_is_refused(saved: Path, content: str) -> None:
    (saved / MANIFEST).write_text(content)
    assert str(saved) in refusal(saved)


def test_other_files_beside_a_model_are_ignored(saved: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (saved / ".gitattributes").write_text("")
    (saved / "samples").mkdir()
    load_model(saved)


@pytest.mark.parametrize("change", ["shape", "missing", "extra", "no safetensors"])
def test_weights_that_do_not_fit_their_config_are_refused(saved: Path, change: str) -> None:
    path = saved / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    if change == "shape":
        tensors["head.project.bias"] = torch.zeros(3)
    elif change == "missing":
        del tensors["topdown.start"]
    else:
        tensors["more"] = torch.zeros(3)
    path.write_bytes(b"weights" if change == "no safetensors" else safetensors.torch.save(tensors))
    reseal(saved)
    assert str(saved) in refusal(saved)


def test_a_config_that_fits_other_weights_is_refused(saved: Path) -> None:
    (saved / "config.json").write_text(config(width=6).to_json())
    reseal(saved)
    assert refusal(saved).startswith(f"{saved}/model.safetensors: does not fit config.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", "[]"), ("figures.json", "{"), ("config.json", '{"size": 8, "sizes": 9}')],
)
def test_contents_that_are_sealed_but_wrong_are_refused(saved: Path, name: str, content: str) -> None:
    (saved / name).write_text(content)
    reseal(saved)
    with pytest.raises(ManyfillError) as refused:
        load_model(saved)
    assert str(saved) in str(refused.value) and "\n" not in str(refused.value)


def test_a_card_that_is_no_text_is_refused(saved: Path) -> None:
    (saved / "README.md").write_bytes(b"\xff\xfe\x00")
    reseal(saved)
    assert str(saved) in refusal(saved)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_that_holds_no_model_says_what_it_lacks(saved: Path, name: str) -> None:
    (saved / name).unlink()
    reseal(saved)
    assert f"lacks {name}" in refusal(saved)


@pytest.mark.parametrize("source", ["/no/such/model", "./none", "~/none", "none", "a/b/c"])
def test_a_name_that_is_no_model_says_what_would_be(source: str) -> None:
    with pytest.raises(
        ModelError, match="no such model; give a model directory, a hub id 'owner/name' or one of 'default'"
    ):
        load_model(source)


# ------------------------------------------------------------------------------------------------- all or nothing


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
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, function: str, n: int
) -> None:
    """While writing, and between the two renames of a replacement."""
    before = {name: (saved / name).read_bytes() for name in FILES}
    monkeypatch.setattr(os, function, Failing(getattr(os, function), n))
    with pytest.raises(
        OutputError, match=f"^{saved}: cannot be written .No space left on device on the disk at /.*; free space or"
    ):
        save_model(saved, some_model(seed=1), "# Another card\n", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert {name: (saved / name).read_bytes() for name in FILES} == before
    assert load_model(saved).card == CARD


def test_a_failure_at_the_first_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "fsync", Failing(os.fsync, 1))
    with pytest.raises(OutputError, match="cannot be written"):
        save_model(tmp_path / "model", some_model(), CARD, FIGURES)
    assert not list(tmp_path.iterdir())


def test_an_interruption_leaves_the_old_model_alone(
    saved: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(_descriptor: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save_model(saved, some_model(seed=1), "# Another card\n", {})
    assert [path.name for path in tmp_path.iterdir()] == ["model"] and load_model(saved).card == CARD


def test_a_kill_between_the_two_renames_loses_nothing(saved: Path) -> None:
    """The old directory has been moved away, the new one does not yet stand in its place."""
    before = load_model(saved)
    away = saved.rename(saved.with_name(f".{saved.name}.0123abcd.old"))
    again = load_model(saved)
    assert not away.exists() and again.card == before.card
    assert all(torch.equal(a, b) for a, b in zip(again.model.parameters(), before.model.parameters(), strict=True))


def test_replacing_takes_over_what_is_not_the_old_models(saved: Path, tmp_path: Path) -> None:
    (saved / "notes.txt").write_text("mine")
    (saved / "plots").mkdir()
    (saved / "plots" / "loss.svg").write_text("mine too")
    write_directory(saved, {"only.txt": b"new"})
    assert sorted(path.name for path in saved.iterdir()) == [MANIFEST, "notes.txt", "only.txt", "plots"]
    assert (saved / "notes.txt").read_text() == "mine" and (saved / "plots" / "loss.svg").read_text() == "mine too"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert read_directory(saved, "") == {"only.txt": b"new"}


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


# -------------------------------------------------------------------------------------------------------- states


def test_a_state_comes_back_bit_for_bit(tmp_path: Path) -> None:
    g = torch.Generator().manual_seed(0)
    wide = torch.randn(4, 6, 5, 5, generator=g)
    tensors = {
        "float": wide,
        "channels last": wide.to(memory_format=torch.channels_last),
        "transposed": wide[0, 0].T,
        "half": wide.bfloat16(),
        "odd": torch.tensor([float("nan"), float("inf"), -0.0, 1e-45]),
        "step": torch.tensor(12345678901),
        "generator": g.get_state(),
        "empty": torch.zeros(0, 3),
        "learns": torch.ones(2, requires_grad=True),
    }
    record = {"step": 3, "elapsed": 0.1 + 0.2, "guard": {"norms": [1e-300, 2.5], "skipped": 0}, "none": None}
    save_state(tmp_path / "runs" / "step-3", tensors, record)
    found, again = load_state(tmp_path / "runs" / "step-3")
    assert again == record and found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype and found[name].shape == value.shape, name
        assert safetensors.torch.save({"": found[name]}) == safetensors.torch.save({"": value.detach().contiguous()})


def test_a_damaged_state_is_refused_with_its_own_mend(tmp_path: Path) -> None:
    save_state(tmp_path / "step-3", {"a": torch.zeros(3)}, {"step": 3})
    path = tmp_path / "step-3" / "state.safetensors"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ModelError, match=f"^{path}: .*; delete it to go back to the checkpoint before$"):
        load_state(tmp_path / "step-3")


# ----------------------------------------------------------------------------------------------------------- hub


def test_a_hub_id_is_fetched_and_read_like_any_directory(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def fetched(repo: str) -> str:
        asked.append(repo)
        return str(saved)

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetched)
    loaded = load_model("owner/name")
    assert asked == ["owner/name"] and loaded.id == "owner/name" and loaded.card == CARD
    (saved / "model.safetensors").unlink()
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


def test_a_directory_comes_before_a_hub_id_of_the_same_name(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.snapshot_download", lambda _repo: pytest.fail("asked the hub"))
    monkeypatch.chdir(saved.parent.parent)
    shutil.copytree(saved, saved.parent / "copy")
    assert load_model(f"{saved.parent.name}/copy").card == CARD
