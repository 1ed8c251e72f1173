"""`manyfill info`. As in cli.py, nothing heavy is imported before the command runs."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from manyfill.models.config import ModelConfig


def info(model: str = "default", /) -> None:
    """Show what a model is made of, its size, its card and its figures.

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    """
    from rich.console import Console
    from rich.table import Table

    from manyfill.locate import locate
    from manyfill.runtime.exported import is_exported

    known = _exported(model) if is_exported(locate(model)) else _network(model)
    table = Table("model", model, title=None, show_header=True)
    for name, value in (*_described(known.config), *known.sizes):
        table.add_row(name, value)
    for name, value in _figures(known.figures):
        table.add_row(name, _brief(value))
    Console().print(table)
    print(known.card)  # its lines are broken already: rich would break them again


class Facts(NamedTuple):
    """What there is to tell of a model; `sizes` in rows of the table."""

    config: "ModelConfig"
    sizes: list[tuple[str, str]]
    figures: dict[str, Any]
    card: str


def _network(model: str) -> Facts:
    from manyfill.checkpoint import load_model

    loaded = load_model(model)
    tensors = loaded.model.state_dict().values()
    size = sum(tensor.numel() * tensor.element_size() for tensor in tensors)
    parameters = sum(parameter.numel() for parameter in loaded.model.parameters())
    sizes = [("parameters", f"{parameters:,}"), ("weights", _megabytes(size))]
    return Facts(loaded.model.config, sizes, loaded.figures, loaded.card)


def _exported(model: str) -> Facts:
    from manyfill.locate import locate
    from manyfill.runtime.exported import read_exported

    found = read_exported(locate(model))
    made_by = ", ".join(f"{name} {version}" for name, version in found.export.made_by.items())
    sizes = [("exported", f"{found.export.precision}, by {made_by}")]
    sizes += [(f"{name} graph", _megabytes(len(graph))) for name, graph in found.graphs.items()]
    return Facts(found.config, sizes, found.figures, found.card)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.1f} MB"


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
