"""Learning from the picture itself: before a hole is filled, the model is fine-tuned on what is known around it.

It learns from squares that show none of the hole, shrunk as the fill shrinks its own, and is judged by its bound on
others that share no pixel with them, before and after. No general model has seen this picture's grain, stain or
brushwork; the rest of the picture has plenty of it.
"""

import time
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from manyfill.checkpoint import load_model
from manyfill.data import Source, batches
from manyfill.drawing import Shown
from manyfill.errors import ModelError, OutputError, PictureError
from manyfill.files import check_folder
from manyfill.images import DEFAULT_MAX_PIXELS
from manyfill.inputs import PictureLike, read
from manyfill.models.hvae import ConditionalHVAE
from manyfill.pipeline import Filler
from manyfill.train.card import last_figures, write_card
from manyfill.train.distributed import ALONE
from manyfill.train.engine import Engine
from manyfill.train.held_out import apart
from manyfill.train.log import Record
from manyfill.train.optim import Guard, averaged, optimizer
from manyfill.train.rhythm import parse, seconds
from manyfill.train.settings import DataSettings, Settings, TrainSettings
from manyfill.train.setup import training_samples
from manyfill.train.state import RunState
from manyfill.train.stop import stop_on_signal
from manyfill.train.tally import Tally
from manyfill.train.validate import bound_figures, validation_batches

MARK = "adapted_to"
# A quarter of the rate that a model learns all pictures at, and an average over a shorter past.
RECIPE: dict[str, Any] = {"learning_rate": 3e-4, "warmup_steps": 20, "ema_decay": 0.98, "workers": 0}
Tell = Callable[[float], None]
"""Told the share that is over after every step."""


@dataclass(frozen=True)
class Adaptation:
    """A `filler` that has learnt from a picture, or the one from before where that helped nothing.

    `passes` are the bounds of the held-out squares before and after, with the steps and seconds that they took.
    """

    filler: Filler
    settings: Settings
    passes: tuple[Record, Record]
    squares: int

    @property
    def before(self) -> float:
        """The bound of the held-out squares in bits per hole value, by the model as it came."""
        return float(self.passes[0]["bits_per_dim"])

    @property
    def after(self) -> float:
        """Likewise, by the model that has learnt from the picture."""
        return float(self.passes[1]["bits_per_dim"])

    @property
    def helped(self) -> bool:
        return self.after < self.before

    def record(self) -> dict[str, Any]:
        """What was spent and what came of it."""
        steps, spent = self.passes[1]["step"], round(self.passes[1]["elapsed"], 2)
        outcome = {"before": self.before, "after": self.after, "helped": self.helped, "held_out_squares": self.squares}
        return {"steps": steps, "training_seconds": spent, **outcome}

    def __str__(self) -> str:
        figures = f"{self.before:.3f} bits/dim before, {self.after:.3f} after {self.passes[1]['step']} steps"
        verdict = "which helped" if self.helped else "which did not help: the model as it was drew the fills"
        return f"learnt from the picture's known part, {verdict} (bound of held-out squares: {figures})"

    def save(self, directory: Path) -> None:
        """Write the adapted model, from now on by that name; OutputError."""
        assert self.helped, "a model that got worse is not kept"
        last = self.passes[1]
        card = write_card(self.settings, last["step"], last["elapsed"], 1, self.passes)
        mark = {MARK: Path(self.settings.data.paths[0]).name}
        filler = self.filler
        filler.id, filler.card = str(directory), card
        filler.figures = mark | self.record() | last_figures(self.passes)
        filler.save_pretrained(directory)


def check_place(directory: Path) -> None:
    """OutputError if `Adaptation.save` could not write a directory, or would replace what is no adapted model."""
    check_folder(directory.parent)
    if not directory.exists():
        return
    try:
        adapted_before = MARK in load_model(directory).figures
    except ModelError:
        adapted_before = False
    if not adapted_before:
        raise OutputError(f"{directory}: is in the way of the adapted model; choose another --out")


def adapted(
    filler: Filler,
    image: PictureLike,
    mask: PictureLike | None = None,
    span: int | str = "2m",
    seed: int = 0,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    tell: Tell = lambda _: None,
) -> Adaptation:
    """Fine-tune a model on the known part of a picture for so many steps, or so long ("30s", "2m").

    Pictures and masks are those of `Filler`; hole pixels are never read. The given filler stays as it is. The result is
    a function of picture, mask, seed and the number of steps. Ctrl-C ends it after the step at hand, with what was
    learnt so far; a second one is a KeyboardInterrupt. PictureError where too little is known.
    """
    span, subject = parse(str(span), "--adapt"), read(image, mask, max_pixels=max_pixels)
    picture, shown = subject.picture, filler.show(subject)
    if shown is None:
        raise PictureError(f"{picture.name}: the mask is empty, there is nothing to adapt for; drop --adapt")
    training, held_out = apart(picture.pixels, subject.hole, _sides(shown, filler), seed, picture.name)
    settings = _settings(filler, picture.name, span, seed)
    before = _judged(filler.model, held_out, settings, filler.device)
    state = _state(filler.model, settings)
    elapsed = _learn(state, training, settings, span, filler.device, tell)
    model = state.ema.module
    assert isinstance(model, ConditionalHVAE)
    after = _judged(model.eval(), held_out, settings, filler.device)
    passes = ({"step": 0, "elapsed": 0.0, **before}, {"step": state.step, "elapsed": elapsed, **after})
    found = Adaptation(filler, settings, passes, len(held_out))
    if not found.helped:
        return found
    better = Filler(model, f"{filler.id}, adapted to {picture.name}", filler.tile_batch, filler.max_memory)
    return Adaptation(better, settings, passes, len(held_out))


def _sides(shown: Shown, filler: Filler) -> list[int]:
    """Of squares, by half octaves, from the model's size to what a tile of it covers at a hole's first size."""
    size = filler.model.config.size
    coarsest = max(part.box.side / plan[0] for part, plan in zip(shown.parts, shown.sizes, strict=True))
    sides = (round(size * 2 ** (half / 2)) for half in range(64))
    return [side for side in sides if side <= size * coarsest]


def _settings(filler: Filler, name: str, span: int | str, seed: int) -> Settings:
    duration = seconds(span)
    end = {"steps": span} if duration is None else {"minutes": duration / 60}
    # Not mirrored: a text, a map or a light from one side is not the same then.
    data = DataSettings(paths=(name,), flip=False, augment=False)
    return Settings(
        model=filler.model.config, train=TrainSettings(**end, **RECIPE), data=data, seed=seed, init=filler.id
    )


def _state(model: ConditionalHVAE, settings: Settings) -> RunState:
    copy = deepcopy(model).train()
    train, device = settings.train, next(copy.parameters()).device
    tally = Tally(len(settings.model.levels), device)
    return RunState(copy, averaged(copy, train.ema_decay), optimizer(copy, train), Guard(train.skip_factor), tally)


def _judged(model: ConditionalHVAE, squares: Source, settings: Settings, device: torch.device) -> dict[str, float]:
    return bound_figures(model, validation_batches(squares, settings), settings, device)[0]


def _learn(
    state: RunState, squares: Source, settings: Settings, span: int | str, device: torch.device, tell: Tell
) -> float:
    """Step after step until the span is over or a signal comes; returns the seconds that took."""
    engine, samples = Engine(state.model, settings, ALONE, device), training_samples(settings, squares)
    stopped, began, most = False, time.monotonic(), seconds(span)

    def stop() -> None:
        nonlocal stopped
        stopped = True

    def progress() -> float:
        return min(1.0, state.step / int(span) if most is None else (time.monotonic() - began) / most)

    with stop_on_signal(stop, alone=True):
        for batch in batches(samples, settings.train.batch_size, workers=0):
            if stopped or progress() >= 1:
                break
            engine.update(state, batch, progress(), 1.0)
            tell(progress())
    return time.monotonic() - began
