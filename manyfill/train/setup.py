"""What a run starts from: pictures, masks, a fresh state, all checked before a step is taken."""

import hashlib
import os
from pathlib import Path
from typing import Any

import torch

from manyfill.checkpoint import load_model
from manyfill.data import Source, StreamConfig, TrainingSamples, open_source
from manyfill.data.captions import captions_of, first_caption, mirrored
from manyfill.errors import ConfigError
from manyfill.masks import MaskFolder
from manyfill.models.hvae import CAPTION_PARTS, ConditionalHVAE
from manyfill.models.pretrained import PretrainedText
from manyfill.models.tokens import Vocabulary
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
    if settings.model.captions:
        first_caption(training)
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
        caption_drop=data.caption_drop if settings.model.captions else 1.0,
    )
    folder = MaskFolder(Path(data.mask_path)) if data.mask_path else None
    return TrainingSamples(source, config, folder, data.strict)


def initial_state(settings: Settings, device: torch.device) -> RunState:
    """The state at step 0: drawn from the seed, or the weights of `init`."""
    model = _fresh(settings) if settings.init is None else _taken_over(settings, settings.init)
    model = model.to(device)
    if settings.train.only_captions:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(name.startswith(CAPTION_PARTS))
    ema = averaged(model, settings.train.ema_decay)
    guard, tally = Guard(settings.train.skip_factor), Tally(len(settings.model.levels), device)
    return RunState(model, ema, optimizer(model, settings.train), guard, tally)


def _fresh(settings: Settings) -> ConditionalHVAE:
    with torch.random.fork_rng():
        torch.manual_seed(key(settings.seed, "weights"))
        return ConditionalHVAE(settings.model)


def _taken_over(settings: Settings, init: str) -> ConditionalHVAE:
    """The model of `init`, with fresh parts on top of it where the settings name some, and otherwise as it was."""
    model = load_model(init).model.train()
    if model.config != settings.model:
        if model.config.with_parts_of(settings.model) != settings.model:
            raise ConfigError(
                f"--init {init}: of its model.* settings only captions, head and priors can change, and only where it "
                f"has the plain ones; drop the others from --set"
            )
        extended = _fresh(settings)
        extended.load_state_dict(extended.state_dict() | model.state_dict())
        model = extended
    model.temperatures.fill_(1)  # they were found for the weights as they were
    return model


def read_ahead(state: RunState, samples: TrainingSamples) -> None:
    """What a frozen text encoder makes of the training captions, worked out once for all runs on these pictures."""
    if isinstance(state.model.vocabulary, PretrainedText):
        assert state.model.config.captions is not None
        cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "manyfill" / "captions"
        told = captions_of(samples.source)
        if samples.config.flip:
            told = (each for caption in told for each in (caption, mirrored(caption)))
        state.model.vocabulary.keep(told, state.model.config.captions.length, cache)


def acquaint(state: RunState, samples: TrainingSamples, settings: Settings) -> None:
    """What comes before any learning: the vocabulary of the training captions, and what the model expects of pictures,
    from the statistics of the first of its training samples. Neither where `init` brings it."""
    captions = settings.model.captions
    if captions and state.model.vocabulary is None:
        state.read_by(
            PretrainedText(captions.encoder)
            if captions.encoder
            else Vocabulary.learnt(captions_of(samples.source), captions.tokens)
        )
    if state.model.expectation is None or settings.init is not None:
        return
    affordable = FIRST_VALUES // (samples.config.channels * samples.config.size**2)
    count = min(len(samples.source), FIRST_SAMPLES, affordable)
    pictures = torch.stack([samples[position].x for position in range(count)])
    for model in (state.model, state.ema.module):
        assert isinstance(model, ConditionalHVAE) and model.expectation is not None
        model.expectation.fit(pictures.to(next(model.parameters()).device))
