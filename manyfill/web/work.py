"""What happens off the event loop: pictures are decoded, fills drawn and encoded. The steps are those of `Filler`."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from manyfill.caption import Caption, check
from manyfill.completions import Timings, spread
from manyfill.crop import Box
from manyfill.drawing import Drawn, Shown, joined, pasted
from manyfill.effort import Effort
from manyfill.encode import Encoding
from manyfill.errors import ConfigError, PictureError
from manyfill.images import open_picture
from manyfill.inputs import Sampling, Subject, own_mask, read
from manyfill.pipeline import Filler, rerolled
from manyfill.recipe import Recipes
from manyfill.web.result import Result, hole_box


def open_subject(image: bytes, mask: bytes | None, max_pixels: int) -> Subject:
    """Decode what was sent; PictureError."""
    picture = open_picture(image, name="image", max_pixels=max_pixels)
    if mask is None and own_mask(picture) is None:
        raise PictureError("mask: is missing, and the image has no transparent pixels to fill; send a mask")
    return read(picture, None if mask is None else open_picture(mask, name="mask", max_pixels=max_pixels))


def captioned(filler: Filler, subject: Subject, text: str | None, guidance: float) -> Subject:
    """The picture with what is said of it, if anything; ConfigError where the model cannot be told."""
    caption = Caption.of(text, guidance)
    check(filler.config, caption)
    return replace(subject, caption=caption)


class Gone(Exception):
    """Nobody waits for the fills any longer."""


class Drawing:
    """The fills of one request: in portions as they are drawn, and in the end all together.

    Each portion is put into the hole's box alone, so that no more than a few fills ever take the picture's size.
    """

    def __init__(
        self, filler: Filler, subject: Subject, sampling: Sampling, encoding: Encoding, *steps: dict[str, Any]
    ) -> None:
        self.filler, self.subject, self.sampling = filler, subject, sampling
        self.encoding, self.steps = encoding, steps
        self.recipes: Recipes = sampling.recipes
        self.given: Sequence[np.ndarray] = ()
        self.box, self.digest = hole_box(subject.hole), subject.digest()
        picture = replace(subject.picture, pixels=subject.picture.pixels[self.box], alpha=None, original=None)
        self.cut = Subject(picture, subject.hole[self.box], caption=subject.caption)
        self.shown: Shown | None = None
        self.parts: list[Result] = []
        self.drawn: list[Drawn] = []

    @classmethod
    def rerolling(
        cls, filler: Filler, result: Result, fill: int, keep: str, sampling: Sampling, encoding: Encoding
    ) -> "Drawing":
        """Fills that share some levels with a fill of a result; ConfigError."""
        fills = result.part.fills
        if not fill < len(fills):
            has = f"this result has 0 to {len(fills) - 1}" if fills else "nothing was missing"
            raise ConfigError(f"fill {fill}: there is no such fill; {has}")
        step = {"command": "reroll", "fill": fill, "keep_levels": keep, **asked(sampling, encoding)}
        drawing = cls(filler, result.subject, sampling, encoding, *result.steps, step)
        drawing.recipes, drawing.given = rerolled(fills[fill], keep, replace(sampling, purpose="reroll"))
        return drawing

    def portions(self, wanted: Callable[[], bool]) -> Iterator[Result]:
        """A few fills at a time; Gone once they are not wanted any longer."""

        def tick(effort: Effort, done: int) -> None:
            if not wanted():
                raise Gone

        shown = self.filler.show(self.subject)
        if shown is None:
            yield self._finished(None, None)
        else:
            for drawn in self.filler.portions(shown, self.recipes, self.given, tick):
                self.drawn.append(replace(drawn, fills=[]))
                yield self._finished(shown, drawn)

    def _finished(self, shown: Shown | None, drawn: Drawn | None) -> Result:
        """A portion put into the hole's box."""
        cut = _within(shown, self.box) if shown else None
        seconds = drawn.seconds if drawn else 0.0
        part = self.filler.complete(self.cut, cut, drawn, self.sampling, Timings(seconds, 0.0, seconds))
        # Fills and crop are those of the whole picture.
        fills = tuple(replace(fill, picture=self.digest) for fill in part.fills)
        part = replace(part, fills=fills, crop=shown.box if shown else None)
        self.shown = cut
        self.parts.append(Result(self.subject, self.box, part, self.steps, self.encoding))
        return self.parts[-1]

    def whole(self) -> Result:
        """All portions together: the mean of all fills, and how far they differ."""
        first = self.parts[0]
        if len(self.parts) == 1 or self.shown is None:
            return first
        portions = [result.part for result in self.parts]
        images = [image for part in portions for image in part.images]
        times = zip(*((p.timings.draw, p.timings.bound, p.timings.total) for p in portions), strict=True)
        part = replace(
            portions[0],
            images=images,
            mean=pasted(self.cut.picture.pixels, self.shown.parts, joined(self.drawn).means),
            std=spread(images, self.cut.hole),
            fills=tuple(fill for part in portions for fill in part.fills),
            timings=Timings(*map(sum, times)),
        )
        return replace(first, part=part)


def _within(shown: Shown, box: tuple[slice, slice]) -> Shown:
    """What is shown of a picture, in the coordinates of a part of it."""
    top, left = (side.start for side in box)

    def moved(square: Box) -> Box:
        return Box(square.top - top, square.left - left, square.side)

    return replace(shown, box=moved(shown.box), parts=[replace(p, box=moved(p.box)) for p in shown.parts])


def asked(sampling: Sampling, encoding: Encoding) -> dict[str, Any]:
    """Options as they were asked for."""
    written = {name: value for name, value in asdict(encoding).items() if value is not None}
    return {"n": sampling.n, "seed": sampling.seed, "temperature": sampling.temperature, **written}
