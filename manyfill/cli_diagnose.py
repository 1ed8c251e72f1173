"""The commands that look inside: `levels` into a model, `diagnose` into a training run."""

from pathlib import Path

from manyfill.flags import Count


def levels(
    model: str,
    photo: Path,
    /,
    *,
    mask: Path | None = None,
    out: Path = Path("levels"),
    n: Count = 6,
    seed: int = 0,
    caption: str | None = None,
) -> None:
    """Show what each latent level of MODEL does to a fill of PHOTO.

    Writes alone.png (a row for each level, which alone is drawn while all others stay at their mean), rest.png (a row
    for each k, levels 1 to k fixed and the rest drawn anew) and levels.json (how far each level moves the fill).

    Parameters
    ----------
    model
        A model directory, a Hugging Face hub id, "default", or another shipped model's name.
    photo
        The picture to fill.
    mask
        A picture of the same size, white where PHOTO is missing. Left out, PHOTO's transparent pixels are missing.
    out
        Folder for the grids.
    n
        How many draws a row.
    seed
        The same seed draws the same fills.
    caption
        What the picture shows, for a model that reads captions.
    """
    from manyfill.diagnose.levels import write_levels

    print(write_levels(model, photo, mask, out, n, seed, caption))


def diagnose(run: Path, /, *, live: bool = False) -> None:
    """Draw the curves of a training run: bound, KL of each level, gradient norms, active latents, the prior's misfit.

    Writes a page and its plots (PNG, SVG) to RUN/diagnostics. TensorBoard shows the same scalars of RUN/tensorboard.

    Parameters
    ----------
    run
        The folder of a training run, its --out.
    live
        Go on until the run is over; the page loads itself anew.
    """
    from manyfill.diagnose.watch import diagnose as write

    if live:
        print(f"open {run / 'diagnostics' / 'index.html'}; it goes on until the run is over, Ctrl-C ends it")
    page = write(run, live)
    print(f"open {page}")
