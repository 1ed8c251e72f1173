"""The peers' benchmark in words: one page of tables, one plot."""

from pathlib import Path
from typing import Any

from contenders.contender import HOLE, WHOLE
from manyfill.files import save_text
from manyfill.plots import panels
from manyfill.plots import write as write_plot

COLOURS = {HOLE: "tab:blue", WHOLE: "tab:orange"}


def row(*cells: object) -> str:
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table(head: list[str], rows: list[list[object]]) -> list[str]:
    return [row(*head), row(*["---"] * len(head)), *(row(*cells) for cells in rows), ""]


def ours(name: str) -> bool:
    return name.startswith("manyfill")


def times(figures: dict[str, float], name: str) -> str:
    if ours(name):
        return ""
    return f"{figures['manyfill_times']:.1f} ({figures['manyfill_times_by_processor']:.1f})"


def markdown(record: dict[str, Any]) -> str:
    """Date and machine, speed, and quality where it was measured."""
    machine = record["machine"]
    lines = [
        "# Against others' code",
        "",
        f"{machine['date']}, {machine['device']}, threads: {machine['threads']}, torch {machine['torch']}. "
        f"Pictures of {record['size']}x{record['size']}; `python benchmarks/peers.py`, figures in peers.json.",
        "",
        f"**Speed**, batches of {record['batch']}, medians over {record['rounds']} turns, by the clock; in brackets by "
        "processor time, in which the load of other work has less say.",
        "",
    ]
    rates = []
    for name, figures in record["speed"].items():
        both = []
        for what in ("train", "fill"):
            wall, own = (figures[what][f"pictures_per_{kind}"] for kind in ("second", "processor_second"))
            both += [f"{wall:.2f} ({own:.2f})", times(figures[what], name)]
        rates.append([name, figures["task"], f"{figures['parameters']:,}", figures["precision"], *both])
    head = ["code", "task", "parameters", "computes in", "training pictures/s", "manyfill: times", "draws/s"]
    lines += table([*head, "manyfill: times"], rates)
    if "quality" in record:
        lines += quality(record)
    return "\n".join(lines)


def quality(record: dict[str, Any]) -> list[str]:
    lines = [
        f"**Quality** after {record['minutes']:g} minutes of training each, from scratch, in turns of seconds, on the "
        f"same pictures, by each code's own batch, in the quickest of its layouts: {record['scored']} validation "
        f"pictures; CRPS of {record['fills']} fills in grey levels. {record['quality_machine']['date']}.",
        "",
    ]
    rows = []
    for name, figures in record["quality"].items():
        lower = "" if ours(name) else f"{figures['manyfill_lower_by']:.1%}"
        score = "" if figures["crps"] is None else f"{figures['crps']:.2f}"
        seen, seconds = f"{figures['pictures_seen']:,}", f"{figures['processor_seconds']:.0f}"
        rows.append([name, figures["task"], seen, seconds, f"{figures['bits_per_dim']:.3f}", lower, score])
    head = ["code", "task", "pictures seen", "processor s", "bits/dim", "manyfill lower by", "CRPS"]
    return [*lines, *table(head, rows)]


def write(record: dict[str, Any], folder: Path) -> None:
    """peers.md, peers.png and peers.svg; OutputError."""
    from matplotlib.patches import Patch

    drawn = [("training pictures/s", {n: f["train"]["pictures_per_second"] for n, f in record["speed"].items()})]
    drawn.append(("draws/s", {n: f["fill"]["pictures_per_second"] for n, f in record["speed"].items()}))
    if "quality" in record:
        drawn.append(("bits/dim (less is better)", {n: f["bits_per_dim"] for n, f in record["quality"].items()}))
        scores = {n: f["crps"] for n, f in record["quality"].items() if f["crps"] is not None}
        drawn += [("CRPS (less is better)", scores)] if scores else []
    figure, axes = panels(len(drawn), height=2.8)
    figure.set_size_inches(3.6 * len(drawn) + 0.4, 3.0)
    for (title, values), ax in zip(drawn, axes, strict=False):
        colours = [COLOURS[record["speed"][name]["task"]] for name in values]
        bars = ax.barh(list(values), list(values.values()), color=colours)
        ax.bar_label(bars, fmt="%.3g", fontsize=7, padding=2)
        ax.margins(x=0.18)
        ax.invert_yaxis()
        ax.set_title(title, fontsize=9)
        ax.tick_params(labelsize=7)
    handles = [Patch(color=colour, label=task) for task, colour in COLOURS.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    write_plot(figure, folder, "peers")
    save_text(folder / "peers.md", markdown(record))
