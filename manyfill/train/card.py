"""The model card: what it was trained on, how, for how long, and what it reached."""

import json
import platform
from pathlib import Path

import torch

from manyfill.train.settings import Settings


def write_card(settings: Settings, step: int, elapsed: float, pictures: int, log: Path) -> str:
    """Markdown for `RUN/model/README.md`; figures are those of the log's validation passes."""
    names = ", ".join(f"`{Path(path).name}`" for path in settings.data.paths)
    hole = ", ".join(f"{kind} {weight:g}" for kind, weight in settings.data.masks.items() if weight)
    train = settings.train
    lines = [
        "---",
        "library_name: manyfill",
        "pipeline_tag: image-to-image",
        "---",
        f"# manyfill model, preset {settings.preset}",
        "",
        f"- Pictures: {pictures} from {names}; guide given {settings.data.guide_probability:.0%} of the time.",
        f"- Holes: {hole}.",
        f"- Recipe: AdamW {train.learning_rate:g} ({train.schedule}, {train.warmup_steps} warm-up steps), batch "
        f"{train.batch_size}, weight decay {train.weight_decay:g}, EMA {train.ema_decay:g}, seed {settings.seed}"
        + (f", starting from `{settings.init}`." if settings.init else "."),
        f"- Cost: {step} steps ({step * train.batch_size} pictures seen), {elapsed / 3600:.2f} hours on "
        f"{torch.get_num_threads()} threads of {platform.machine()}"
        + (f" and {torch.cuda.get_device_name()}." if torch.cuda.is_available() else "."),
        "- Weights: exponential moving average.",
        "",
        "## Validation, centre hole, bits per hole value",
        "",
        "| step | hours | bound | pixel term | KL |",
        "|---|---|---|---|---|",
    ]
    return "\n".join(lines + _rows(log)) + "\n"


def _rows(log: Path) -> list[str]:
    if not log.exists():
        return []
    passes = [record for record in map(json.loads, log.read_text().splitlines()) if record["kind"] == "validation"]
    every = max(1, len(passes) // 12)
    return [
        f"| {p['step']} | {p['elapsed'] / 3600:.2f} | {p['bits_per_dim']:.4f} | {p['pixel_bits']:.4f} "
        f"| {p['bits_per_dim'] - p['pixel_bits']:.4f} |"
        for p in passes[::-1][::every][::-1]
    ]
