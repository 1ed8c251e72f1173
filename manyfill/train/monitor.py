"""What a run tells: a live display, a JSONL log, TensorBoard scalars and a report of skipped pictures."""

import json
import math
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, TextIO

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from manyfill.data import Skipped
from manyfill.errors import OutputError
from manyfill.files import refusal
from manyfill.train.log import cut

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

SECONDS_BETWEEN_FRAMES, SECONDS_BETWEEN_LINES = 1.0, 20.0


class Monitor:
    """Use as a context manager, and `start` it before recording; `levels` names the model's levels, coarse to fine."""

    def __init__(self, run: Path, levels: Sequence[str], console: Console | None = None) -> None:
        self.run, self.levels, self.report = run, levels, run / "skipped.tsv"
        self.console = console or Console(file=sys.stderr)
        self.live = Live(console=self.console, transient=True, auto_refresh=False)
        self.skipped: set[str] = set()
        self._log: TextIO | None = None
        self._board: SummaryWriter | None = None
        self._validation: dict[str, float] = {}
        self._shown = -math.inf
        self._hook = threading.excepthook

    def __enter__(self) -> "Monitor":
        # TensorBoard writes in a thread. A full disk ends it, which the next record reports; its traceback is too much.
        self._hook, threading.excepthook = threading.excepthook, self._in_a_thread
        return self

    def _in_a_thread(self, failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            self._hook(failure)

    def start(self, step: int) -> None:
        """Log from `step` on; what an abandoned course of the run logged after it is forgotten."""
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and only training wants it

        self._close()
        with self._writing():
            cut(self.run / "log.jsonl", step)
            self._log = (self.run / "log.jsonl").open("a")
            self._board = SummaryWriter(str(self.run / "tensorboard"), purge_step=step + 1)
            self.skipped = self._reported()
        if self.console.is_terminal:
            self.live.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.live.stop()
        self._close()
        threading.excepthook = self._hook

    def note(self, text: str) -> None:
        self.console.print(text, markup=False, highlight=False, soft_wrap=True)

    def skip(self, skipped: Sequence[Skipped]) -> None:
        """Name a picture that could not be read, once, in RUN/skipped.tsv."""
        for name, reason in skipped:
            if name in self.skipped:
                continue
            if not self.skipped:
                self.note(f"leaving out pictures that cannot be read, such as {name}; all are in {self.report}")
            self.skipped.add(name)
            with self._writing(), self.report.open("a") as report:
                report.write(f"{name}\t{' '.join(reason.split())}\n")

    def _reported(self) -> set[str]:
        if not self.report.exists():
            return set()
        return {line.partition("\t")[0] for line in self.report.read_text().splitlines()}

    def record(self, kind: str, step: int, figures: dict[str, float]) -> None:
        """Log figures of a `kind` (see log.py) at `step`; one that is not finite becomes null."""
        assert self._log is not None and self._board is not None, "start the monitor first"
        finite: dict[str, Any] = {name: value if math.isfinite(value) else None for name, value in figures.items()}
        with self._writing():
            self._log.write(json.dumps({"kind": kind, "step": step, **finite}) + "\n")
            self._log.flush()
            for name, value in finite.items():
                if value is not None:
                    self._board.add_scalar(f"{kind}/{name}", value, step)
        if kind == "validation":
            self._validation = figures
            self.note(f"step {step}: validation {figures['bits_per_dim']:.4f} bits/dim")

    def show(self, step: int, progress: float, rate: float, seconds_left: float, figures: dict[str, float]) -> None:
        """Refresh the display, or print a line now and then where there is no terminal; `rate` in pictures/s."""
        pause = SECONDS_BETWEEN_FRAMES if self.console.is_terminal else SECONDS_BETWEEN_LINES
        if time.monotonic() - self._shown < pause:
            return
        self._shown = time.monotonic()
        line = _line(step, progress, rate, seconds_left, figures)
        if not self.console.is_terminal:
            self.note(line)
        else:
            bar = ProgressBar(1.0, progress, width=60)
            self.live.update(Group(Text(line), bar, self._table(figures)), refresh=True)

    def _table(self, figures: dict[str, float]) -> Table:
        table = Table("level", box=None, padding=(0, 1))
        table.add_column("KL, bits/dim", justify="right")
        table.add_column("validation", justify="right")
        for index, level in enumerate(self.levels):
            name = f"kl_{index + 1:02d}"
            table.add_row(level, *(f"{of[name]:.4f}" if name in of else "" for of in (figures, self._validation)))
        return table

    @contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise OutputError(
                f"--out {self.run}: cannot be written ({refusal(error, self.report)}); "
                "free space or choose another place"
            ) from None

    def _close(self) -> None:
        # On a full disk closing fails as well; by then that has been reported.
        for open_file in (self._log, self._board):
            if open_file is not None:
                with suppress(OSError):
                    open_file.close()
        self._log = self._board = None


class Silence(Monitor):
    """The monitor of a rank that tells nothing, since the first one tells all."""

    def start(self, step: int) -> None: ...

    def note(self, text: str) -> None: ...

    def skip(self, skipped: Sequence[Skipped]) -> None: ...

    def record(self, kind: str, step: int, figures: dict[str, float]) -> None: ...

    def show(self, step: int, progress: float, rate: float, seconds_left: float, figures: dict[str, float]) -> None: ...


def _line(step: int, progress: float, rate: float, seconds_left: float, figures: dict[str, float]) -> str:
    parts = [f"step {step}", f"{progress:.1%}"]
    if figures:
        parts.append(f"{figures['bits_per_dim']:.3f} bits/dim (pixels {figures['pixel_bits']:.3f})")
        parts.append(f"{figures['skipped_steps']:.0f} steps skipped")
    return "  ".join([*parts, f"{rate:.{0 if rate >= 10 else 1}f} pictures/s", f"{_clock(seconds_left)} left"])


def _clock(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"
