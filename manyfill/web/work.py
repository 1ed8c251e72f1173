"""What happens off the event loop: pictures are decoded, fills drawn and encoded. The steps are those of `Filler`."""

from collections.abc import Iterator
from typing import Any

from manyfill.completions import Timings
from manyfill.errors import ConfigError, PictureError
from manyfill.images import open_picture
from manyfill.inputs import Sampling, Subject, read
from manyfill.pipeline import Filler
from manyfill.web.result import Result


def open_subject(image: bytes, mask: bytes | None, max_pixels: int) -> Subject:
    """Decode what was sent; PictureError."""
    picture = open_picture(image, name="image", max_pixels=max_pixels)
    if mask is None and picture.alpha is None:
        raise PictureError("mask: is missing, and the image has no transparent pixels to fill; send a mask")
    return read(picture, None if mask is None else open_picture(mask, name="mask", max_pixels=max_pixels))


def filled(filler: Filler, subject: Subject, sampling: Sampling) -> Iterator[Result]:
    """The fills of a picture, in portions."""
    shown = filler.show(subject)
    drawn = filler.draw([shown], sampling)[0] if shown else None
    seconds = drawn.seconds if drawn else 0.0
    completions = filler.complete(subject, shown, drawn, sampling, Timings(seconds, 0.0, seconds))
    yield Result.of(subject, completions, {"command": "fill", **_asked(sampling)})


def rerolled(filler: Filler, result: Result, fill: int, keep: str, sampling: Sampling) -> Iterator[Result]:
    """Fills that share some levels with a fill, in portions; ConfigError."""
    fills = result.part.fills
    if not fill < len(fills):
        has = f"this result has 0 to {len(fills) - 1}" if fills else "nothing was missing"
        raise ConfigError(f"fill {fill}: there is no such fill; {has}")
    picture, hole = result.subject.picture, result.subject.hole
    completions = filler.reroll(picture, hole, fills[fill], keep, **_asked(sampling))
    step = {"command": "reroll", "fill": fill, "keep_levels": keep, **_asked(sampling)}
    yield Result.of(result.subject, completions, *result.steps, step)


def joined(portions: list[Result]) -> Result:
    """All portions of a result."""
    (only,) = portions
    return only


def _asked(sampling: Sampling) -> dict[str, Any]:
    return {"n": sampling.n, "seed": sampling.seed, "temperature": sampling.temperature}
