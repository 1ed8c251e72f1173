"""`manyfill benchmark`. As in cli.py, nothing heavy is imported before the command runs."""

import json
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import Parameter
from cyclopts.validators import Number

from manyfill.flags import Json

if TYPE_CHECKING:
    from rich.console import Console

MEANINGS = {
    "pictures_per_second": "training, pictures a second",
    "train_share_of_conv_rate": "training, share of the machine's forward+backward rate",
    "sample_share_of_conv_rate": "sampling many pictures, share of its forward rate",
    "sample_one_picture_share_of_conv_rate": "sampling one picture 16 times, share of its forward rate",
    "fill_1_ms": "1 fill of one picture, ms",
    "fill_16_ms": "16 fills of one picture, ms",
    "cost_of_16_fills_over_1": "16 fills over 1, the model alone",
    "filler_cost_of_16_fills_over_1": "16 fills over 1, reading and pasting included",
}


def benchmark(
    *, model: str = "default", rounds: Annotated[int, Parameter(validator=Number(gte=1))] = 15, as_json: Json = False
) -> None:
    """Measure training and filling on this machine, next to its own rate for 3x3 convolutions.

    Takes one to a few minutes. Nothing else should be running; OMP_NUM_THREADS sets the threads.

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, a shipped model's name, or another preset's name (untrained).
    rounds
        How often each task is timed; figures are medians.
    as_json
        Print a record to read by machine.
    """
    from rich.console import Console
    from rich.progress import track

    from manyfill.benchmark import benchmark as run

    errors = Console(stderr=True)
    record = run(model, rounds, lambda turns: track(turns, "measuring", console=errors, transient=True))
    if as_json:
        print(json.dumps(record, indent=2, allow_nan=False))
    else:
        show(Console(), record)


def show(console: "Console", record: dict[str, Any]) -> None:
    """Times of every task, then the figures that they come to."""
    from rich.table import Table

    times = Table("task", "ms", "GFLOP", "TFLOP/s", title=f"{record['machine']['device']}, model {record['model']}")
    for name, row in record["tasks"].items():
        times.add_row(name, f"{row['ms']:.2f}", f"{row['gflop']:.2f}", f"{row['tflops']:.3f}")
    rates = record["conv_rate_tflops"]
    times.caption = (
        f"the machine's rate is the best {record['compute']} convolution: {rates['forward']:.3f} TFLOP/s forward, "
        f"{rates['forward+backward']:.3f} forward+backward"
    )
    figures = Table("figure", "value")
    for name, meaning in MEANINGS.items():
        figures.add_row(meaning, f"{record[name]:.3g}")
    for task, peak in record["peak_memory_mib"].items():
        figures.add_row(f"peak memory of a process that can {task}, MiB", "unknown" if peak is None else f"{peak:,.0f}")
    console.print(times, figures)
