"""What a fill is made of besides the picture and the model: the randomness of each level, to keep, redraw and blend.

Level l of a fill is `mean + temperature * std * noise` of its prior, with standard normal noise. That noise is a
combination of counter-based draws, one for each of the level's sources, whose weights are a unit vector: so it stays
standard normal however often levels are redrawn and fills blended, and every result is a draw from the model like any
other. Fills drawn afresh have one source, of weight 1.

Levels are those of the model, coarsest first, then the octaves of refinement. They count from 0 here and from 1 for
users. Legend: T tiles of the first size, Z latent channels.
"""

import json
import math
import os
import re
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy
from safetensors import SafetensorError, safe_open

from manyfill.caption import Caption
from manyfill.errors import ConfigError, PictureError
from manyfill.files import save_bytes
from manyfill.rng import Draws, key

FORMAT = 1


@dataclass(frozen=True)
class Layer:
    """The noise of one level: its sources (key, weight), the squares of whose weights sum to 1, and the temperature."""

    sources: tuple[tuple[int, float], ...]
    temperature: float

    def normal(self, draws: Draws, shape: tuple[int, ...], *where: int) -> np.ndarray:
        """Standard normal noise of a shape; `where` tells the level and the tile."""
        drawn = [weight * draws.normal(key(source, "level", *where), shape) for source, weight in self.sources]
        return np.stack(drawn).sum(0) if len(drawn) > 1 else drawn[0]

    def pixels(self, *where: int) -> int:
        """The key of the pixels that this level ends in. Their noise does not blend: it is the heaviest source's."""
        return key(max(self.sources, key=lambda source: source[1])[0], "pixels", *where)

    def blend(self, other: "Layer", share: float) -> "Layer":
        """From this layer (share 0) to another (1) along the great circle through both, each source an axis."""
        mine, theirs = dict(self.sources), dict(other.sources)
        angle = math.acos(min(1.0, sum(weight * theirs.get(key, 0.0) for key, weight in mine.items())))
        if angle < 1e-6:
            return self if share < 0.5 else other
        near, far = math.sin((1 - share) * angle) / math.sin(angle), math.sin(share * angle) / math.sin(angle)
        weights = {key: near * mine.get(key, 0.0) + far * theirs.get(key, 0.0) for key in mine | theirs}
        temperature = (1 - share) * self.temperature + share * other.temperature
        return Layer(tuple((key, weight) for key, weight in weights.items() if weight), temperature)


@dataclass(frozen=True)
class Recipe:
    """The layers of one fill, the model's levels and then the octaves."""

    layers: tuple[Layer, ...]

    @property
    def keys(self) -> tuple[int, ...]:
        """All the sources."""
        return tuple(dict.fromkeys(key for layer in self.layers for key, _ in layer.sources))

    def keep(self, levels: Collection[int], fresh: "Recipe") -> "Recipe":
        """These levels as they are, all others from a fresh recipe."""
        pairs = zip(self.layers, fresh.layers, strict=True)
        return Recipe(tuple(mine if level in levels else new for level, (mine, new) in enumerate(pairs)))

    def blend(self, other: "Recipe", share: float) -> "Recipe":
        """From this recipe (share 0) to another (1), level by level."""
        pairs = zip(self.layers, other.layers, strict=True)
        return Recipe(tuple(mine.blend(theirs, share) for mine, theirs in pairs))


Recipes = Callable[[int], list[Recipe]]
"""The recipes of a picture's fills, given how many levels it takes."""


@dataclass(frozen=True, eq=False)
class Fill:
    """One fill, to reroll or blend: its recipe, its latents by level (T, Z, size, size), and what it was drawn for.

    `model` and `picture` are fingerprints, of the weights and of picture and hole. `photo` and `mask` are the files it
    was drawn from, `caption` is what it was told, if any.
    """

    recipe: Recipe
    latents: tuple[np.ndarray, ...]
    model: str
    picture: str
    photo: Path | None = None
    mask: Path | None = None
    name: str = "the fill"
    caption: Caption | None = None

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a safetensors file; OutputError where that fails."""
        save_bytes(Path(path), self.content(Path(path).parent))

    def content(self, folder: Path) -> bytes:
        """The safetensors file, to lie in a folder."""
        record = {
            "format": FORMAT,
            "model": self.model,
            "picture": self.picture,
            "layers": [[list(map(list, layer.sources)), layer.temperature] for layer in self.recipe.layers],
            **(self.caption.record() if self.caption else {}),
            # Relative, so that a folder with pictures and fills can be moved.
            **{
                what: os.path.relpath(file.resolve(), folder.resolve())
                for what, file in (("photo", self.photo), ("mask", self.mask))
                if file
            },
        }
        tensors = {f"latents.{level:02d}": np.ascontiguousarray(z) for level, z in enumerate(self.latents, 1)}
        return safetensors.numpy.save(tensors, {"manyfill": json.dumps(record)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Fill":
        """Read what `save` wrote; PictureError for whatever it cannot be."""
        path = Path(path)
        try:
            with safe_open(path, "np") as file:
                record: dict[str, Any] = json.loads((file.metadata() or {})["manyfill"])
                names = sorted(name for name in file.keys() if name.startswith("latents."))  # noqa: SIM118
                latents = tuple(file.get_tensor(name) for name in names)
            if record["format"] != FORMAT:
                raise PictureError(f"{path}: is of another version of manyfill; draw the fill again with --latents")
            layers = tuple(
                Layer(tuple((int(key), float(weight)) for key, weight in sources), float(temperature))
                for sources, temperature in record["layers"]
            )
            found = {what: path.parent / record[what] if what in record else None for what in ("photo", "mask")}
            told = Caption(str(record["caption"]), float(record["guidance"])) if "caption" in record else None
            return cls(
                Recipe(layers), latents, record["model"], record["picture"], **found, name=str(path), caption=told
            )
        except FileNotFoundError:
            raise PictureError(f"{path}: no such file; name one that `fill --latents` wrote") from None
        except (OSError, SafetensorError, KeyError, ValueError, TypeError, ConfigError):
            raise PictureError(
                f"{path}: is no file of a fill's latents; name one that `fill --latents` wrote"
            ) from None

    def check(self, model: str, picture: str, caption: Caption | None = None) -> None:
        """PictureError if it was drawn for another model or picture, or told something else."""
        if self.model != model:
            raise PictureError(f"{self.name}: was drawn by another model; name that one with --model")
        if self.picture != picture:
            raise PictureError(f"{self.name}: was drawn for another picture or mask; give the same ones again")
        if self.caption != caption:
            raise PictureError(f"{self.name}: was drawn under another caption; blend fills of one caption and guidance")


def parse_levels(levels: str | Iterable[int], count: int) -> frozenset[int]:
    """Levels as users count them, "1-4", "1,3,7-", "all", "none" or numbers from 1, counted from 0; ConfigError."""
    if not isinstance(levels, str):
        numbers = list(levels)
    elif levels in ("all", "none", ""):
        numbers = list(range(1, count + 1)) if levels == "all" else []
    else:
        numbers = []
        for part in levels.split(","):
            span = re.fullmatch(r"(\d+)(-(\d*))?", part.strip())
            if not span:
                raise ConfigError(f"--keep-levels {levels}: give levels such as 1-4 or 1,3,7-, or all or none")
            first = int(span[1])
            last = int(span[3]) if span[3] else count if span[2] else first
            numbers += [first, *range(first, min(last, count + 1) + 1)]  # no further, however far it is said to go
    wrong = [number for number in numbers if not 1 <= number <= count]
    if wrong:
        raise ConfigError(f"--keep-levels: there is no level {wrong[0]}; this fill has 1 to {count}, 1 the coarsest")
    return frozenset(number - 1 for number in numbers)
