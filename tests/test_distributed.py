"""Several ranks do what one process does: the same batches, the same losses, one voice, one end."""

import os
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from ranks import on_ranks, train
from torch import nn
from training import Micro, records, state, timeless, unequal

from manyfill.cli import main
from manyfill.data import Batch
from manyfill.errors import ConfigError
from manyfill.files import locked
from manyfill.train import engine
from manyfill.train.batchnorm import synchronise
from manyfill.train.distributed import Ranks, share
from manyfill.train.loop import Trainer, run
from manyfill.train.settings import Settings

pytestmark = pytest.mark.usefixtures("one_thread")

SAME_RUN = ["train.batch_size=8", "train.warmup_steps=5", "train.validate_every=25", "train.learning_rate=2e-3"]


def trace(out: Path) -> tuple[list[float], list[float]]:
    """Bits per dimension of each step, and of each validation pass."""
    log = records(out)
    losses, passes = ([r["bits_per_dim"] for r in log if r["kind"] == kind] for kind in ("train", "validation"))
    return losses, passes


# ------------------------------------------------------------------------------------------------- the same training


@pytest.mark.parametrize(
    ("norm", "worlds", "steps"),
    [
        ("batch", (1, 2), 20),
        pytest.param("none", (1, 2, 4), 50, marks=pytest.mark.slow),
        pytest.param("batch", (1, 2, 4), 50, marks=pytest.mark.slow),
    ],
)
def test_any_number_of_ranks_trains_the_same(
    norm: str, worlds: tuple[int, ...], steps: int, micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = micro(*SAME_RUN, f"model.norm={norm}", steps=steps)
    for world in worlds:
        codes = on_ranks(world, train, settings.to_json(), str(tmp_path / f"{world}"))
        assert codes == [0] * world
    (one, one_pass), *others = (trace(tmp_path / str(world)) for world in worlds)
    assert len(one) == steps and one_pass and one[0] - min(one) > 0.5, "or the test shows nothing"
    for world, (losses, passes) in zip(worlds[1:], others, strict=True):
        apart = np.abs(np.subtract(losses, one)).max(), np.abs(np.subtract(passes, one_pass)).max()
        with capsys.disabled():
            print(f"norm {norm}, {world} ranks: training {apart[0]:.1e}, validation {apart[1]:.1e} bits/dim apart")
        assert max(apart) < 1e-3


def test_micro_batches_train_the_same(micro: Micro, tmp_path: Path) -> None:
    regularised = "train.spectral_weight=0.01"  # whose gradient must count once, not once a part
    settings = [micro(*SAME_RUN, regularised, f"train.accumulate={parts}", steps=10) for parts in (1, 4, 2)]
    run(settings[0], tmp_path / "whole")
    run(settings[1], tmp_path / "parts")
    assert on_ranks(2, train, settings[2].to_json(), str(tmp_path / "ranks"), 10) == [0, 0]
    whole, *others = (state(tmp_path / name)[0] for name in ("whole", "parts", "ranks"))
    for other in others:
        for name, value in whole.items():
            torch.testing.assert_close(other[name], value, rtol=0, atol=1e-4, msg=name)


def check_batch_norm(ranks: Ranks, folder: str) -> None:
    """A rank's part of `norms`, which both compute on the same pictures; unequal parts, as a last batch has them."""
    x, weigh, model = norms()
    synchronise(model)
    part = slice(0, 2) if ranks.first else slice(2, 7)
    mine = x[part].clone().requires_grad_()
    (model(mine) * weigh[part]).sum().backward()
    for parameter in model.parameters():
        ranks.sum(parameter.grad)  # type: ignore[arg-type]
    ours = [*model.buffers(), *(p.grad for p in model.parameters())]
    torch.save([mine.grad, ours, model.eval()(mine)], f"{folder}/{ranks.rank}.pt")


def norms() -> tuple[torch.Tensor, torch.Tensor, nn.Module]:
    """Pictures far from 0, which costs digits, and what their normed values are weighed by."""
    g = torch.Generator().manual_seed(0)
    x, weigh = 50 + torch.randn(7, 3, 5, 5, generator=g), torch.randn(7, 4, 5, 5, generator=g)
    torch.manual_seed(1)
    return x, weigh, nn.Sequential(nn.BatchNorm2d(3), nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4))


def test_synchronised_batch_norm_is_batch_norm_of_all(tmp_path: Path) -> None:
    x, weigh, model = norms()
    x.requires_grad_()
    (model(x) * weigh).sum().backward()
    assert on_ranks(2, check_batch_norm, str(tmp_path)) == [0, 0]
    parts = [torch.load(tmp_path / f"{rank}.pt", weights_only=True) for rank in (0, 1)]
    close = {"rtol": 1e-4, "atol": 1e-4}  # the gradient of a bias before a norm is 0 but for rounding
    torch.testing.assert_close(torch.cat([part[0] for part in parts]), x.grad, **close)
    for _, ours, _ in parts:
        for mine, theirs in zip(ours, [*model.buffers(), *(p.grad for p in model.parameters())], strict=True):
            torch.testing.assert_close(mine, theirs, **close)
    torch.testing.assert_close(torch.cat([part[2] for part in parts]), model.eval()(x), **close)


@pytest.mark.slow
def test_ranks_go_on_bit_for_bit(micro: Micro, tmp_path: Path) -> None:
    """Three of them: with two, any order of adding up gives the same."""
    settings = micro("train.batch_size=3", "train.checkpoint_every=4", "model.norm=batch", steps=8).to_json()
    outs = [tmp_path / "whole", tmp_path / "halves"]
    for out in outs:
        assert on_ranks(3, train, settings, str(out)) == [0, 0, 0]
    shutil.rmtree(outs[1] / "checkpoints" / "step-00000008")
    assert on_ranks(3, train, settings, str(outs[1])) == [0, 0, 0]
    (whole, record), (halves, again) = map(state, outs)
    assert record["step"] == again["step"] == 8 and unequal(whole, halves) == []
    assert timeless(outs[0]) == timeless(outs[1])


# -------------------------------------------------------------------------------------------------- the same decisions


def train_disturbed(ranks: Ranks, settings: str, out: str, disturbance: str) -> None:
    """Rank 1 alone meets NaNs from step 5 on at the full rate, hears a signal at step 5, or is killed at step 5."""
    step, objective = Trainer.step, engine.objective
    now: list[Trainer] = []

    def stepped(self: Trainer, batch: Batch) -> float:
        now[:] = [self]
        norm = step(self, batch)
        if self.state.step == 5 and ranks.rank == 1 and disturbance in ("SIGTERM", "SIGKILL"):
            os.kill(os.getpid(), getattr(signal, disturbance))
        return norm

    def spoilt(*arguments: Any) -> torch.Tensor:
        broken = disturbance == "nan" and ranks.rank == 1 and now[0].state.rate == 1 and now[0].state.step >= 5
        return objective(*arguments) * (float("nan") if broken else 1)

    Trainer.step, engine.objective = stepped, spoilt  # type: ignore[method-assign]
    train(ranks, settings, out)


def test_a_divergence_at_one_rank_is_one_of_all(micro: Micro, tmp_path: Path) -> None:
    settings = micro("train.patience=3", "train.checkpoint_every=4", steps=10)
    assert on_ranks(2, train_disturbed, settings.to_json(), str(tmp_path / "run"), "nan") == [0, 0]
    record = state(tmp_path / "run")[1]
    assert (record["step"], record["rate"], record["setbacks"]) == (10, 0.5, 1) and record["guard"]["skipped"] == 3


def test_a_signal_to_one_rank_stops_all_after_the_same_step(micro: Micro, tmp_path: Path) -> None:
    settings = micro("train.checkpoint_every=1h", minutes=10)  # counted by the clock, which is rank 0's
    assert on_ranks(2, train_disturbed, settings.to_json(), str(tmp_path / "run"), "SIGTERM") == [0, 0]
    assert state(tmp_path / "run")[1]["step"] == 5


def test_the_death_of_one_rank_ends_the_others_in_one_line(micro: Micro, tmp_path: Path) -> None:
    settings, errors = micro("train.batch_size=3", "train.checkpoint_every=2", steps=10**6), tmp_path / "errors"
    codes = on_ranks(3, train_disturbed, settings.to_json(), str(tmp_path / "run"), "SIGKILL", errors=errors)
    assert codes == [2, -9, 2]
    assert "another process of this run has ended" in complaints(errors, 3) and state(tmp_path / "run")[1]["step"] == 4


@pytest.mark.slow
def test_minutes_end_for_all_at_once(micro: Micro, tmp_path: Path) -> None:
    settings = micro("train.checkpoint_every=1s", "train.validate_every=1s", minutes=0.05)
    assert on_ranks(2, train, settings.to_json(), str(tmp_path / "run")) == [0, 0]
    log = records(tmp_path / "run")
    assert log[-1]["kind"] == "validation" and state(tmp_path / "run")[1]["step"] == log[-1]["step"]


# ------------------------------------------------------------------------------------------------------------ one voice


def complaints(errors: Path, world: int) -> str:
    """The only line among the ranks that begins with "error:"."""
    lines = [line for rank in range(world) for line in Path(f"{errors}-{rank}").read_text().splitlines()]
    assert not any("Traceback" in line for line in lines)
    (line,) = [line for line in lines if line.startswith("error:")]
    return line


def refused(settings: Settings, folder: Path) -> str:
    errors = folder / "errors"
    assert on_ranks(2, train, settings.to_json(), str(folder / "run"), errors=errors) == [2, 2]
    return complaints(errors, 2)


def test_what_cannot_be_is_said_once(micro: Micro, tmp_path: Path) -> None:
    assert "nowhere" in refused(micro(data=["nowhere"]), tmp_path)
    assert "train.batch_size=3: cannot be shared out equally among 2 processes" in refused(
        micro("train.batch_size=3"), tmp_path
    )
    assert not (tmp_path / "run").exists()
    (tmp_path / "run").mkdir()
    with locked(tmp_path / "run"):
        assert "is in use by another process" in refused(micro(), tmp_path)


@pytest.mark.slow
def test_a_picture_that_one_rank_cannot_read_is_named_by_it(photos: Path, micro: Micro, tmp_path: Path) -> None:
    folder = tmp_path / "partly"
    shutil.copytree(photos, folder)
    (folder / "broken.png").write_bytes(b"no picture")
    data = {"data": [str(folder)], "validation": [str(photos)], "steps": 8}
    assert "broken.png" in refused(micro(strict=True, **data), tmp_path)
    assert on_ranks(2, train, micro(**data).to_json(), str(tmp_path / "lenient")) == [0, 0]
    assert len((tmp_path / "lenient" / "skipped.tsv").read_text().splitlines()) == 1


def test_a_batch_that_cannot_be_shared_is_refused() -> None:
    assert share(24, 2, 3) == 4
    for batch_size, accumulate, world in ((8, 1, 3), (8, 3, 1), (8, 2, 8)):
        with pytest.raises(ConfigError, match=f"train.batch_size={batch_size}: .*a multiple of {accumulate * world}"):
            share(batch_size, accumulate, world)


def test_an_impossible_rank_is_refused(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "two")
    monkeypatch.setenv("RANK", "0")
    assert main(["train", str(photos), "--out", str(tmp_path / "run")]) == 2
    assert "WORLD_SIZE=two: is no whole number" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
