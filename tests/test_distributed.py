"""Several ranks do what one process does: the same batches, the same losses, one voice, one end."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from ranks import on_ranks, start, train
from torch import nn
from training import Micro, records, state, timeless, unequal

from manyfill.checkpoint import load_model
from manyfill.errors import ConfigError, DataError, ElsewhereError
from manyfill.images import save_png
from manyfill.train.batchnorm import synchronise
from manyfill.train.distributed import Ranks, share
from manyfill.train.loop import run

pytestmark = pytest.mark.usefixtures("one_thread")

TRACE_STEPS = 50
SAME_RUN = ["train.batch_size=8", "train.warmup_steps=5", "train.validate_every=25", "train.learning_rate=2e-3"]


def trace(out: Path) -> tuple[list[float], list[float]]:
    """Bits per dimension of each step, and of each validation pass."""
    log = records(out)
    losses, passes = ([r["bits_per_dim"] for r in log if r["kind"] == kind] for kind in ("train", "validation"))
    return losses, passes


# ------------------------------------------------------------------------------------------------- the same training


@pytest.mark.parametrize(
    ("norm", "worlds"),
    [
        ("batch", (1, 2)),
        pytest.param("none", (1, 2, 4), marks=pytest.mark.slow),
        pytest.param("batch", (1, 2, 4), marks=pytest.mark.slow),
    ],
)
def test_any_number_of_ranks_trains_the_same(
    norm: str, worlds: tuple[int, ...], micro: Micro, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    settings = micro(*SAME_RUN, f"model.norm={norm}", steps=TRACE_STEPS)
    for world in worlds:
        codes = on_ranks(world, train, settings.to_json(), str(tmp_path / f"{world}"))
        assert codes == [0] * world
    (one, one_pass), *others = (trace(tmp_path / str(world)) for world in worlds)
    assert len(one) == TRACE_STEPS and len(one_pass) == 2 and one[0] - one[-1] > 0.5, "or the test shows nothing"
    for world, (losses, passes) in zip(worlds[1:], others, strict=True):
        apart = np.abs(np.subtract(losses, one)).max(), np.abs(np.subtract(passes, one_pass)).max()
        with capsys.disabled():
            print(f"norm {norm}, {world} ranks: training {apart[0]:.1e}, validation {apart[1]:.1e} bits/dim apart")
        assert max(apart) < 1e-3


def test_micro_batches_train_the_same(micro: Micro, tmp_path: Path) -> None:
    settings = [micro(*SAME_RUN, f"train.accumulate={parts}", steps=20) for parts in (1, 4, 2)]
    run(settings[0], tmp_path / "whole")
    run(settings[1], tmp_path / "parts")
    assert on_ranks(2, train, settings[2].to_json(), str(tmp_path / "ranks"), 20) == [0, 0]
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
