"""The command `fill`, and what it has in common with those that go on from a fill: options, a bar, what is written.

As in cli.py, nothing heavy is imported before a command runs.
"""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from cyclopts import Parameter

from manyfill import cli_adapt
from manyfill.flags import Count, Json

if TYPE_CHECKING:
    from manyfill.completions import Completions
    from manyfill.effort import Effort, Progress
    from manyfill.encode import Encoding
    from manyfill.pipeline import Filler
    from manyfill.train.adapt import Adaptation


@Parameter(name="*")
@dataclass(frozen=True)
class Options:
    """What every command that fills can be told.

    Parameters
    ----------
    max_pixels
        Refuse larger pictures; 40 million if left out.
    format
        png, jpeg, webp, tiff or npy instead of the picture's own format.
    quality
        Of JPEG and WebP, 1 to 100; if left out, as the picture was coded, else JPEG at 95 and WebP without loss.
    max_memory
        Keep to so much memory, such as 2G, by drawing fewer tiles at once; an error if that cannot be.
    tile_batch
        How many tiles to draw at once, 32 if left out.
    device
        Where to compute, such as cpu or cuda; the GPU if there is one.
    runtime
        torch, or onnx for a model that `manyfill export` wrote; if left out, the one that the model is for.
    as_json
        Print a record to read by machine, and write it as fill.json.
    """

    max_pixels: int | None = None
    format: str | None = None
    quality: int | None = None
    max_memory: str | None = None
    tile_batch: int | None = None
    device: str | None = None
    runtime: Literal["torch", "onnx"] | None = None
    as_json: Json = False

    def encoding(self) -> "Encoding":
        from manyfill.encode import Encoding

        return Encoding(self.format, self.quality)

    def cap(self) -> int:
        """The most pixels of a picture."""
        from manyfill.images import DEFAULT_MAX_PIXELS

        return DEFAULT_MAX_PIXELS if self.max_pixels is None else self.max_pixels

    def filler(self, model: str) -> "Filler":
        from manyfill.effort import parse_memory
        from manyfill.octaves import TILE_BATCH
        from manyfill.pipeline import Filler

        most = None if self.max_memory is None else parse_memory(self.max_memory)
        tiles = TILE_BATCH if self.tile_batch is None else self.tile_batch
        return Filler.from_pretrained(model, self.device, tiles, most, self.runtime)


LEFT_OUT = Options()


def fill(
    photo: Path,
    /,
    *,
    mask: Path | None = None,
    n: Count = 8,
    out: Path | None = None,
    model: str = "default",
    seed: int = 0,
    temperature: str = "1",
    truth: Path | None = None,
    latents: bool = False,
    adapt: str | None = None,
    caption: str | None = None,
    guidance: float = 1.0,
    options: Options = LEFT_OUT,
) -> None:
    """Fill the hole of PHOTO n times.

    Writes fill-00, fill-01, ..., mean and the quantiles q05, q50, q95 as files like PHOTO, std.png (uncertainty) and
    sheet.png (all of it to look at).

    Parameters
    ----------
    photo
        The picture to fill: PNG, JPEG, WebP, TIFF, BMP, GIF, PPM, or an array saved as NPY.
    mask
        A picture of the same size, white where PHOTO is missing. Left out, PHOTO's transparent pixels are missing, or
        those that are not a number.
    n
        How many fills.
    out
        Where to write; PHOTO's name followed by -fills if left out.
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    seed
        The same seed draws the same fills.
    temperature
        Spread of the latents: 1 draws from the model as it is, 0 takes their means. Or one for each level, coarsest
        first, such as 0.5,0.5,1: the last stands for all finer ones too.
    truth
        The whole picture, to evaluate the likelihood bound of what is really there.
    latents
        Write fill-00.safetensors, ... too, for reroll and blend.
    adapt
        First learn from what is known of PHOTO itself for so long, such as 2m or 30s, or so many steps; if that helps,
        the fills are drawn by what was learnt, and OUT/model keeps it for --model. Ctrl-C ends the learning early.
    caption
        What the whole picture shows, such as "a brown dog on the grass", for a model that was trained with captions.
    guidance
        How closely fills follow the caption: 1 as the model does, more to exaggerate, 0 hardly.
    """
    from manyfill.files import check_folder
    from manyfill.inputs import parse_temperature

    encoding, spread = options.encoding(), parse_temperature(temperature)
    filler, cap = options.filler(model), options.cap()
    folder = Path(f"{photo.stem}-fills") if out is None else out
    check_folder(folder)
    if adapt is not None and options.max_memory is not None:
        filler.check_memory(photo, mask, n, cap)
    learnt = None if adapt is None else cli_adapt.adapt(filler, photo, mask, adapt, seed, cap, folder / "model")
    filler = learnt.filler if learnt else filler
    with shown() as progress:
        completions = filler(
            photo, mask, n, seed, spread, truth, cap, progress=progress, caption=caption, guidance=guidance
        )
    finish(completions, folder, encoding, latents, options.as_json, learnt)


@contextmanager
def shown() -> Iterator["Progress"]:
    """Of a long fill: a line on what it will take, and a bar if there is a terminal; both on standard error."""
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

    from manyfill.progress import bar, following

    console = Console(stderr=True)
    columns = (TextColumn("filling"), BarColumn(), TaskProgressColumn(), TimeRemainingColumn())
    tiles = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    task = tiles.add_task("filling")
    with ExitStack() as showing:
        showing.enter_context(following(bar))  # of what is long within one batch of tiles

        def progress(effort: "Effort", done: int) -> None:
            if effort.seconds is None:
                return
            if not done:
                print(effort, file=sys.stderr)
                showing.enter_context(following(None))  # one bar is enough
                showing.enter_context(tiles)
            tiles.update(task, total=effort.tiles, completed=done)

        yield progress


def finish(
    completions: "Completions",
    out: Path,
    encoding: "Encoding",
    latents: bool,
    as_json: bool,
    learnt: "Adaptation | None" = None,
) -> None:
    """Write fills to a folder, and tell what there is to see, and what the model had `learnt` from the picture."""
    from manyfill.files import save_text

    completions = completions.noted(encoding)
    if learnt:
        completions = replace(completions, notes=(*completions.notes, str(learnt)))
    files = completions.save(out, encoding=encoding, latents=latents)
    if earlier := sorted(path.name for path in out.glob("fill-*") if path not in files):
        told = earlier[0] if len(earlier) == 1 else f"{earlier[0]} and {len(earlier) - 1} more"
        completions = replace(completions, notes=(*completions.notes, f"{out} holds fills of before too: {told}"))
    if not as_json:
        print(_summary(completions, out))
        return
    adaptation = {"adaptation": learnt.record()} if learnt else {}
    record = {**completions.record(), **adaptation, "files": [str(file) for file in [*files, out / "fill.json"]]}
    text = json.dumps(record, indent=2)
    save_text(out / "fill.json", text + "\n")
    print(text)


def _summary(completions: "Completions", out: Path) -> str:
    count = len(completions.images)
    fills = "1 fill" if count == 1 else f"{count} fills"
    lines = [f"{fills} in {completions.timings.total:.1f} s: look at {out / 'sheet.png'}"]
    if completions.bound is not None:
        lines.append(f"bound: {completions.bound.nats:.1f} nats, {completions.bound.bits_per_dim:.3f} bits/dim")
    return "\n".join(lines + [f"note: {note}" for note in completions.notes])
