"""Directories that hold models and states: exact round trips, refusal of any damage."""

import hashlib
import json
from pathlib import Path

import pytest
import safetensors.torch
import torch
from storing import CARD, FIGURES, FILES, config, some_model

from manyfill.checkpoint import load_model, load_state, save_model, save_state
from manyfill.errors import ManyfillError, ModelError
from manyfill.manifest import MANIFEST, read_directory


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


def test_a_model_comes_back_bit_for_bit(stored: Path) -> None:
    model, loaded = some_model(), load_model(stored)
    assert sorted(path.name for path in stored.iterdir()) == sorted(FILES)
    assert not loaded.model.training
    assert loaded.model.config == model.config
    assert (loaded.card, loaded.figures, loaded.id) == (CARD, FIGURES, str(stored))
    found = loaded.model.state_dict()
    assert found.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert found[name].dtype == value.dtype and torch.equal(found[name], value), name


def test_saving_what_was_loaded_writes_the_same_bytes(stored: Path, tmp_path: Path) -> None:
    loaded = load_model(str(stored))
    save_model(tmp_path / "again", loaded.model, loaded.card, loaded.figures)
    for name in FILES:
        assert (tmp_path / "again" / name).read_bytes() == (stored / name).read_bytes()


@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit_anywhere_is_noticed_and_the_file_named(stored: Path, name: str) -> None:
    path, whole = stored / name, (stored / name).read_bytes()
    positions = {0, len(whole) - 1, *range(0, len(whole), max(1, len(whole) // 150))}
    for position in positions:
        for flip in (0x01, 0xFF):
            damaged = bytearray(whole)
            damaged[position] ^= flip
            path.write_bytes(damaged)
            with pytest.raises(ModelError) as refused:
                read_directory(stored, "copy it again")
            assert "\n" not in str(refused.value) and str(refused.value).endswith("copy it again")
            # A manifest damaged within a name or a checksum still reads, and then accuses a file of that name.
            assert str(stored) in str(refused.value) and (name in str(refused.value) or name == MANIFEST), position
    path.write_bytes(whole)
    load_model(stored)


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("share", [0, 0.5, 0.99])
def test_a_truncated_file_is_named(stored: Path, name: str, share: float) -> None:
    whole = (stored / name).read_bytes()
    (stored / name).write_bytes(whole[: int(share * len(whole))])
    assert refusal(stored).startswith(f"{stored / name}: ")


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(stored: Path, name: str) -> None:
    (stored / name).unlink()
    assert f"{stored}: incomplete, {name} is missing" in refusal(stored)


def test_a_file_that_is_no_file_is_named(stored: Path) -> None:
    (stored / "config.json").unlink()
    (stored / "config.json").mkdir()
    assert "config.json" in refusal(stored)


@pytest.mark.parametrize("content", ["", "[]", "5", '["config.json"]', '{"config.json": 5}', '"text"', "null"])
def test_a_manifest_of_another_form_is_refused(stored: Path, content: str) -> None:
    (stored / MANIFEST).write_text(content)
    assert str(stored) in refusal(stored)


def test_other_files_beside_a_model_are_ignored(stored: Path) -> None:
    (stored / "notes.txt").write_text("mine")
    (stored / ".gitattributes").write_text("")
    (stored / "samples").mkdir()
    load_model(stored)


@pytest.mark.parametrize("change", ["shape", "missing", "extra", "no safetensors"])
def test_weights_that_do_not_fit_their_config_are_refused(stored: Path, change: str) -> None:
    path = stored / "model.safetensors"
    tensors = safetensors.torch.load(path.read_bytes())
    if change == "shape":
        tensors["head.project.bias"] = torch.zeros(3)
    elif change == "missing":
        del tensors["topdown.start"]
    else:
        tensors["more"] = torch.zeros(3)
    path.write_bytes(b"weights" if change == "no safetensors" else safetensors.torch.save(tensors))
    reseal(stored)
    assert str(stored) in refusal(stored)


def test_a_config_that_fits_other_weights_is_refused(stored: Path) -> None:
    (stored / "config.json").write_text(config(width=6).to_json())
    reseal(stored)
    assert refusal(stored).startswith(f"{stored}/model.safetensors: does not fit config.json")


@pytest.mark.parametrize(
    ("name", "content"),
    [("config.json", "{"), ("config.json", "[]"), ("figures.json", "{"), ("config.json", '{"size": 8, "sizes": 9}')],
)
def test_contents_that_are_sealed_but_wrong_are_refused(stored: Path, name: str, content: str) -> None:
    (stored / name).write_text(content)
    reseal(stored)
    with pytest.raises(ManyfillError) as refused:
        load_model(stored)
    assert str(stored) in str(refused.value) and "\n" not in str(refused.value)


def test_a_card_that_is_no_text_is_refused(stored: Path) -> None:
    (stored / "README.md").write_bytes(b"\xff\xfe\x00")
    reseal(stored)
    assert str(stored) in refusal(stored)


@pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
def test_a_directory_that_holds_no_model_says_what_it_lacks(stored: Path, name: str) -> None:
    (stored / name).unlink()
    reseal(stored)
    assert f"lacks {name}" in refusal(stored)


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
