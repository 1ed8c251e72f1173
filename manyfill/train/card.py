"""The model card: how to use the model, what it was trained on and how, what it reached, and what it cannot do."""

import platform
from collections.abc import Sequence
from pathlib import Path

import torch

from manyfill.models.config import ModelConfig
from manyfill.train.log import Record
from manyfill.train.settings import Settings

MOST_ROWS = 12

CARD = """---
library_name: manyfill
pipeline_tag: image-to-image
tags:
- inpainting
- variational-autoencoder
---
# manyfill model, {title}

Given a picture with a hole, draws many plausible fills, says how sure it is of each pixel, and bounds the likelihood
of what is really there. A conditional hierarchical VAE:
{make}.

## Use

    manyfill fill photo.png --mask mask.png --model DIR

White in the mask is missing; DIR is where this model lies, a directory or its name on the Hugging Face Hub. From
Python:

    from manyfill import Filler
    fills = Filler.from_pretrained("DIR")("photo.png", "mask.png", n=8, seed=0)

To go on training with pictures of your own: `manyfill train PICTURES --init DIR --out RUN`.

## Training

{training}

## Figures

{figures}

## Limits

- It has learnt from the pictures named above and from nothing else; on other kinds its fills are worse.
- It works at {size}x{size}: a larger hole is drawn small first, then refined octave by octave in tiles of that size.
- A fill is a guess at what could be there, not a finding of what was: no evidence for or against anything.
"""


def write_card(settings: Settings, step: int, elapsed: float, pictures: int, passes: Sequence[Record]) -> str:
    """Markdown for `RUN/model/README.md`, the same for the same arguments.

    `elapsed` is in seconds, `pictures` the size of the training set; `passes` are the validation records of the log.
    """
    return CARD.format(
        title=f"fine-tuned from {Path(settings.init).name}" if settings.init else f"preset {settings.preset}",
        make=_make(settings.model),
        size=settings.model.size,
        training="\n".join(f"- {line}" for line in _training(settings, step, elapsed, pictures)),
        figures="\n".join(_figures(passes, settings.model)),
    )


def last_figures(passes: Sequence[Record]) -> dict[str, float]:
    """The last validation pass as figures to ship with a model: step, bits_per_dim, pixel_bits, KL of each level."""
    if not passes:
        return {}
    figures = {
        name: value for name, value in passes[-1].items() if name.startswith(("bits_", "pixel_", "kl_", "caption_"))
    }
    return {"validation_step": passes[-1]["step"], **figures}


def _make(model: ModelConfig) -> str:
    kind = "colour" if model.channels == 3 else "grey"
    guide = ", with or without a coarse guide" if model.guide else ""
    guide += ", told or not what is missing" if model.captions else ""
    return f"{len(model.levels)} latent levels, {model.size}x{model.size} {kind} pictures, holes of any shape{guide}"


def _training(settings: Settings, step: int, elapsed: float, pictures: int) -> list[str]:
    train, data = settings.train, settings.data
    names = ", ".join(f"`{Path(path).resolve().name}`" for path in data.paths)
    holes = ", ".join(f"{kind} {weight:g}" for kind, weight in data.masks.items() if weight)
    held_out = ", ".join(f"`{Path(path).resolve().name}`" for path in data.validation) or "a part of them held back"
    device = f"one {torch.cuda.get_device_name()}" if torch.cuda.is_available() else f"{platform.machine()} processor"
    return [
        f"Pictures: {pictures} from {names}; validation on {held_out}.",
        f"Holes, by weight: {holes}. Guide given {data.guide_probability:.0%} of the time."
        if settings.model.guide
        else f"Holes, by weight: {holes}.",
        f"Recipe: AdamW, rate {train.learning_rate:g} ({train.schedule} schedule, {train.warmup_steps} warm-up steps), "
        f"batch {train.batch_size}, weight decay {train.weight_decay:g}, gradient clipped to {train.clip_norm:g}, seed "
        f"{settings.seed}.",
        f"Weights: exponential moving average ({train.ema_decay:g}).",
        f"Cost: {step} steps, {step * train.batch_size} pictures seen, {elapsed / 3600:.2f} hours on {device} "
        f"({torch.get_num_threads()} threads).",
    ]


def _figures(passes: Sequence[Record], model: ModelConfig) -> list[str]:
    """The last pass level by level and the curve up to it, in bits per hole value."""
    passes = [p for p in passes if p["bits_per_dim"] is not None]
    if not passes:
        return ["No validation pass yet."]
    last = passes[-1]
    every = -(-len(passes) // MOST_ROWS)
    levels = [
        f"| {index + 1} | {level.size}x{level.size} | {last[f'kl_{index + 1:02d}']:.4f} |"
        for index, level in enumerate(model.levels)
    ]
    curve = [
        f"| {p['step']} | {p['elapsed'] / 3600:.2f} | {p['bits_per_dim']:.4f} | {p['pixel_bits']:.4f} "
        f"| {p['bits_per_dim'] - p['pixel_bits']:.4f} |"
        for p in passes[::-1][::every][::-1]
    ]
    return [
        f"Validation at step {last['step']}, centre hole, no guide: {last['bits_per_dim']:.4f} bits per hole value.",
        "It is the bound, so the true cost is no higher: the pixel term plus the KL of every level.",
        *_gain(last),
        "",
        "| level | size | KL |",
        "|---|---|---|",
        *levels,
        "",
        "| step | hours | bound | pixel term | KL |",
        "|---|---|---|---|---|",
        *curve,
    ]


def _gain(last: Record) -> list[str]:
    gain = last.get("caption_gain")
    return [] if gain is None else [f"Told each picture's first caption it is {gain:.4f} bits per hole value lower."]
