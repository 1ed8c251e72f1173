"""The learning rate, and the steps that go wrong: refused, counted, and gone back from when they are many."""

import itertools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from training import Micro, after_step, break_when, records, state, tiny, unequal

from manyfill.errors import ManyfillError
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train import loop
from manyfill.train.loop import Trainer, run
from manyfill.train.optim import Guard, learning_rate, spectral_norms
from manyfill.train.settings import TrainSettings
from manyfill.train.state import checkpoints

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_rate_warms_up_and_follows_its_schedule() -> None:
    def rate(step: int, progress: float, **values: Any) -> float:
        return learning_rate(TrainSettings(steps=100, learning_rate=2.0, **values), step, progress)

    assert rate(0, 0, warmup_steps=4) == 0.5 and rate(3, 0, warmup_steps=4) == 2.0 and rate(0, 0, warmup_steps=0) == 2.0
    assert [rate(9, p, warmup_steps=0) for p in (0, 0.25, 1)] == [2.0, 1.5, 0.0]
    assert rate(9, 0.5, warmup_steps=0, schedule="cosine") == pytest.approx(1.0)
    assert rate(9, 0.9, warmup_steps=0, schedule="constant") == 2.0


def test_spectral_norms_are_the_largest_singular_values(micro: Micro) -> None:
    model = ConditionalHVAE(micro().model)
    weights = [layer.weight for layer in model.modules() if isinstance(layer, torch.nn.Conv2d | torch.nn.Linear)]
    exact = torch.stack([torch.linalg.matrix_norm(weight.flatten(1), 2) for weight in weights])
    torch.testing.assert_close(spectral_norms(model), exact, rtol=1e-4, atol=2e-4)


def test_spectral_regularisation_adds_its_gradient_and_shrinks_the_norms(micro: Micro, tmp_path: Path) -> None:
    gradients, norms = [], []
    for weight in (0.0, 2.0):
        trainer = Trainer(micro(f"train.spectral_weight={weight}", "train.warmup_steps=0", steps=99), tmp_path / "run")
        model, stream = trainer.state.model, trainer.stream()
        trainer.engine.gradient(next(stream), 0, 1.0)
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        for batch in itertools.islice(stream, 30):
            trainer.step(batch)
        norms.append(spectral_norms(model).sum().item())
    added = 2.0 * spectral_norms(fresh := Trainer(micro(), tmp_path / "run").state.model).sum()
    added.backward()
    for name, parameter in fresh.named_parameters():
        wanted = gradients[0][name] + (0 if parameter.grad is None else parameter.grad)
        torch.testing.assert_close(gradients[1][name], wanted, rtol=1e-4, atol=1e-5)
    assert norms[1] < 0.97 * norms[0]


# ------------------------------------------------------------------------------------------------ when steps go wrong


def test_the_guard_refuses_outliers_until_they_are_the_usual() -> None:
    guard = Guard(factor=20)
    assert all(guard.accepts(1.0 + i % 3, 5.0) for i in range(60))
    assert not guard.accepts(100.0, 5.0) and guard.accepts(2.0, 5.0)
    decisions = [guard.accepts(100.0, 5.0) for _ in range(100)]
    first = decisions.index(True)
    assert 10 < first < 60 and all(decisions[first:]) and guard.in_a_row == 0
    assert guard.skipped == 1 + first and guard.broken == 0


@pytest.mark.parametrize(("norm", "loss"), [(math.nan, 5.0), (math.inf, 5.0), (1.0, math.nan), (1.0, 1e10)])
def test_the_guard_never_accepts_a_broken_step(norm: float, loss: float) -> None:
    guard = Guard(factor=20)
    assert not any(guard.accepts(norm, loss) for _ in range(200))
    assert guard.in_a_row == guard.skipped == guard.broken == 200 and not guard.norms
    assert guard.accepts(1.0, 5.0) and guard.in_a_row == 0 and guard.skipped == 200


def test_a_refused_step_leaves_no_trace_but_the_count(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny(photos, "model.norm=batch", steps=9), tmp_path / "run")
    stream = trainer.stream()
    trainer.step(next(stream))
    kept = trainer.state
    tensors = {**kept.model.state_dict(), **{f"ema.{k}": v for k, v in kept.ema.state_dict().items()}}
    before = {name: value.clone() for name, value in tensors.items()}
    batch = next(stream)
    batch.x.fill_(math.nan)
    assert math.isnan(trainer.step(batch))
    assert unequal(before, tensors) == []
    assert (kept.step, kept.guard.skipped, kept.guard.in_a_row) == (2, 1, 1)
    assert math.isfinite(trainer.step(next(stream)))


def test_broken_steps_are_skipped_counted_and_logged(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 2)
    break_when(monkeypatch, lambda trainer: 2 <= trainer.state.step < 5)
    run(micro(steps=6), tmp_path / "run")
    log = [r for r in records(tmp_path / "run") if r["kind"] == "train"]
    assert [r["skipped_steps"] for r in log] == [0, 2, 3]
    assert [r["bits_per_dim"] is None for r in log] == [False, True, False], "null, where a NaN would be no JSON"
    assert log[1]["gradient_norm"] is None and math.isfinite(log[2]["gradient_norm"])


@pytest.mark.parametrize(("rhythm", "back_to"), [("train.checkpoint_every=4", 4), ("train.checkpoint_every=100", 0)])
def test_a_diverging_run_goes_back_and_goes_on_at_half_the_rate(
    rhythm: str,
    back_to: int,
    micro: Micro,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(loop, "STEPS_BETWEEN_LOGS", 1)
    break_when(monkeypatch, lambda trainer: trainer.state.rate == 1 and trainer.state.step >= 5)
    run(micro(rhythm, "train.patience=3", steps=10), tmp_path / "run")
    shown = " ".join(capsys.readouterr().err.split())
    assert f"step 8: diverged; back to step {back_to} at 0.5 times the learning rate" in shown
    record = state(tmp_path / "run")[1]
    assert (record["step"], record["rate"], record["setbacks"]) == (10, 0.5, 1)
    assert record["guard"]["skipped"] == 3 and record["guard"]["in_a_row"] == 0
    assert [r["step"] for r in records(tmp_path / "run") if r["kind"] == "train"] == list(range(1, 11))


def test_it_does_not_go_back_for_ever(micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rates: list[float] = []
    break_when(monkeypatch, lambda trainer: trainer.state.step >= 5)
    after_step(monkeypatch, lambda trainer: rates.append(trainer.state.rate))
    with pytest.raises(ManyfillError, match=r"keeps diverging at step 7; .*train\.learning_rate") as error:
        run(micro("train.patience=2", "train.checkpoint_every=2", steps=50), tmp_path / "run")
    assert "\n" not in str(error.value)
    assert [rates.count(rate) for rate in (1, 0.5, 0.25, 0.125)] == [7, 3, 3, 3] and len(rates) == 16
    assert state(tmp_path / "run")[1]["step"] == 4, "what it had is still there"


def test_a_checkpoint_is_not_taken_among_broken_steps(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_when(monkeypatch, lambda trainer: trainer.state.step >= 3)
    with pytest.raises(ManyfillError, match="keeps diverging"):
        run(micro("train.patience=4", "train.checkpoint_every=1", steps=50), tmp_path / "run")
    assert checkpoints(tmp_path / "run")[-1].name == "step-00000003"


def test_a_batch_without_a_hole_changes_nothing_for_the_worse(photos: Path, tmp_path: Path) -> None:
    trainer = Trainer(tiny(photos, steps=9), tmp_path / "run")
    batch = next(trainer.stream())
    batch.m.zero_()
    assert math.isfinite(trainer.step(batch)) and trainer.state.guard.skipped == 0
    assert all(p.isfinite().all() for p in trainer.state.model.parameters())
