"""The one look of every plot: small panels, written as SVG or PNG. matplotlib is imported late."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from manyfill.files import save_bytes, save_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


def svg(figure: "Figure") -> str:
    """The figure as an <svg> element, the same for the same figure."""
    import matplotlib

    with io.StringIO() as file, matplotlib.rc_context({"svg.hashsalt": "manyfill", "svg.fonttype": "none"}):
        figure.savefig(file, format="svg", metadata={"Date": None})
        text = file.getvalue()
    return text[text.index("<svg") :]


def write(figure: "Figure", folder: Path, name: str) -> str:
    """Write NAME.png and NAME.svg to the folder, and return the <svg> element; raises OutputError."""
    vectors = svg(figure)
    with io.BytesIO() as file:
        figure.savefig(file, format="png", dpi=120)
        save_bytes(folder / f"{name}.png", file.getvalue())
    save_text(folder / f"{name}.svg", vectors + "\n")
    return vectors


def panels(count: int, height: float = 2.4) -> tuple["Figure", Iterator["Axes"]]:
    """Small panels, four a row."""
    from matplotlib.figure import Figure

    columns = min(count, 4)
    rows = -(-count // columns)
    figure = Figure(figsize=(2.4 * columns + 0.4, height * rows + 0.3), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    places = list(axes)
    for unused in places[count:]:
        unused.set_axis_off()
    return figure, iter(places)
