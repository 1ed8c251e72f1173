"""What damage, a full disk and a kill may not do to a run."""

import os
import random
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from training import Micro, after_step, state

import manyfill
from manyfill.checkpoint import load_model, load_state
from manyfill.errors import ManyfillError, ModelError, OutputError
from manyfill.train import loop
from manyfill.train.loop import Trainer, run
from manyfill.train.state import checkpoints, load_newest, tidy

sys.path.insert(0, str(Path(manyfill.__file__).parent.parent / "scripts"))

pytestmark = pytest.mark.usefixtures("one_thread")

FLIPS, TRUNCATIONS = 200, 100

# ------------------------------------------------------------------------------------------------------------- damage


@pytest.fixture
def saved(micro: Micro, tmp_path: Path) -> Trainer:
    """A run with checkpoints of steps 2 and 4."""
    run(micro("train.checkpoint_every=2"), tmp_path / "run")
    return Trainer(micro(), tmp_path / "run")


def damaged_files(newest: Path, draws: random.Random) -> Iterator[tuple[Path, bytes]]:
    """A file of the checkpoint and its bytes, the larger ones oftener."""
    files = sorted(newest.iterdir())
    sizes = [file.stat().st_size for file in files]
    while True:
        file = draws.choices(files, sizes)[0]
        yield file, file.read_bytes()


def passed_over(trainer: Trainer) -> bool:
    """Whether the newest checkpoint is refused by name and the one before taken in its place."""
    before, newest = checkpoints(trainer.out)
    with pytest.raises(ModelError, match=str(newest)) as refused:
        load_state(newest)
    trainer.state.step = -1
    (warning,) = load_newest(trainer.out, trainer.state)
    assert "\n" not in str(refused.value) and warning.startswith(str(newest)) and "the checkpoint before" in warning
    return f"step-{trainer.state.step:08d}" == before.name


def test_every_flipped_bit_and_every_lost_page_is_noticed(saved: Trainer) -> None:
    draws, noticed = random.Random(0), 0
    for file, content in damaged_files(checkpoints(saved.out)[-1], draws):
        spoilt = bytearray(content)
        place = draws.randrange(len(content))
        if draws.random() < 0.5:
            spoilt[place] ^= 1 << draws.randrange(8)
        else:
            page = slice(place, place + 4096)
            spoilt[page] = bytes(len(spoilt[page]))
        if spoilt == content:  # zeros already
            continue
        file.write_bytes(spoilt)
        noticed += passed_over(saved)
        file.write_bytes(content)
        if noticed == FLIPS:
            break
    assert load_newest(saved.out, saved.state) == [] and saved.state.step == 4, "or the damage was not undone"


def test_wherever_a_file_is_cut_short_the_checkpoint_before_is_taken(saved: Trainer) -> None:
    draws, noticed = random.Random(1), 0
    for file, content in damaged_files(checkpoints(saved.out)[-1], draws):
        file.write_bytes(content[: draws.randrange(len(content))])
        noticed += passed_over(saved)
        file.write_bytes(content)
        if noticed == TRUNCATIONS:
            break


# --------------------------------------------------------------------------------------------------------- a full disk


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of two megabytes."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(disk)]
    if shutil.which("mount") is None or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("mounting a small disk takes root's rights")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill_up(disk: Path) -> None:
    with (disk / "filler").open("wb", buffering=0) as filler:
        for size in (65536, 1):
            try:
                while filler.write(bytes(size)):
                    pass
            except OSError:
                pass


@pytest.mark.parametrize(
    ("rhythm", "meets"),
    [
        (["train.checkpoint_every=6"], r"/run/model: cannot"),
        (["train.checkpoint_every=1000"], r"--out .*/run: cannot"),
        (["train.checkpoint_every=1000", "train.validate_every=6"], r"/grids/step-00000006\.png: cannot"),
    ],
    ids=["checkpoint", "log", "picture"],
)
def test_a_full_disk_costs_nothing_that_was_saved(
    rhythm: list[str],
    meets: str,
    micro: Micro,
    small_disk: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    out = small_disk / "run"
    run(micro(steps=4), out)
    if "--out" in meets:
        monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    with monkeypatch.context() as patch:
        after_step(patch, lambda trainer: fill_up(small_disk) if trainer.state.step == 5 else None)
        with pytest.raises(OutputError, match=meets) as refused:
            run(micro(*rhythm, steps=200), out)
    assert "Traceback" not in capfd.readouterr().err
    message = str(refused.value)
    assert f"(No space left on device on the disk at {small_disk})" in message and "\n" not in message
    assert state(out)[1]["step"] == 4 and load_model(out / "model").figures["steps"] == 4
    assert {path.name for path in (out / "grids").iterdir()} == {"step-00000004.png"}
    assert not [path for path in out.rglob(".*") if path.name != ".lock"], "nothing half-written is left"
    (small_disk / "filler").unlink()
    run(micro(*rhythm, steps=8), out)
    assert state(out)[1]["step"] == 8


# --------------------------------------------------------------------------------------------------------------- kills


@pytest.mark.slow
def test_twenty_kills_cost_nothing(tmp_path: Path) -> None:
    from kill_test import kill_test

    result = kill_test(20, tmp_path)
    assert result["kills"] == 20 and result["unreadable"] == 0, result["faults"]
    assert result["finished_runs"] == result["identical_to_undisturbed"] >= 1


def test_what_a_killed_process_left_is_cleared_away(micro: Micro, tmp_path: Path) -> None:
    """Killed while writing a model anew, while replacing another, while deleting a checkpoint, while drawing a grid."""
    out = tmp_path / "run"
    run(micro("train.checkpoint_every=2"), out)
    (out / "model").rename(out / ".model.0123abcd.old")
    (out / ".model.0123abcd").mkdir()
    (out / "best").rename(out / ".best.0123abcd")
    (out / "checkpoints" / ".step-00000002.89ab4567").mkdir()
    (out / "grids" / ".manyfill-0123.part").write_text("half a picture")
    tidy(out)
    assert not [path for path in out.rglob(".*") if path.name != ".lock"]
    assert load_model(out / "model").figures["steps"] == 4 and not (out / "best").exists()
    run(micro(steps=6), out)
    assert load_model(out / "best").figures["steps"] == 6, "made anew"


def test_a_folder_that_may_not_be_written_is_refused_in_one_line(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(*_: object, **__: object) -> None:
        raise PermissionError(13, os.strerror(13))

    monkeypatch.setattr(Path, "mkdir", denied)  # root may write everywhere
    with pytest.raises(ManyfillError, match=r"run: cannot be made a folder \(Permission denied\)"):
        run(micro(), tmp_path / "run")
