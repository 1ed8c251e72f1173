"""The commands about data sets: `shard` packs one, `data inspect` looks through one."""

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter
from cyclopts.validators import Number

from manyfill.errors import OutputError
from manyfill.flags import Json

FAULTY = 1
TOLD = 5
Positive = Annotated[int, Parameter(validator=Number(gte=1))]

data = App(name="data", help="Look at data sets.")


def shard(
    source: Path,
    out: Path,
    /,
    *,
    images: Path | None = None,
    size: Positive | None = None,
    per_shard: Positive = 1000,
    max_pixels: Positive | None = None,
    workers: Positive | None = None,
    strict: bool = False,
) -> None:
    """Pack SOURCE into WebDataset tar shards with an index, which train reads faster than loose files.

    The same command again goes on where it stopped, and ends with the same bytes. What cannot be used is left out and
    listed with the reason in OUT/skipped.tsv.

    Parameters
    ----------
    source
        A folder of pictures, also one with a metadata.jsonl (Hugging Face imagefolder), or a list of pictures with
        captions: a COCO JSON, or a CSV of two columns.
    out
        Folder of the shards.
    images
        Folder of the pictures that a JSON or CSV lists; looked for beside it if left out.
    size
        Shrink larger pictures until their shorter side has so many pixels; left out, JPEG and PNG stay as they are.
    per_shard
        How many pictures go into a shard.
    max_pixels
        Leave larger pictures out; 40 million if left out.
    workers
        Pictures to decode at a time; one for each processor if left out.
    strict
        Make a picture that cannot be used an error instead of leaving it out.
    """
    from manyfill.data import open_source
    from manyfill.data.pack import REPORT, Packer, Packing
    from manyfill.images import DEFAULT_MAX_PIXELS

    packing = Packing(size, per_shard, max_pixels or DEFAULT_MAX_PIXELS)
    _keep_apart(source, out)
    pictures = open_source(source, images=images)
    packer = Packer(pictures, out, packing, workers or os.cpu_count() or 1, strict)
    with _progress(len(pictures), "packing") as tick:
        packed = packer.run(tick)
    left_out = f"{len(packed.skipped):,} left out, see {out / REPORT}" if packed.skipped else "none left out"
    print(f"{out}: {packed.pictures:,} pictures, {packed.shards:,} shard(s); {left_out}")


@data.command
def inspect(
    source: Path,
    /,
    *,
    images: Path | None = None,
    out: Path | None = None,
    max_pixels: Positive | None = None,
    workers: Positive | None = None,
    strict: bool = False,
    as_json: Json = False,
) -> int:
    """Count and measure the pictures of SOURCE, and find duplicates and broken files.

    Writes inspect.json (all of it, to read by machine) and sheet.png (pictures from all over the set).

    Parameters
    ----------
    source
        A folder of pictures, a tar shard, or a list of pictures with captions (COCO JSON, CSV).
    images
        Folder of the pictures that a JSON or CSV lists; looked for beside it if left out.
    out
        Where to write; SOURCE's name followed by -inspected if left out.
    max_pixels
        Count larger pictures among the broken; 40 million if left out.
    workers
        Pictures to decode at a time; one for each processor if left out.
    strict
        End with exit code 1 if a picture cannot be used.
    as_json
        Print the record instead of tables.
    """
    from manyfill.data import open_source
    from manyfill.data.survey import survey
    from manyfill.files import make_folder, save_text
    from manyfill.images import DEFAULT_MAX_PIXELS, save_png

    out = Path(f"{source.resolve().stem}-inspected") if out is None else out
    _keep_apart(source, out)
    pictures = open_source(source, images=images)
    make_folder(out)
    with _progress(len(pictures), "looking") as tick:
        found = survey(pictures, workers or os.cpu_count() or 1, max_pixels or DEFAULT_MAX_PIXELS, tick)
    record = {"source": str(source), **found.record()}
    text = json.dumps(record, indent=2)
    save_text(out / "inspect.json", text + "\n")
    sheet = found.sheet()
    if sheet is not None:
        save_png(out / "sheet.png", sheet)
    if as_json:
        print(text)
    else:
        _show(record, out)
    return FAULTY if strict and found.broken else 0


def _keep_apart(source: Path, out: Path) -> None:
    if out.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{out}: lies within {source}, whose pictures it would join; choose an OUT elsewhere")


@contextmanager
def _progress(total: int, what: str) -> Iterator[Callable[[int], None]]:
    """A bar on the terminal, if there is one; yields what moves it on."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(file=sys.stderr)
    columns = (TextColumn(what), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as progress:
        task = progress.add_task(what, total=total)
        yield lambda pictures: progress.advance(task, pictures)


def _show(record: dict[str, Any], out: Path) -> None:
    from rich.console import Console

    console = Console()
    for table in _tables(record):
        console.print(table)
    for key in ("broken", "exact_duplicates", "near_duplicates"):
        for entry in record[key][:TOLD]:
            line = entry["reason"] if key == "broken" else " = ".join(entry[:TOLD])
            console.print(f"{key.replace('_', ' ').rstrip('s')}: {line}", markup=False, highlight=False, soft_wrap=True)
    console.print(f"look at {out / 'sheet.png'}; all of it is in {out / 'inspect.json'}", soft_wrap=True)


def _tables(record: dict[str, Any]) -> Iterator[Any]:
    from rich.table import Table

    counts = Table("pictures", f"{record['pictures']:,}")
    rows = {
        "usable": f"{record['usable']:,}",
        "broken": f"{len(record['broken']):,}",
        "grey": f"{record['grey']:,}",
        "with captions": f"{record['with_captions']:,} ({record['captions']:,} captions)",
        "exact duplicates, groups": f"{len(record['exact_duplicates']):,}",
        "near duplicates, groups": f"{len(record['near_duplicates']):,}",
        **{note: f"{count:,}" for note, count in record["notes"].items()},
    }
    sizes = record["sizes"]
    rows |= {name: "{}x{}".format(*sizes[name]) for name in ("smallest", "median", "largest") if name in sizes}
    common = ("{}x{}".format(*of["size"]) + f" ({of['pictures']:,})" for of in sizes["commonest"])
    rows["commonest"] = ", ".join(common)
    for name, value in rows.items():
        counts.add_row(name, value)
    yield counts
    histogram = Table("shorter side", "pictures", "")
    most = max(row["pictures"] for row in record["shorter_side"]) or 1
    for row in record["shorter_side"]:
        side = f"{row['from']}-{row['below'] - 1}" if row["below"] else f"{row['from']} or more"
        histogram.add_row(side, f"{row['pictures']:,}", "#" * -(-40 * row["pictures"] // most))
    yield histogram
