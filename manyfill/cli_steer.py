"""The commands that go on from a fill: `reroll` redraws some of its levels, `blend` leads from one to another."""

import json
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from manyfill.errors import PictureError

if TYPE_CHECKING:
    from manyfill.completions import Completions
    from manyfill.effort import Effort, Progress
    from manyfill.encode import Encoding
    from manyfill.pipeline import Filler
    from manyfill.recipe import Fill

Count = Annotated[int, Parameter(name=["--count", "-n"])]
Json = Annotated[bool, Parameter(name="--json")]


def reroll(
    fill: Path,
    /,
    *,
    keep_levels: str,
    n: Count = 8,
    out: Path | None = None,
    seed: int = 0,
    temperature: str = "1",
    photo: Path | None = None,
    mask: Path | None = None,
    model: str = "default",
    max_pixels: int | None = None,
    format: str | None = None,
    quality: int | None = None,
    max_memory: str | None = None,
    tile_batch: int | None = None,
    device: str | None = None,
    as_json: Json = False,
) -> None:
    """Draw some levels of FILL anew and keep the others: its composition with other texture, or the other way round.

    Writes what `manyfill fill --latents` writes.

    Parameters
    ----------
    fill
        A fill-00.safetensors that `manyfill fill --latents` wrote.
    keep_levels
        Such as 1-4, 1,3,7-, all or none: level 1 is the coarsest, and after the model's (see `manyfill info`) comes one
        for each doubling of the size.
    n
        How many fills.
    out
        Where to write; FILL's name followed by -rerolled if left out.
    seed
        The same seed draws the same fills.
    temperature
        Spread of the latents that are drawn anew: one for all levels, or one for each, coarsest first.
    photo
        The picture that FILL belongs to, if it is no longer where it was.
    mask
        Its mask, if it is no longer where it was.
    model
        The model that drew FILL: a directory, a Hugging Face hub id, or "default".
    max_pixels
        Refuse larger pictures; 40 million if left out.
    format
        png, jpeg, webp, tiff or npy instead of the picture's own format.
    quality
        Of JPEG and WebP, 1 to 100; if left out, a JPEG is coded as the picture was.
    max_memory
        Keep to so much memory, such as 2G, by drawing fewer tiles at once; an error if that cannot be.
    tile_batch
        How many tiles to draw at once, 32 if left out.
    device
        Where to compute, such as cpu or cuda; the GPU if there is one.
    as_json
        Print a record to read by machine, and write it as fill.json.
    """
    from manyfill.encode import Encoding
    from manyfill.images import DEFAULT_MAX_PIXELS
    from manyfill.inputs import parse_temperature
    from manyfill.recipe import Fill

    encoding = Encoding(format, quality)
    cap = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    spread, kept = parse_temperature(temperature), Fill.load(fill)
    files = _files(kept, photo, mask)
    filler = filler_of(model, device, tile_batch, max_memory)
    with shown() as progress:
        completions = filler.reroll(*files, kept, keep_levels, n, seed, spread, cap, progress)
    finish(completions, Path(f"{fill.stem}-rerolled") if out is None else out, encoding, True, as_json)


def blend(
    first: Path,
    last: Path,
    /,
    *,
    steps: int = 8,
    out: Path | None = None,
    photo: Path | None = None,
    mask: Path | None = None,
    model: str = "default",
    max_pixels: int | None = None,
    format: str | None = None,
    quality: int | None = None,
    max_memory: str | None = None,
    tile_batch: int | None = None,
    device: str | None = None,
    as_json: Json = False,
) -> None:
    """Lead in even steps from one fill of a picture to another, each step as plausible as any fill.

    Writes what `manyfill fill --latents` writes.

    Parameters
    ----------
    first
        The first step, a fill-00.safetensors that `manyfill fill --latents` wrote.
    last
        The last step, of the same picture.
    steps
        How many fills, with these two.
    out
        Where to write; FIRST's name followed by -blended if left out.
    photo
        The picture that the fills belong to, if it is no longer where it was.
    mask
        Its mask, if it is no longer where it was.
    model
        The model that drew them: a directory, a Hugging Face hub id, or "default".
    max_pixels
        Refuse larger pictures; 40 million if left out.
    format
        png, jpeg, webp, tiff or npy instead of the picture's own format.
    quality
        Of JPEG and WebP, 1 to 100; if left out, a JPEG is coded as the picture was.
    max_memory
        Keep to so much memory, such as 2G, by drawing fewer tiles at once; an error if that cannot be.
    tile_batch
        How many tiles to draw at once, 32 if left out.
    device
        Where to compute, such as cpu or cuda; the GPU if there is one.
    as_json
        Print a record to read by machine, and write it as fill.json.
    """
    from manyfill.encode import Encoding
    from manyfill.images import DEFAULT_MAX_PIXELS
    from manyfill.recipe import Fill

    encoding = Encoding(format, quality)
    cap = DEFAULT_MAX_PIXELS if max_pixels is None else max_pixels
    ends = Fill.load(first), Fill.load(last)
    files = _files(ends[0], photo, mask)
    filler = filler_of(model, device, tile_batch, max_memory)
    with shown() as progress:
        completions = filler.blend(*files, *ends, steps, cap, progress)
    finish(completions, Path(f"{first.stem}-blended") if out is None else out, encoding, True, as_json)


def _files(fill: "Fill", photo: Path | None, mask: Path | None) -> tuple[Path, Path | None]:
    """Where the picture and the mask of a fill are; PictureError where neither it nor the flags know."""
    photo, mask = photo or fill.photo, mask or fill.mask
    if photo is None:
        raise PictureError(f"{fill.name}: does not tell its picture; name it with --photo, and its mask with --mask")
    for flag, file in (("--photo", photo), ("--mask", mask)):
        if file is not None and not file.exists():
            raise PictureError(f"{file}: is not there any more; name it with {flag}")
    return photo, mask


def filler_of(model: str, device: str | None, tile_batch: int | None, max_memory: str | None) -> "Filler":
    """The model of these flags."""
    from manyfill.effort import parse_memory
    from manyfill.octaves import TILE_BATCH
    from manyfill.pipeline import Filler

    most = None if max_memory is None else parse_memory(max_memory)
    return Filler.from_pretrained(model, device, TILE_BATCH if tile_batch is None else tile_batch, most)


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


def finish(completions: "Completions", out: Path, encoding: "Encoding", latents: bool, as_json: bool) -> None:
    """Write fills to a folder, and tell what there is to see."""
    from manyfill.files import save_text

    completions = completions.noted(encoding)
    files = completions.save(out, encoding=encoding, latents=latents)
    if not as_json:
        print(_summary(completions, out))
        return
    record = {**completions.record(), "files": [str(file) for file in [*files, out / "fill.json"]]}
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
