"""The training loop: `run` goes from settings to a finished RUN directory, and on from wherever RUN stands."""

import math
import time
from collections import deque
from collections.abc import Generator, Iterator
from contextlib import ExitStack, closing
from pathlib import Path

from manyfill.checkpoint import save_model
from manyfill.data import Batch, Skipped, Source, batches
from manyfill.device import best_device, has_fast_bfloat16
from manyfill.errors import ManyfillError
from manyfill.files import locked, make_folder, save_text
from manyfill.models.hvae import ConditionalHVAE
from manyfill.train.card import last_figures, write_card
from manyfill.train.distributed import ALONE, Ranks, share
from manyfill.train.engine import Engine
from manyfill.train.log import validations
from manyfill.train.monitor import Monitor, Silence
from manyfill.train.rhythm import Every, seconds
from manyfill.train.settings import Settings
from manyfill.train.setup import (
    acquaint,
    check_same_data,
    check_same_run,
    data_summary,
    initial_state,
    read_ahead,
    sources,
    training_samples,
)
from manyfill.train.state import RunState, best_so_far, load_newest, tidy
from manyfill.train.stop import stop_on_signal
from manyfill.train.validate import bound_figures, save_sheet, validation_batches

MOST_SETBACKS = 3
STEPS_BETWEEN_LOGS = 20
STEPS_OF_PACE = 50


def run(settings: Settings, out: Path, ranks: Ranks = ALONE) -> None:
    """Train into `out`: checkpoints, log.jsonl, tensorboard, grids, and `out/model` with the averaged weights
    (`out/best` with those of the best validation).

    The same call again goes on where it stopped; Ctrl-C or SIGTERM saves and returns. Of several ranks the first alone
    writes. Raises ManyfillError.
    """
    with ExitStack() as held:
        with ranks.together():
            check_same_run(settings, out)
            trainer = Trainer(settings, out, ranks)
            if ranks.first:
                make_folder(out)
                held.enter_context(locked(out))
                tidy(out)
                save_text(out / "settings.json", settings.to_json())
        held.enter_context(trainer.monitor)
        held.enter_context(stop_on_signal(trainer.stop, ranks.alone))
        trainer.train()


class Trainer:
    """A run: its pictures, its state, and the way from one step to the next. Writes to `out` only from `train` on."""

    def __init__(self, settings: Settings, out: Path, ranks: Ranks = ALONE) -> None:
        self.settings, self.out, self.ranks, self.device = settings, out, ranks, best_device()
        share(settings.train.batch_size, settings.train.accumulate, ranks.world)
        self.source, self.validation = sources(settings)
        self.samples = training_samples(settings, self.source)
        levels = [f"{i + 1} ({level.size}x{level.size})" for i, level in enumerate(settings.model.levels)]
        self.monitor = (Monitor if ranks.first else Silence)(out, levels)
        self.data = data_summary(self.source)
        self.state = self.stored_state()
        self.best = best_so_far(out) if self.state.step else math.inf
        self._engine: Engine | None = None
        self.asked_to_stop = False  # at this rank, at any moment
        self.stopping = False  # at all ranks, since they agreed on it
        self.figures: dict[str, float] = {}
        self.skipped: list[Skipped] = []
        self.pace: deque[float] = deque(maxlen=STEPS_OF_PACE)  # seconds of the last steps
        self.lapped = self.saved = self.validated = 0.0

    def stop(self) -> None:
        """Ask the run to end after the step at hand."""
        self.asked_to_stop = True

    def stored_state(self) -> RunState:
        """The newest checkpoint's state, or the initial one where there is none."""
        state = initial_state(self.settings, self.device)
        for warning in load_newest(self.out, state):
            self.monitor.note(f"warning: {warning}")
        if "data" in state.origin:
            check_same_data(state.origin["data"], self.data, self.out)
        if state.step == 0:
            acquaint(state, self.samples, self.settings)
        read_ahead(state, self.samples)
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
        with self.ranks.together():
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
        while True:
            with self.ranks.together():
                batch = next(stream)
            norm = self.step(batch)
            self.pace.append(self.lap())
            self.report(norm)
            if self.progress() >= 1 or self.stopping or self.diverging():
                return
            if self.due(settings.validate_every, self.validated):
                self.validate()
            sound = not state.guard.in_a_row  # weights that break every step are not worth going back to
            if sound and self.due(settings.checkpoint_every, self.saved):
                self.save()

    @property
    def engine(self) -> Engine:
        """What works out the gradients of the state's model."""
        if self._engine is None or self._engine.model is not self.state.model:
            self._engine = Engine(self.state.model, self.settings, self.ranks, self.device)
        return self._engine

    def step(self, batch: Batch) -> float:
        """One update from one batch; returns the gradient's norm."""
        self.skipped += batch.skipped
        return self.engine.update(self.state, batch, self.progress(), self.kl_weight())

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
        """Seconds since the last call, which count as time of the run: all that it does, waiting for data included.

        Here the ranks agree on the time, and on whether to stop, so that they then do the same.
        """
        now = time.monotonic()
        passed, self.stopping = self.ranks.agree(now - self.lapped, self.asked_to_stop)
        self.lapped = now
        self.state.elapsed += passed
        return passed

    def due(self, every: Every, last: float) -> bool:
        """Whether what was `last` done at that time is to be done again."""
        pause = seconds(every)
        return self.state.step % int(every) == 0 if pause is None else self.state.elapsed - last >= pause

    def kl_weight(self) -> float:
        span = self.settings.train.kl_warmup
        return min(1.0, self.progress() / span) if span > 0 else 1.0

    def stream(self) -> Generator[Batch, None, None]:
        settings = self.settings.train
        rank, world = self.ranks.rank, self.ranks.world
        yield from batches(self.samples, settings.batch_size, self.state.step, settings.workers, rank, world)

    def report(self, norm: float) -> None:
        """Log the mean over the steps since the last line of the log, and refresh the display."""
        state, progress = self.state, self.progress()
        if state.step % STEPS_BETWEEN_LOGS == 0 or progress >= 1:
            self.figures = state.tally.figures() | {
                "gradient_norm": norm,
                "pictures_per_second": self.rate(),
                "skipped_steps": state.guard.skipped,
                "broken_steps": state.guard.broken,
                "elapsed": state.elapsed,
            }
            state.tally.clear()
            self.tell_skipped()
            with self.ranks.together():
                self.monitor.record("train", state.step, self.figures)
        self.monitor.show(state.step, progress, self.rate(), self.seconds_left(), self.figures)

    def validate(self) -> None:
        model = self.averaged_model()
        figures, fit = self.measure(model, self.validation), {}
        if self.settings.train.fit_pictures:
            fit = self.measure(model, self.source, self.settings.train.fit_pictures)
        self.tell_skipped()
        with self.ranks.together():
            if self.ranks.first:
                grid = make_folder(self.out / "grids") / f"step-{self.state.step:08d}.png"
                save_sheet(model, self.validation, self.settings, self.device, grid)
        self.lap()
        self.validated = self.state.elapsed
        with self.ranks.together():
            if fit:
                self.monitor.record("fit", self.state.step, fit | {"elapsed": self.state.elapsed})
            self.monitor.record("validation", self.state.step, figures | {"elapsed": self.state.elapsed})
            if figures["bits_per_dim"] < self.best:
                self.best = figures["bits_per_dim"]
                if self.ranks.first:
                    self.save_model("best")

    def measure(self, model: ConditionalHVAE, source: Source, limit: int | None = None) -> dict[str, float]:
        """The bound of the first pictures of a source, and what their latents carry."""
        pictures = validation_batches(source, self.settings, limit=limit)
        figures, skipped = bound_figures(model, pictures, self.settings, self.device, self.ranks)
        self.skipped += skipped if self.ranks.first else []  # every rank has met the same
        return figures

    def tell_skipped(self) -> None:
        """Name the pictures that could not be read at any rank since the last time."""
        skipped, self.skipped = self.ranks.gather(self.skipped), []
        with self.ranks.together():
            for pictures in skipped:
                self.monitor.skip([Skipped(*picture) for picture in pictures])

    def averaged_model(self) -> ConditionalHVAE:
        model = self.state.ema.module
        assert isinstance(model, ConditionalHVAE)
        return model.eval()

    def save(self) -> None:
        """Write the model, then the checkpoint: whoever finds the checkpoint finds its model too."""
        self.tell_skipped()
        with self.ranks.together():
            if self.ranks.first:
                last = self.save_model("model")
                settings = self.settings.model_dump(mode="json")
                self.state.origin = {"settings": settings, "data": self.data, "validation": last}
                self.state.save(self.out)
        self.lap()
        self.saved = self.state.elapsed

    def save_model(self, name: str) -> dict[str, float]:
        """Write the averaged weights as OUT/name; returns the last validation's figures, which go with them."""
        state, passes = self.state, validations(self.out / "log.jsonl")
        card = write_card(self.settings, state.step, state.elapsed, len(self.source), passes)
        last = last_figures(passes)
        figures = {"steps": state.step, "training_seconds": round(state.elapsed), **last}
        save_model(self.out / name, self.averaged_model(), card, figures)
        return last

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
        with self.ranks.together():
            state = self.state = self.stored_state()
        state.setbacks, state.rate, state.elapsed = before.setbacks + 1, before.rate / 2, before.elapsed
        state.guard.in_a_row, state.guard.skipped, state.guard.broken = 0, before.guard.skipped, before.guard.broken
        self.monitor.start(state.step)
        self.monitor.note(
            f"step {before.step}: diverged; back to step {state.step} at {state.rate:g} times the learning rate"
        )
