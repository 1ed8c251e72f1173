"""The commands that go on from a fill: `reroll` redraws some of its levels, `blend` leads from one to another."""

from pathlib import Path
from typing import TYPE_CHECKING

from manyfill.cli_fill import LEFT_OUT, Options, finish, shown
from manyfill.errors import PictureError
from manyfill.flags import Count

if TYPE_CHECKING:
    from manyfill.recipe import Fill


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
    options: Options = LEFT_OUT,
) -> None:
    """Draw some levels of FILL anew and keep the others: its composition with other texture, or the other way round.

    Writes what `manyfill fill --latents` writes.

    Parameters
    ----------
    fill
        A fill-00.safetensors that `manyfill fill --latents` wrote.
    keep_levels
        Which to keep, such as 1-4, 1,3,7-, all or none: level 1 is the coarsest, and after the model's (see
        `manyfill info`) comes one for each doubling of the size.
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
        The model that drew FILL: a directory, a Hugging Face hub id, or a shipped name.
    """
    from manyfill.files import check_folder
    from manyfill.inputs import parse_temperature
    from manyfill.recipe import Fill

    encoding, folder = options.encoding(), Path(f"{fill.stem}-rerolled") if out is None else out
    check_folder(folder)
    spread, kept = parse_temperature(temperature), Fill.load(fill)
    files = _files(kept, photo, mask)
    filler = options.filler(model)
    with shown() as progress:
        completions = filler.reroll(*files, kept, keep_levels, n, seed, spread, options.cap(), progress)
    finish(completions, folder, encoding, True, options.as_json)


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
    options: Options = LEFT_OUT,
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
        How many fills, these two included.
    out
        Where to write; FIRST's name followed by -blended if left out.
    photo
        The picture that the fills belong to, if it is no longer where it was.
    mask
        Its mask, if it is no longer where it was.
    model
        The model that drew them: a directory, a Hugging Face hub id, or a shipped name.
    """
    from manyfill.files import check_folder
    from manyfill.recipe import Fill

    encoding, folder = options.encoding(), Path(f"{first.stem}-blended") if out is None else out
    check_folder(folder)
    ends = Fill.load(first), Fill.load(last)
    files = _files(ends[0], photo, mask)
    filler = options.filler(model)
    with shown() as progress:
        completions = filler.blend(*files, *ends, steps, options.cap(), progress)
    finish(completions, folder, encoding, True, options.as_json)


def _files(fill: "Fill", photo: Path | None, mask: Path | None) -> tuple[Path, Path | None]:
    """Where the picture and the mask of a fill are; PictureError where neither it nor the flags know."""
    photo, mask = photo or fill.photo, mask or fill.mask
    if photo is None:
        raise PictureError(f"{fill.name}: does not tell its picture; name it with --photo, and its mask with --mask")
    for flag, file in (("--photo", photo), ("--mask", mask)):
        if file is not None and not file.exists():
            raise PictureError(f"{file}: is not there any more; name it with {flag}")
    return photo, mask
