"""A run goes on bit for bit where it stopped, and survives damage and a disk that refuses."""

import errno
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from training import Micro, after_step, records, state, stop_at, timeless, tiny, unequal

from manyfill.checkpoint import load_model
from manyfill.errors import DataError, ModelError, OutputError
from manyfill.train import loop
from manyfill.train.loop import Trainer, run
from manyfill.train.state import checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


def corrupt(directory: Path) -> None:
    file = directory / "state.safetensors"
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(bytes(content))


# --------------------------------------------------------------------------------------------------------- it goes on


@pytest.mark.parametrize("setting", ["norm=none", "norm=batch", "dropout=0.2"])
def test_resumed_is_uninterrupted_bit_for_bit(
    setting: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 4)  # so that the stop falls in the middle of one
    rhythm = ["train.validate_every=5", "train.checkpoint_every=4", "train.warmup_steps=3", "train.kl_warmup=0.5"]
    settings = tiny(photos, *rhythm, f"model.{setting}", steps=12)
    run(settings, tmp_path / "whole")
    with monkeypatch.context() as patch:
        stop_at(patch, 6)
        run(settings, tmp_path / "halves")
    assert state(tmp_path / "halves")[1]["step"] == 6
    run(settings, tmp_path / "halves")

    (whole, whole_record), (halves, halves_record) = state(tmp_path / "whole"), state(tmp_path / "halves")
    assert {name.split(".")[0] for name in whole} == {"model", "ema", "optimizer", "tally"}
    assert unequal(whole, halves) == []
    assert whole_record == halves_record and whole_record["step"] == 12
    assert timeless(tmp_path / "whole") == timeless(tmp_path / "halves")
    assert [(r["kind"], r["step"]) for r in records(tmp_path / "whole")] == [
        *[("train", 4), ("validation", 5), ("train", 8), ("validation", 10), ("train", 12), ("validation", 12)]
    ]
    for file in ("model/model.safetensors", "grids/step-00000012.png"):
        assert (tmp_path / "whole" / file).read_bytes() == (tmp_path / "halves" / file).read_bytes()


def test_moments_lie_in_memory_as_their_parameters_do(photos: Path, tmp_path: Path) -> None:
    """The fused optimiser walks memory: after a reload in another layout it would mix the moments up."""
    settings = tiny(photos, steps=1)
    run(settings, tmp_path / "run")
    again = Trainer(settings, tmp_path / "run").state
    layouts = [(p.stride(), m["exp_avg"].stride(), m["exp_avg_sq"].stride()) for p, m in again.optimizer.state.items()]
    assert layouts and all(len(set(strides)) == 1 for strides in layouts)


def test_a_finished_run_stays_as_it_is_until_it_may_be_longer(
    micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run(micro(steps=4), tmp_path / "run")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("*") if path.name != "settings.json"}
    run(micro(steps=4), tmp_path / "run")
    assert "this run is finished; raise --steps or --minutes" in capsys.readouterr().err
    assert before.keys() == set((tmp_path / "run").rglob("*")) - {tmp_path / "run" / "settings.json"}
    run(micro(steps=6), tmp_path / "run")
    assert state(tmp_path / "run")[1]["step"] == 6
    assert [r["step"] for r in records(tmp_path / "run") if r["kind"] == "validation"] == [4, 6]


def test_a_run_that_another_process_works_on_is_refused(micro: Micro, tmp_path: Path) -> None:
    """A record lock belongs to a process, so the other one has to be real."""
    (tmp_path / "run").mkdir()
    hold = (
        "import sys, pathlib; from manyfill.files import locked\nwith locked(pathlib.Path(sys.argv[1])): input(print())"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(OutputError, match="is in use by another process"):
            run(micro(steps=1), tmp_path / "run")
        assert [path.name for path in (tmp_path / "run").iterdir()] == [".lock"]
        other.kill()
    run(micro(steps=1), tmp_path / "run")  # the kill let go of it


def test_a_run_that_never_began_leaves_the_folder_free(micro: Micro, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="nowhere"):
        run(micro(data=["nowhere"]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "settings.json").write_text(micro(seed=9).to_json())  # of one that died before it saved
    run(micro(), tmp_path / "run")
    assert state(tmp_path / "run")[1]["step"] == 4


def test_a_damaged_checkpoint_gives_way_to_the_one_before(
    micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, rhythm = tmp_path / "run", "train.checkpoint_every=3"
    run(micro(rhythm, steps=8), tmp_path / "whole")
    run(micro(rhythm, steps=8), out)
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000008"]
    corrupt(checkpoints(out)[-1])
    with (out / "log.jsonl").open("a") as log:
        log.write('{"kind": "train", "st')  # cut short by a crash
    run(micro(rhythm, steps=8), out)
    warning = capsys.readouterr().err
    assert "warning: " in warning and "step-00000008" in warning and "going on from step 6" in warning
    assert [path.name for path in checkpoints(out)] == ["step-00000006", "step-00000008"]
    assert timeless(out) == timeless(tmp_path / "whole"), "the log has neither doubles nor rags"
    assert unequal(state(out)[0], state(tmp_path / "whole")[0]) == []


def test_checkpoints_of_an_abandoned_course_are_dropped(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(micro("train.checkpoint_every=2", steps=6), out)
    corrupt(checkpoints(out)[-1])
    trainer = Trainer(micro(steps=6), out)
    assert trainer.state.step == 4
    trainer.state.step = 5
    trainer.state.save(out)
    assert [path.name for path in checkpoints(out)] == ["step-00000004", "step-00000005"]


def test_without_a_sound_checkpoint_it_refuses(micro: Micro, tmp_path: Path) -> None:
    run(micro("train.checkpoint_every=2"), tmp_path / "run")
    for directory in checkpoints(tmp_path / "run"):
        corrupt(directory)
    with pytest.raises(ModelError, match=r"no checkpoint can be read.*--init"):
        run(micro(steps=9), tmp_path / "run")


# ------------------------------------------------------------------------------------------- what the disk may refuse


def test_a_full_disk_ends_in_one_line_and_the_last_checkpoint_stays(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "run"
    settings = micro("train.checkpoint_every=3", steps=9)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        after_step(patch, lambda trainer: trainer.state.step == 4 and patch.setattr(os, "fsync", full))
        with pytest.raises(OutputError, match="No space left on device") as error:
            run(settings, out)
    assert "\n" not in str(error.value)
    assert state(out)[1]["step"] == 3 and load_model(out / "model").figures["steps"] == 3
    assert not [path for path in out.rglob(".*") if path.is_dir()], "nothing half-written is left"
    run(settings, out)
    assert state(out)[1]["step"] == 9


def test_a_log_that_cannot_be_written_ends_in_one_line(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    broken = SimpleNamespace(write=full, flush=lambda: None, close=lambda: None)
    after_step(monkeypatch, lambda trainer: setattr(trainer.monitor, "_log", broken))
    with pytest.raises(OutputError, match=r"--out .*run: cannot be written \(No space left on device on the disk at /"):
        run(micro(), tmp_path / "run")


def test_an_out_that_is_no_folder_is_refused(micro: Micro, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for out in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(OutputError, match="file"):
            run(micro(), out)
    assert (tmp_path / "file").read_text() == "mine"
