"""What a run tells: its folder, the model's card, the display, and the figures behind them."""

import io
import math
from pathlib import Path

import pytest
import torch
from rich.console import Console
from training import Micro, records

from manyfill.checkpoint import load_model
from manyfill.models.bound import Bound
from manyfill.train import loop
from manyfill.train.card import write_card
from manyfill.train.loop import run
from manyfill.train.monitor import Monitor
from manyfill.train.tally import Tally

pytestmark = pytest.mark.usefixtures("one_thread")


def test_the_run_directory_holds_what_it_promises(micro: Micro, tmp_path: Path) -> None:
    out = tmp_path / "run"
    run(micro("train.validate_every=2", steps=4), out)
    assert {path.name for path in out.iterdir()} == {
        *(".lock", "settings.json", "log.jsonl", "tensorboard", "checkpoints", "grids", "model", "best")
    }
    assert {path.name for path in (out / "grids").iterdir()} == {"step-00000002.png", "step-00000004.png"}
    assert list((out / "tensorboard").glob("events.out.tfevents.*"))
    loaded = load_model(out / "model")
    last = records(out)[-1]
    expected = {name: value for name, value in last.items() if name.startswith(("bits", "pixel", "kl"))}
    assert loaded.figures.items() >= {"steps": 4, "validation_step": 4, **expected}.items() and "kl_02" in expected
    assert last["bits_per_dim"] == pytest.approx(last["pixel_bits"] + last["kl_01"] + last["kl_02"])
    card = loaded.card
    for words in ("manyfill fill photo.png --mask mask.png --model", "`photos`", "4 steps", "## Limits"):
        assert words in card
    assert f"**{last['bits_per_dim']:.4f}**" in card or f"{last['bits_per_dim']:.4f} bits" in card
    assert f"| 4 | 0.00 | {last['bits_per_dim']:.4f} |" in card and str(tmp_path) not in card


def test_the_card_is_the_same_for_the_same_run_and_thins_its_curve(micro: Micro) -> None:
    kl = {"kl_01": 0.25, "kl_02": 0.75}
    passes = [
        {"kind": "validation", "step": i, "elapsed": 36.0 * i, "bits_per_dim": 5.0, "pixel_bits": 4.0, **kl}
        for i in range(1, 101)
    ]
    cards = {write_card(micro(), 100, 3600.0, 5, passes) for _ in range(2)}
    assert len(cards) == 1
    rows = [line for line in cards.pop().splitlines() if line.endswith("| 5.0000 | 4.0000 | 1.0000 |")]
    assert 8 <= len(rows) <= 12 and rows[-1].startswith("| 100 | 1.00 |")
    assert "No validation pass yet" in write_card(micro(), 1, 1.0, 5, [])
    assert "No validation pass yet" in write_card(micro(), 1, 1.0, 5, [{**passes[0], "bits_per_dim": None}])


def test_the_display_shows_rate_bits_levels_and_time_left(tmp_path: Path) -> None:
    screen = io.StringIO()
    console = Console(file=screen, force_terminal=True, width=100, color_system=None)
    monitor = Monitor(tmp_path, ["1 (4x4)", "2 (8x8)"], console)
    figures = {"bits_per_dim": 5.5, "pixel_bits": 4.25, "kl_01": 0.5, "kl_02": 0.75, "skipped_steps": 2}
    with monitor:
        monitor.start(0)
        monitor.record("validation", 10, {**figures, "kl_01": 0.625})
        monitor.note("[a note] in full")
        monitor.show(20, 0.25, 37.4, 3725, figures)
    shown = screen.getvalue()
    for words in (
        "step 20  25.0%",
        "5.500 bits/dim",
        "pixels 4.250",
        "2 steps skipped",
        "37 pictures/s",
        "1:02:05 left",
    ):
        assert words in shown
    for words in ("1 (4x4)", "0.5000", "0.6250", "2 (8x8)", "0.7500", "[a note] in full", "validation 5.5000 bits/dim"):
        assert words in shown


def test_without_a_terminal_there_is_a_line_now_and_then_unbroken(tmp_path: Path) -> None:
    screen = io.StringIO()
    monitor = Monitor(tmp_path, ["1 (4x4)"], Console(file=screen, width=40))
    for step in range(5):
        monitor.show(step, 0.5, 3.14, 59.6, {})
    assert screen.getvalue() == "step 0  50.0%  3.1 pictures/s  1:00 left\n"


def test_slow_bfloat16_is_remarked_on(
    micro: Micro, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(loop, "has_fast_bfloat16", lambda _: False)
    run(micro("train.precision=bfloat16", steps=1), tmp_path / "run")
    assert "bfloat16 is slow on this processor" in capsys.readouterr().err
    assert math.isfinite(records(tmp_path / "run")[-1]["bits_per_dim"])


def test_a_tally_divides_once() -> None:
    tally = Tally(2, torch.device("cpu"))
    assert math.isnan(tally.figures()["bits_per_dim"])
    for pixels, dims in ((-6.0, 2.0), (-12.0, 10.0)):
        tally.add(
            Bound(torch.tensor([pixels]), torch.tensor([[1.0, 2.0]]), torch.tensor([dims]), torch.tensor([[4.0]]))
        )
    bit = math.log(2)
    assert tally.figures() == pytest.approx(
        {"bits_per_dim": 2 / bit, "pixel_bits": 1.5 / bit, "kl_01": 2 / 12 / bit, "kl_02": 4 / 12 / bit, "nested": 4}
    )
