"""The training loop: `run` goes from settings to a finished RUN directory, and on from wherever RUN stands."""

import signal
import threading
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import torch
from torch import Tensor

from manyfill.checkpoint import save_model
from manyfill.data import Batch, batches
from manyfill.device import autocast, best_device, has_fast_bfloat16
from manyfill.errors import ManyfillError
from manyfill.files import locked, make_folder, save_text
from manyfill.models.bound import Bound
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import generator
from manyfill.train.card import last_figures, write_card
from manyfill.train.log import validations
from manyfill.train.monitor import Monitor
from manyfill.train.optim import learning_rate
from manyfill.train.settings import Settings
from manyfill.train.setup import acquaint, check_same_run, initial_state, sources, training_samples
from manyfill.train.state import RunState, load_newest
from manyfill.train.validate import save_sheet, validation_figures

MOST_SETBACKS = 3
STEPS_BETWEEN_LOGS = 20
STEPS_OF_PACE = 50


def run(settings: Settings, out: Path) -> None:
    """Train into `out`: checkpoints, log.jsonl, tensorboard, grids, and `out/model` with the averaged weights.

    The same call again goes on where it stopped; Ctrl-C or SIGTERM saves and returns. Raises ManyfillError.
    """
    check_same_run(settings, out)
    trainer = Trainer(settings, out)
    make_folder(out)
    with locked(out):
        save_text(out / "settings.json", settings.to_json())
        with trainer.monitor, _stop_on_signal(trainer):
            trainer.train()


class Trainer:
    """A run: its pictures, its state, and the way from one step to the next. Writes to `out` only from `train` on."""

    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out, self.device = settings, out, best_device()
        self.source, self.validation = sources(settings)
        self.samples = training_samples(settings, self.source)
        levels = [f"{i + 1} ({level.size}x{level.size})" for i, level in enumerate(settings.model.levels)]
        self.monitor = Monitor(out, levels)
        self.state = self.stored_state()
        self.nested_weight = settings.train.nested_weight if settings.model.canvas else 0.0
        self.stopping = False
        self.figures: dict[str, float] = {}
        self.pace: deque[float] = deque(maxlen=STEPS_OF_PACE)  # seconds of the last steps
        self.lapped = self.saved = self.validated = 0.0

    def stored_state(self) -> RunState:
        """The newest checkpoint's state, or the initial one where there is none."""
        state = initial_state(self.settings, self.device)
        for warning in load_newest(self.out, state):
            self.monitor.note(f"warning: {warning}")
        if state.step == 0 and self.settings.init is None:
            acquaint(state, self.samples)
        return state

    def train(self) -> None:
        """From where the run stands to its end, or to the step after which it is asked to stop."""
        state = self.state
        if self.progress() >= 1:
            self.monitor.note(f"{self.out}: this run is finished; raise --steps or --minutes to go on")
            return
        if state.step:
            self.monitor.note(f"going on from step {state.step}")
        if self.settings.train.precision == "bfloat16" and not has_fast_bfloat16(self.device):
            self.monitor.note("note: bfloat16 is slow on this processor; train.precision=float32 is quicker")
        self.monitor.start(state.step)
        self.lapped, self.saved, self.validated = time.monotonic(), state.elapsed, state.elapsed
        while self.progress() < 1 and not self.stopping:
            with closing(self.stream()) as stream:
                self.follow(stream)
            if self.diverging():
                self.go_back()
        if self.stopping:
            self.monitor.note("stopping: saving the run; Ctrl-C again to stop without saving")
        else:
            self.validate()
        self.save()
        if self.monitor.skipped:
            self.monitor.note(f"{len(self.monitor.skipped)} pictures left out: {self.monitor.report}")
        end = "stopped" if self.stopping else "finished"
        self.monitor.note(f"{end} at step {self.state.step}; model in {self.out / 'model'}")

    def follow(self, stream: Iterator[Batch]) -> None:
        """Step after step, validating and saving when it is time, until the run is over, stopped or diverging."""
        settings, state = self.settings.train, self.state
        for batch in stream:
            norm = self.step(batch)
            self.pace.append(self.lap())
            self.report(norm)
            if self.progress() >= 1 or self.stopping or self.diverging():
                return
            if self.due(self.validated, settings.validate_minutes, settings.validate_steps):
                self.validate()
            sound = not state.guard.in_a_row  # weights that break every step are not worth going back to
            if sound and self.due(self.saved, settings.checkpoint_minutes, settings.checkpoint_steps):
                self.save()

    def step(self, batch: Batch) -> float:
        """One update from one batch; returns the gradient's norm. A step that the guard refuses leaves no trace."""
        state, settings = self.state, self.settings.train
        self.monitor.skip(batch.skipped)
        batch = batch.to(self.device)
        noise = generator(self.settings.seed, "latents", state.step, device=self.device)
        buffers = [buffer.clone() for buffer in state.model.buffers()]
        with autocast(self.device, settings.precision):
            bound = state.model(batch.x, batch.m, batch.guide, batch.guide_present, noise)
        loss = objective(bound, self.kl_weight(), self.nested_weight)
        state.optimizer.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm))
        if state.guard.accepts(norm, loss.item()):
            for group in state.optimizer.param_groups:
                group["lr"] = state.rate * learning_rate(settings, state.step, self.progress())
            state.optimizer.step()
            state.ema.update_parameters(state.model)
            state.tally.add(bound)
        else:
            # The forward pass has already put a bad batch into batch norm's running statistics.
            for buffer, before in zip(state.model.buffers(), buffers, strict=True):
                buffer.copy_(before)
        state.step += 1
        return norm

    def progress(self) -> float:
        """The share of the run that is over, by steps or by time."""
        settings = self.settings.train
        if settings.steps is not None:
            return min(1.0, self.state.step / settings.steps)
        assert settings.minutes is not None
        return min(1.0, self.state.elapsed / (60 * settings.minutes))

    def rate(self) -> float:
        """Pictures per second over the last steps, waiting for data included."""
        return self.settings.train.batch_size * len(self.pace) / max(sum(self.pace), 1e-9)

    def seconds_left(self) -> float:
        settings = self.settings.train
        if settings.steps is not None:
            return (settings.steps - self.state.step) * sum(self.pace) / len(self.pace)
        assert settings.minutes is not None
        return max(0.0, 60 * settings.minutes - self.state.elapsed)

    def lap(self) -> float:
        """Seconds since the last call, which count as time of the run: all that it does, waiting for data included."""
        now = time.monotonic()
        seconds, self.lapped = now - self.lapped, now
        self.state.elapsed += seconds
        return seconds

    def due(self, last: float, minutes: float, steps: int) -> bool:
        """Whether what was `last` done at that time is to be done again."""
        if self.settings.train.steps is not None:
            return self.state.step % steps == 0
        return self.state.elapsed - last >= 60 * minutes

    def kl_weight(self) -> float:
        span = self.settings.train.kl_warmup
        return min(1.0, self.progress() / span) if span > 0 else 1.0

    def stream(self) -> Generator[Batch, None, None]:
        settings = self.settings.train
        yield from batches(self.samples, settings.batch_size, self.state.step, settings.workers)

    def report(self, norm: float) -> None:
        """Log the mean over the steps since the last line of the log, and refresh the display."""
        state, progress = self.state, self.progress()
        if state.step % STEPS_BETWEEN_LOGS == 0 or progress >= 1:
            self.figures = state.tally.figures() | {
                "gradient_norm": norm,
                "pictures_per_second": self.rate(),
                "skipped_steps": state.guard.skipped,
                "elapsed": state.elapsed,
            }
            state.tally.clear()
            self.monitor.record("train", state.step, self.figures)
        self.monitor.show(state.step, progress, self.rate(), self.seconds_left(), self.figures)

    def validate(self) -> None:
        model = self.averaged_model()
        figures, skipped = validation_figures(model, self.validation, self.settings, self.device)
        self.monitor.skip(skipped)
        grids = make_folder(self.out / "grids")
        save_sheet(model, self.validation, self.settings, self.device, grids / f"step-{self.state.step:08d}.png")
        self.lap()
        self.validated = self.state.elapsed
        self.monitor.record("validation", self.state.step, figures | {"elapsed": self.state.elapsed})

    def averaged_model(self) -> ConditionalHVAE:
        model = self.state.ema.module
        assert isinstance(model, ConditionalHVAE)
        return model.eval()

    def save(self) -> None:
        """Write the model, then the checkpoint: whoever finds the checkpoint finds its model too."""
        state, passes = self.state, validations(self.out / "log.jsonl")
        card = write_card(self.settings, state.step, state.elapsed, len(self.source), passes)
        figures = {"steps": state.step, "training_seconds": round(state.elapsed), **last_figures(passes)}
        save_model(self.out / "model", self.averaged_model(), card, figures)
        state.save(self.out)
        self.lap()
        self.saved = state.elapsed

    def diverging(self) -> bool:
        return self.state.guard.in_a_row >= self.settings.train.patience

    def go_back(self) -> None:
        """After too many broken steps in a row: to the last checkpoint, or the start, with half the learning rate."""
        before = self.state
        if before.setbacks == MOST_SETBACKS:
            raise ManyfillError(
                f"{self.out}: training keeps diverging at step {before.step}; start anew in another --out with a lower "
                "--set train.learning_rate=..."
            )
        state = self.state = self.stored_state()
        state.setbacks, state.rate, state.elapsed = before.setbacks + 1, before.rate / 2, before.elapsed
        state.guard.in_a_row, state.guard.skipped = 0, before.guard.skipped
        self.monitor.start(state.step)
        self.monitor.note(
            f"step {before.step}: diverged; back to step {state.step} at {state.rate:g} times the learning rate"
        )


def objective(bound: Bound, kl_weight: float, nested_weight: float) -> Tensor:
    """What a step makes smaller: nats per hole value, with the KL and the truncated hierarchies weighed."""
    likelihood = (bound.pixels - kl_weight * bound.kl.sum(1)).sum() / bound.dims.sum().clamp(min=1)
    return nested_weight * bound.nested.sum(1).mean() - likelihood


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C and a cluster's SIGTERM end the run after the step at hand; a second one ends it at once."""
    if threading.current_thread() is not threading.main_thread():
        yield  # signals belong to the main thread
        return

    def stop(*_: object) -> None:
        # No printing here: the signal may have come in the middle of it.
        if trainer.stopping:
            raise KeyboardInterrupt
        trainer.stopping = True

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
