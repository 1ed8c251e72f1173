"""`manyfill fill --adapt`. As in cli.py, nothing heavy is imported before the command runs."""

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from manyfill.pipeline import Filler
    from manyfill.train.adapt import Adaptation


def adapt(
    filler: "Filler", photo: Path, mask: Path | None, span: str, seed: int, max_pixels: int, directory: Path
) -> "Adaptation":
    """The model, having learnt from the photo for so long; kept in a directory where that helped."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from manyfill.train.adapt import adapted, check_place

    check_place(directory)
    console = Console(stderr=True)
    columns = (TextColumn("learning from the picture"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("adapt", total=1.0)
        found = adapted(filler, photo, mask, span, seed, max_pixels, lambda share: bar.update(task, completed=share))
    if found.helped:
        found.save(directory)
    return found
