"""What a run tells: a live display, a JSONL log, TensorBoard scalars and a report of skipped pictures."""

import json
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from manyfill.data import Skipped
from manyfill.errors import OutputError

SECONDS_BETWEEN_LINES = 20.0


class Monitor:
    """Use as a context manager. Figures are per-dimension bits unless their name says otherwise."""

    def __init__(self, run: Path, levels: list[str]) -> None:
        from torch.utils.tensorboard import SummaryWriter

        self.console = Console(file=sys.stderr)
        self.run, self.levels = run, levels
        try:
            self.log = (run / "log.jsonl").open("a")
            self.board = SummaryWriter(str(run / "tensorboard"))
        except OSError as error:
            raise OutputError(f"{run}: cannot be written ({error.strerror}); choose another --out") from None
        self.live = Live(console=self.console, transient=True, auto_refresh=False)
        self.skipped: dict[str, str] = {}
        self._validation: dict[str, float] = {}
        self._last_line = -float("inf")

    def __enter__(self) -> "Monitor":
        if self.console.is_terminal:
            self.live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        self.board.close()
        self.log.close()

    def note(self, text: str) -> None:
        self.console.print(text, highlight=False)

    def skip(self, skipped: list[Skipped]) -> None:
        """Name a picture that could not be read, once, in RUN/skipped.tsv."""
        for name, reason in skipped:
            if name not in self.skipped:
                self.skipped[name] = reason
                with (self.run / "skipped.tsv").open("a") as report:
                    report.write(f"{name}\t{reason}\n")

    def record(self, kind: str, step: int, figures: dict[str, Any]) -> None:
        """Log figures of `kind` ("train" or "validation") at `step`."""
        self.log.write(json.dumps({"kind": kind, "step": step, **figures}) + "\n")
        self.log.flush()
        for name, value in figures.items():
            self.board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "validation":
            self._validation = figures
            self.note(f"step {step}: validation {figures['bits_per_dim']:.4f} bits/dim")

    def show(self, step: int, progress: float, remaining: float, figures: dict[str, Any]) -> None:
        """Refresh the display, or print a line now and then where there is no terminal."""
        if self.console.is_terminal:
            self.live.update(self._panel(step, progress, remaining, figures), refresh=True)
        elif time.monotonic() - self._last_line > SECONDS_BETWEEN_LINES:
            self._last_line = time.monotonic()
            self.note(_line(step, progress, remaining, figures))

    def _panel(self, step: int, progress: float, remaining: float, figures: dict[str, Any]) -> Group:
        table = Table(box=None, padding=(0, 1))
        table.add_column("level")
        table.add_column("KL, bits/dim", justify="right")
        table.add_column("validation", justify="right")
        for index, level in enumerate(self.levels):
            name = f"kl_{index + 1:02d}"
            held_out = f"{self._validation[name]:.4f}" if self._validation else ""
            table.add_row(level, f"{figures[name]:.4f}", held_out)
        return Group(Text(_line(step, progress, remaining, figures)), ProgressBar(1.0, progress, width=60), table)


def _line(step: int, progress: float, remaining: float, figures: dict[str, Any]) -> str:
    minutes, seconds = divmod(round(remaining), 60)
    return (
        f"step {step}  {progress:6.1%}  {figures['bits_per_dim']:.3f} bits/dim "
        f"(pixels {figures['pixel_bits']:.3f})  {figures['pictures_per_second']:.0f} pictures/s  "
        f"skipped steps {figures['skipped_steps']}  {minutes}:{seconds:02d} left"
    )
