"""What a run starts from: pictures, masks, a fresh state, all checked before a step is taken."""

import hashlib
from pathlib import Path
from typing import Any

import torch

from manyfill.checkpoint import load_model
from manyfill.data import Source, StreamConfig, TrainingSamples, open_source
from manyfill.errors import ConfigError
from manyfill.masks import MaskFolder
from manyfill.models.hvae import ConditionalHVAE
from manyfill.rng import key
from manyfill.train.held_out import split
from manyfill.train.optim import Guard, averaged, optimizer
from manyfill.train.settings import Settings, differences, load_saved
from manyfill.train.state import RunState, checkpoints
from manyfill.train.tally import Tally
from manyfill.train.validate import validation_batches

FIRST_SAMPLES = 8192
FIRST_VALUES = 2**27  # of large pictures fewer, so that they take no more than 512 MiB


def check_same_run(settings: Settings, out: Path) -> None:
    """ConfigError if `out` holds the checkpoints of a run with other settings; only its length may change."""
    if not checkpoints(out):
        return
    changed = differences(load_saved(out / "settings.json"), settings)
    if changed:
        raise ConfigError(f"--out {out}: holds a run with other settings ({changed}); {_elsewhere(out)}")


def _elsewhere(out: Path) -> str:
    return f"choose another --out, with --fork {out} to start there from what this run has learnt"


def data_summary(source: Source) -> dict[str, Any]:
    """By what a run knows its training pictures again: how many, and a digest of their names in order."""
    digest = hashlib.sha256()
    for index in range(len(source)):
        digest.update(source.name(index).encode() + b"\n")
    return {"pictures": len(source), "names": digest.hexdigest()}


def check_same_data(before: dict[str, Any], now: dict[str, Any], out: Path) -> None:
    """ConfigError if the run in `out` began with other training pictures."""
    if before["pictures"] != now["pictures"]:
        raise ConfigError(
            f"--out {out}: holds a run with {before['pictures']} training pictures, and now there are "
            f"{now['pictures']}; {_elsewhere(out)}"
        )
    if before["names"] != now["names"]:
        raise ConfigError(f"--out {out}: holds a run with training pictures of other names; {_elsewhere(out)}")


def sources(settings: Settings) -> tuple[Source, Source]:
    """Training and validation pictures; DataError if there are none or no validation picture can be read."""
    training: Source = open_source(*settings.data.paths)
    if settings.data.validation:
        validation: Source = open_source(*settings.data.validation)
    else:
        training, validation = split(training, settings.seed)
    next(validation_batches(validation, settings, "centre", 1))  # better now than minutes into the run
    return training, validation


def training_samples(settings: Settings, source: Source) -> TrainingSamples:
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


def initial_state(settings: Settings, device: torch.device) -> RunState:
    """The state at step 0: drawn from the seed, or the weights of `init`."""
    if settings.init is not None:
        model = load_model(settings.init).model.train()
        if model.config != settings.model:
            raise ConfigError(f"--init {settings.init}: its model.* settings cannot be changed; drop them from --set")
        model.temperatures.fill_(1)  # they were found for the weights as they were
    else:
        with torch.random.fork_rng():
            torch.manual_seed(key(settings.seed, "weights"))
            model = ConditionalHVAE(settings.model)
    model = model.to(device)
    ema = averaged(model, settings.train.ema_decay)
    guard, tally = Guard(settings.train.skip_factor), Tally(len(settings.model.levels), device)
    return RunState(model, ema, optimizer(model, settings.train), guard, tally)


def acquaint(state: RunState, samples: TrainingSamples) -> None:
    """Fit what the model expects of pictures before it learns: the statistics of the first of its training samples."""
    if state.model.expectation is None:
        return
    affordable = FIRST_VALUES // (samples.config.channels * samples.config.size**2)
    count = min(len(samples.source), FIRST_SAMPLES, affordable)
    pictures = torch.stack([samples[position].x for position in range(count)])
    for model in (state.model, state.ema.module):
        assert isinstance(model, ConditionalHVAE) and model.expectation is not None
        model.expectation.fit(pictures.to(next(model.parameters()).device))
