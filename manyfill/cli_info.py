"""`manyfill info`. As in cli.py, nothing heavy is imported before the command runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyfill.models.config import ModelConfig


def info(model: str = "default", /) -> None:
    """Show what a model is made of, its size, its card and its figures.

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, or "default".
    """
    from rich.console import Console
    from rich.table import Table

    from manyfill.checkpoint import load_model

    loaded = load_model(model)
    tensors = loaded.model.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    table = Table("model", loaded.id, title=None, show_header=True)
    for name, value in _described(loaded.model.config):
        table.add_row(name, value)
    table.add_row("parameters", f"{parameters:,}")
    table.add_row("weights", f"{size / 1e6:.1f} MB")
    for name, value in _figures(loaded.figures):
        table.add_row(name, _brief(value))
    console = Console()
    console.print(table)
    console.print(loaded.card, markup=False, highlight=False)


def _described(config: "ModelConfig") -> list[tuple[str, str]]:
    from collections import Counter

    levels = Counter(level.size for level in config.levels)
    plain: dict[str, Any] = config.model_dump(exclude={"size", "channels", "stages", "levels"})
    return [
        ("picture", f"{config.size}x{config.size}, {'colour' if config.channels == 3 else 'grey'}"),
        ("latent levels", f"{len(config.levels)}: " + ", ".join(f"{k} of {size}x{size}" for size, k in levels.items())),
        ("latent values", f"{sum(level.latent * level.size**2 for level in config.levels):,}"),
        *((name.replace("_", " "), str(value)) for name, value in plain.items()),
    ]


def _figures(figures: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Those of several kinds of holes, and the like, apart."""
    for name, value in figures.items():
        if isinstance(value, dict) and all(isinstance(each, dict) for each in value.values()):
            yield from ((f"{name}, {kind}", each) for kind, each in value.items())
        else:
            yield name, value


def _brief(value: Any) -> str:
    """A figure, an interval as its mean [low, high], or several, to four digits."""
    match value:
        case float():
            return f"{value:.4g}"
        case {"mean": mean, "low": low, "high": high}:
            return f"{mean:.4g} [{low:.4g}, {high:.4g}]"
        case dict():
            return ", ".join(f"{name} {_brief(each)}" for name, each in value.items())
        case list():
            return ", ".join(map(_brief, value))
    return str(value)
