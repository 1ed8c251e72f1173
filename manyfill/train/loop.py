"""The training loop: `run` goes from settings to a finished RUN directory, and on from wherever RUN stands."""

import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import torch

from manyfill.checkpoint import load_model, save_model
from manyfill.data import Batch, Source, StreamConfig, TrainingSamples, batches, open_source
from manyfill.device import autocast, best_device
from manyfill.errors import ConfigError, ManyfillError, OutputError
from manyfill.masks import MaskFolder
from manyfill.models.bound import Bound, bits_per_dim
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import generator
from manyfill.train.card import write_card
from manyfill.train.held_out import split
from manyfill.train.monitor import Monitor
from manyfill.train.optim import Guard, averaged, learning_rate, optimizer
from manyfill.train.settings import Settings, differences, load_saved
from manyfill.train.state import RunState, checkpoints, load_newest
from manyfill.train.validate import save_sheet, validation_bound

MOST_SETBACKS = 3
STEPS_BETWEEN_LOGS = 20


def run(settings: Settings, out: Path) -> None:
    """Train into `out`: checkpoints, log.jsonl, tensorboard, grids, and `out/model` with the averaged weights.

    The same call again goes on where it stopped; Ctrl-C or SIGTERM saves and returns. Raises ManyfillError.
    """
    _prepare(settings, out)
    trainer = Trainer(settings, out)
    with trainer.monitor, _stop_on_signal(trainer):
        trainer.train()


class Trainer:
    def __init__(self, settings: Settings, out: Path) -> None:
        self.settings, self.out, self.device = settings, out, best_device()
        self.source, self.validation = _sources(settings)
        self.samples = _samples(settings, self.source)
        self.monitor = Monitor(out, [f"{i + 1} ({s.size}x{s.size})" for i, s in enumerate(settings.model.levels)])
        self.state = _initial_state(settings, self.device)
        for warning in load_newest(out, self.state):
            self.monitor.note(f"warning: {warning}")
        self.stopping = False
        self.figures: dict[str, float] = {}

    def train(self) -> None:
        state, settings = self.state, self.settings.train
        if state.step:
            self.monitor.note(f"going on from step {state.step}")
        if self.progress() >= 1:
            self.monitor.note(f"{self.out}: this run is finished; raise --steps or --minutes to go on")
            return
        stream = self.stream()
        saved = checked = state.elapsed
        while self.progress() < 1 and not self.stopping:
            started = time.monotonic()
            bound, norm = self.step(next(stream))
            state.elapsed += time.monotonic() - started
            self.report(bound, norm, time.monotonic() - started)
            if state.guard.in_a_row >= settings.patience:
                stream = self.go_back(stream)
            if state.elapsed - checked > 60 * settings.validate_minutes:
                checked = state.elapsed
                self.validate()
            if state.elapsed - saved > 60 * settings.checkpoint_minutes:
                saved = state.elapsed
                self.save()
        stream.close()
        if not self.stopping:
            self.validate()
        self.save()
        self.monitor.note(
            f"{'stopped' if self.stopping else 'finished'} at step {state.step}; model in {self.out / 'model'}"
        )

    def step(self, batch: Batch) -> tuple[Bound, float]:
        """One update from one batch; returns the bound and the gradient's norm."""
        state, settings = self.state, self.settings.train
        self.monitor.skip(batch.skipped)
        batch = batch.to(self.device)
        noise = generator(self.settings.seed, "latents", state.step, device=self.device)
        with autocast(self.device, settings.precision):
            bound = state.model(batch.x, batch.m, batch.guide, batch.guide_present, noise)
        loss = -(bound.pixels - self.kl_weight() * bound.kl.sum(1)).sum() / bound.dims.sum()
        state.optimizer.zero_grad()
        loss.backward()
        norm = float(torch.nn.utils.clip_grad_norm_(state.model.parameters(), settings.clip_norm))
        if state.guard.accepts(norm):
            for group in state.optimizer.param_groups:
                group["lr"] = state.rate * learning_rate(settings, state.step, self.progress())
            state.optimizer.step()
            state.ema.update_parameters(state.model)
        state.step += 1
        return bound, norm

    def progress(self) -> float:
        """The share of the run that is over, by steps or by training time."""
        settings = self.settings.train
        if settings.steps is not None:
            return min(1.0, self.state.step / settings.steps)
        assert settings.minutes is not None
        return min(1.0, self.state.elapsed / (60 * settings.minutes))

    def kl_weight(self) -> float:
        span = self.settings.train.kl_warmup
        return min(1.0, self.progress() / span) if span > 0 else 1.0

    def stream(self) -> Iterator[Batch]:
        settings = self.settings.train
        return batches(self.samples, settings.batch_size, self.state.step, settings.workers)

    def report(self, bound: Bound, norm: float, seconds: float) -> None:
        state = self.state
        if state.step % STEPS_BETWEEN_LOGS and self.progress() < 1:
            return
        rate = self.settings.train.batch_size / seconds
        self.figures = training_figures(bound) | {
            "gradient_norm": norm,
            "pictures_per_second": rate,
            "skipped_steps": state.guard.skipped,
            "elapsed": state.elapsed,
        }
        self.monitor.record("train", state.step, self.figures)
        done = self.progress()
        self.monitor.show(state.step, done, state.elapsed * (1 - done) / max(done, 1e-9), self.figures)

    def validate(self) -> None:
        model = self.averaged_model()
        figures = validation_bound(model, self.validation, self.settings, self.device)
        self.monitor.record("validation", self.state.step, figures | {"elapsed": self.state.elapsed})
        path = self.out / "grids" / f"step-{self.state.step:08d}.png"
        path.parent.mkdir(exist_ok=True)
        save_sheet(model, self.validation, self.settings, self.device, path)

    def averaged_model(self) -> ConditionalHVAE:
        model = self.state.ema.module
        assert isinstance(model, ConditionalHVAE)
        return model.eval()

    def save(self) -> None:
        self.state.save(self.out)
        figures = {"steps": self.state.step, "training_seconds": round(self.state.elapsed)}
        card = write_card(self.settings, self.state.step, self.state.elapsed, len(self.source), self.out / "log.jsonl")
        save_model(self.out / "model", self.averaged_model(), card, figures)

    def go_back(self, stream: Iterator[Batch]) -> Iterator[Batch]:
        """After too many bad steps in a row: to the last checkpoint, with half the learning rate."""
        state = self.state
        setbacks, rate, step = state.setbacks + 1, state.rate / 2, state.step
        if setbacks > MOST_SETBACKS or not checkpoints(self.out):
            raise ManyfillError(
                f"{self.out}: training keeps diverging at step {step}; "
                "start anew with a lower --set train.learning_rate=..."
            )
        load_newest(self.out, state)
        state.setbacks, state.rate, state.guard.in_a_row = setbacks, rate, 0
        self.monitor.note(f"step {step}: diverged; back to step {state.step} at {rate:g} times the learning rate")
        stream.close()
        return self.stream()


def training_figures(bound: Bound) -> dict[str, float]:
    """Bits per hole value of a batch: the bound, its pixel term, and each level's KL."""
    dims = float(bound.dims.sum())
    kl = [bits_per_dim(float(value), dims) for value in bound.kl.detach().sum(0)]
    pixels = bits_per_dim(-float(bound.pixels.detach().sum()), dims)
    levels = {f"kl_{level + 1:02d}": value for level, value in enumerate(kl)}
    return {"bits_per_dim": pixels + sum(kl), "pixel_bits": pixels, **levels}


def _prepare(settings: Settings, out: Path) -> None:
    """Make `out`, or check that the run in it has the same settings; only its length may change."""
    path = out / "settings.json"
    if path.exists():
        changed = differences(load_saved(path), settings)
        if changed:
            raise ConfigError(f"--out {out}: holds a run with other settings ({changed}); choose another --out")
    elif not settings.data.paths:
        raise ConfigError("DATA: name at least one folder or tar file of pictures")
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_text(settings.to_json())
    except OSError as error:
        raise OutputError(f"--out {out}: cannot be written ({error.strerror}); choose another place") from None


def _sources(settings: Settings) -> tuple[Source, Source]:
    source = open_source(*settings.data.paths)
    if settings.data.validation:
        return source, open_source(*settings.data.validation)
    return split(source, settings.seed)


def _samples(settings: Settings, source: Source) -> TrainingSamples:
    data = settings.data
    config = StreamConfig(
        size=settings.model.size,
        channels=settings.model.channels,
        seed=settings.seed,
        masks=data.masks,
        guide_probability=data.guide_probability if settings.model.guide else 0.0,
        augment=data.augment,
        flip=data.flip,
    )
    folder = MaskFolder(Path(data.mask_path)) if data.mask_path else None
    return TrainingSamples(source, config, folder, data.strict)


def _initial_state(settings: Settings, device: torch.device) -> RunState:
    if settings.init is not None:
        model = load_model(settings.init).model.train()
        if model.config != settings.model:
            raise ConfigError(f"--init {settings.init}: its model.* settings cannot be changed; drop them from --set")
    else:
        with torch.random.fork_rng():
            torch.default_generator.set_state(generator(settings.seed, "weights").get_state())
            model = ConditionalHVAE(settings.model)
    model = model.to(device)
    ema = averaged(model, settings.train.ema_decay)
    return RunState(model, ema, optimizer(model, settings.train), Guard(settings.train.skip_factor))


@contextmanager
def _stop_on_signal(trainer: Trainer) -> Iterator[None]:
    """Let Ctrl-C and a cluster's SIGTERM end the run after the step at hand; a second Ctrl-C ends it at once."""

    def stop(number: int, frame: FrameType | None) -> None:
        if trainer.stopping:
            raise KeyboardInterrupt
        trainer.stopping = True
        trainer.monitor.note("stopping: saving the run; again to stop without saving")

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
