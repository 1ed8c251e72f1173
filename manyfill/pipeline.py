"""From any picture and any hole to many fills: read, crop, draw octave by octave, paste.

Legend: H W the picture's size, C its channels (1 or 3), S the model's size, N fills. Pixels are uint8 (H, W, C),
masks bool (H, W) with True = missing, tensors (C, H, W) in [-1, 1].
"""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np

from manyfill import octaves
from manyfill.caption import Caption
from manyfill.completions import Completions, Timings, spread
from manyfill.crop import parts, surround
from manyfill.drawing import Drawn, Shown, draw, joined, pasted, planned
from manyfill.effort import Progress
from manyfill.errors import ConfigError, PictureError
from manyfill.images import DEFAULT_MAX_PIXELS
from manyfill.inputs import PictureLike, Sampling, Subject, read
from manyfill.models.config import ModelConfig
from manyfill.octaves import TILE_BATCH
from manyfill.recipe import Fill, Recipe, Recipes, parse_levels
from manyfill.runtime import Runtime
from manyfill.runtime.open import as_runtime, open_runtime

if TYPE_CHECKING:
    import torch

    from manyfill.likelihood import Likelihood
    from manyfill.models.hvae import ConditionalHVAE, Known

BOUND_SAMPLES = 16
EMPTY_NOTE = "the mask is empty (all black): nothing to fill, the picture is unchanged"


class Filler:
    """A model that fills pictures of any size.

    A call is `read`, `show`, `draw`, `complete`. Whoever fills many pictures takes these steps one by one, to draw
    several pictures in one batch of the model, and to do all the others in threads meanwhile.
    """

    def __init__(
        self,
        model: "Runtime | ConditionalHVAE",
        id: str,
        tile_batch: int = TILE_BATCH,
        max_memory: int | None = None,
    ) -> None:
        if tile_batch < 1:
            raise ConfigError(f"--tile-batch {tile_batch}: must be 1 or more")
        self.runtime, self.id = as_runtime(model), id
        self.tile_batch, self.max_memory = tile_batch, max_memory
        # what is told of the model in Markdown, and measured of it
        self.card, self.figures = self.runtime.card, dict(self.runtime.figures)

    @classmethod
    def from_pretrained(
        cls,
        source: str | os.PathLike[str] = "default",
        device: str | None = None,
        tile_batch: int = TILE_BATCH,
        max_memory: int | None = None,
        runtime: str | None = None,
    ) -> "Filler":
        """The model of `source`: "default", a directory or a hub id "owner/name"; raises ModelError and ConfigError.

        `runtime` is torch, or onnx for what `manyfill export` wrote, which needs no torch; None takes the one that
        the model is for. `device` is torch's name of where to compute; None takes the GPU if there is one. At most
        `tile_batch` tiles are drawn at once, fewer where `max_memory` bytes (roughly, of the process) would not do.
        """
        return cls(open_runtime(os.fspath(source), runtime, device), os.fspath(source), tile_batch, max_memory)

    @property
    def config(self) -> ModelConfig:
        """What the model is made of."""
        return self.runtime.config

    @property
    def model(self) -> "ConditionalHVAE":
        """The torch network; ConfigError for an exported model."""
        return self.runtime.network

    @property
    def device(self) -> "torch.device":
        """Where the torch network computes; ConfigError for an exported model."""
        return next(self.model.parameters()).device

    @property
    def digest(self) -> str:
        """The model's fingerprint."""
        return self.runtime.digest

    def save_pretrained(self, directory: str | os.PathLike[str]) -> None:
        """Write the model with its card and figures as a directory for `from_pretrained`; raises OutputError, and
        ConfigError for an exported model."""
        from manyfill.checkpoint import save_model

        save_model(Path(directory), self.model, self.card, self.figures)

    def push_to_hub(
        self, repo: str, licence: str | None = None, private: bool = False, token: str | None = None
    ) -> str:
        """Upload the model to the Hugging Face Hub as "owner/name" and return its address; raises ModelError.

        The card is completed by plots of the figures and by the licence of the weights, the Hub's name for it.
        """
        from manyfill.checkpoint import Loaded
        from manyfill.hub import push

        return push(Loaded(self.model, self.id, self.card, self.figures), repo, licence, private, token)

    def __call__(
        self,
        image: PictureLike,
        mask: PictureLike | None = None,
        n: int = 8,
        seed: int = 0,
        temperature: float | Sequence[float] = 1.0,
        truth: PictureLike | None = None,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        bound_samples: int = BOUND_SAMPLES,
        progress: Progress | None = None,
        caption: str | None = None,
        guidance: float = 1.0,
    ) -> Completions:
        """Draw n fills of the picture; fill i is a function of (picture, mask, seed, i) and the temperature.

        A temperature scales the deviations of all latents, or there is one for each level, coarsest first, of which the
        last stands for all finer ones too.

        Pictures are paths, PIL images, uint8 arrays (H, W), (H, W, 1) or (H, W, 3), or tensors (C, H, W) in [-1, 1];
        masks are paths or PIL images (luma over 127 = missing), or arrays or tensors (H, W) of bool, 0 and 1, or 0 to
        255; None takes the picture's transparent pixels. `truth` is the whole picture, for the bounds,
        estimated with `bound_samples` draws of the posterior at the model's size. Hole pixels of `image` are never
        read. `progress` is told the effort beforehand, and then how far it is. A model with captions takes a `caption`
        of the picture, which fills follow more closely the larger the `guidance` (1: as the model does). Raises
        PictureError and ConfigError.
        """
        started = perf_counter()
        assert bound_samples >= 1
        sampling, said = Sampling(n, seed, temperature), Caption.of(caption, guidance)
        network = None if truth is None else self.model  # before any work is done
        subject = read(image, mask, truth, max_pixels, said)
        shown = self.show(subject)
        drawn = joined(list(self.portions(shown, sampling.recipes, progress=progress))) if shown else None
        began = perf_counter()
        bound = _bound(network, subject, seed, bound_samples) if shown and network else None
        now = perf_counter()
        spent = Timings(draw=drawn.seconds if drawn else 0.0, bound=now - began if bound else 0.0, total=now - started)
        return self.complete(subject, shown, drawn, sampling, spent, bound)

    def check_memory(
        self, image: PictureLike, mask: PictureLike | None, n: int, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        """ConfigError if n fills of the picture take more than `max_memory`; said before any work is done."""
        if shown := self.show(read(image, mask, max_pixels=max_pixels)):
            planned(self.config, [shown], n, self.tile_batch, self.max_memory)

    def reroll(
        self,
        image: PictureLike,
        mask: PictureLike | None,
        fill: Fill,
        keep: str | Iterable[int],
        n: int = 8,
        seed: int = 0,
        temperature: float | Sequence[float] = 1.0,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        progress: Progress | None = None,
    ) -> Completions:
        """Draw n fills that share some levels with a fill of the same picture: `keep` "1-4" its composition, "5-" its
        texture.

        Levels count from 1, the coarsest; after the model's come the octaves. `keep` may also be "all", "none" or
        numbers. Kept levels have the noise, temperature and, above any that is redrawn, the very latents of `fill`;
        below, latents follow what is redrawn above them, so that each fill is a draw from the model. The noise of the
        pixels stays where that of the last level does: keeping all gives the same bytes. `fill` is one of
        `Completions.fills`, or `Fill.load(path)`. Raises PictureError, also for a fill of another model or picture,
        and ConfigError.
        """
        sampling = Sampling(n, seed, temperature, "reroll")
        return self._steer(image, mask, (fill,), *rerolled(fill, keep, sampling), sampling, max_pixels, progress)

    def blend(
        self,
        image: PictureLike,
        mask: PictureLike | None,
        first: Fill,
        last: Fill,
        steps: int = 8,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        progress: Progress | None = None,
    ) -> Completions:
        """Fills in even steps from one fill of a picture to another; the two themselves are the first and the last.

        Each level's noise moves along the great circle between that of the two, in the prior's own units. So it stays
        standard normal, and every step is a draw from the model as likely as any; along the straight line deviations
        would sink by 0.7 in the middle, and latents taken between those of two fills would not suit what the coarser
        levels have come to. The pixels' noise changes over in the middle. Raises as `reroll`.
        """
        if steps < 2:
            raise ConfigError(f"--steps {steps}: from one fill to another takes 2 or more")

        def recipes(levels: int) -> list[Recipe]:
            return [first.recipe.blend(last.recipe, step / (steps - 1)) for step in range(steps)]

        return self._steer(image, mask, (first, last), recipes, (), None, max_pixels, progress)

    def _steer(
        self,
        image: PictureLike,
        mask: PictureLike | None,
        fills: Sequence[Fill],
        recipes: Recipes,
        given: Sequence[np.ndarray],
        sampling: Sampling | None,
        max_pixels: int,
        progress: Progress | None,
    ) -> Completions:
        started = perf_counter()
        subject = read(image, mask, max_pixels=max_pixels, caption=fills[0].caption)
        picture = subject.digest()
        for fill in fills:
            fill.check(self.digest, picture, subject.caption)
        shown = self.show(subject)
        assert shown, "a picture with fills has a hole"
        drawn = joined(list(self.portions(shown, recipes, given, progress)))
        spent = Timings(draw=drawn.seconds, bound=0.0, total=perf_counter() - started)
        return self.complete(subject, shown, drawn, sampling, spent)

    def condition(self, image: PictureLike, mask: PictureLike | None = None) -> "Known":
        """What the model is told of a picture with a hole, as in a call; ConfigError for an exported model."""
        from manyfill.likelihood import condition

        return condition(self.model, read(image, mask))

    def show(self, subject: Subject) -> Shown | None:
        """The holes and their surroundings; None where nothing is missing. PictureError."""
        config, pixels, hole = self.config, subject.picture.pixels, subject.hole
        if not hole.any():
            return None
        if pixels.shape[2] > config.channels:
            name = subject.picture.name
            raise PictureError(f"{name}: is in colour but the model is grey; convert it or change --model")
        found = parts(pixels, hole, config.size)
        plans = [octaves.sizes(part, config.size) for part in found]
        said = self.runtime.read(subject.caption) if subject.caption else None
        return Shown(surround(hole, config.size), found, plans, pixels.size, said)

    def draw(self, pictures: Sequence[Shown], sampling: Sampling) -> list[Drawn]:
        """The fills of each picture, of all of them in common batches; each from noise of its own."""
        return [joined(portions) for portions in zip(*self._draw(pictures, sampling.recipes), strict=True)]

    def portions(
        self, shown: Shown, recipes: Recipes, given: Sequence[np.ndarray] = (), progress: Progress | None = None
    ) -> Iterator[Drawn]:
        """The fills of one picture, a few at a time; joined, they are what `draw` gives.

        `given` are the latents (T, Z, size, size) of the first levels, if known; `progress` may raise to end it.
        """
        return (drawn for (drawn,) in self._draw([shown], recipes, given, progress))

    def _draw(
        self,
        pictures: Sequence[Shown],
        recipes: Recipes,
        given: Sequence[np.ndarray] = (),
        progress: Progress | None = None,
    ) -> Iterator[list[Drawn]]:
        return draw(self.runtime, pictures, recipes, given, self.tile_batch, self.max_memory, progress)

    def complete(
        self,
        subject: Subject,
        shown: Shown | None,
        drawn: Drawn | None,
        sampling: Sampling | None,
        spent: Timings,
        bound: "Likelihood | None" = None,
    ) -> Completions:
        """The fills at the picture's size; `shown` and `drawn` are None where nothing is missing.

        `sampling` is None for a blend. `spent` are the seconds so far, to which those of this step are added.
        """
        began = perf_counter()
        pixels, hole = subject.picture.pixels, subject.hole
        if shown and drawn:
            box, notes = shown.box, (*subject.picture.notes, *(shown.said.notes if shown.said else ()))
            mean, *images = (
                pasted(pixels, shown.parts, fills) for fills in (drawn.means, *zip(*drawn.fills, strict=True))
            )
        else:
            assert sampling, "only a picture with a hole has fills to blend"
            box, notes = None, (*subject.picture.notes, EMPTY_NOTE)
            mean, *images = (pixels.copy() for _ in range(sampling.n + 1))
        return Completions(
            images=images,
            mean=mean,
            std=spread(images, hole),
            bound=bound,
            fills=self._fills(subject, drawn) if drawn else (),
            crop=box,
            notes=notes,
            timings=Timings(spent.draw, spent.bound, spent.total + perf_counter() - began),
            picture=pixels,
            mask=hole,
            truth=subject.whole,
            original=subject.original,
            model=self.id,
            seed=sampling.seed if sampling else None,
            temperature=sampling.temperature if sampling else None,
            caption=subject.caption,
        )

    def _fills(self, subject: Subject, drawn: Drawn) -> tuple[Fill, ...]:
        picture = subject.digest()
        return tuple(
            Fill(
                recipe,
                tuple(z[i] for z in drawn.latents),
                self.digest,
                picture,
                subject.photo,
                subject.mask,
                caption=subject.caption,
            )
            for i, recipe in enumerate(drawn.recipes)
        )


def _bound(network: "ConditionalHVAE", subject: Subject, seed: int, samples: int) -> "Likelihood":
    from manyfill.likelihood import bound

    return bound(network, subject, seed, samples)


def rerolled(fill: Fill, keep: str | Iterable[int], sampling: Sampling) -> tuple[Recipes, Sequence[np.ndarray]]:
    """The recipes of `Filler.reroll`, and the latents of the levels above the first that is redrawn; ConfigError."""
    kept = parse_levels(keep, len(fill.recipe.layers))
    above = next(level for level in range(len(kept) + 1) if level not in kept)

    def recipes(levels: int) -> list[Recipe]:
        return [fill.recipe.keep(kept, fresh) for fresh in sampling.recipes(levels)]

    return recipes, fill.latents[:above]
