"""Where the top-down path works: at every size the box outside of which nothing has a say in the hole.

Shapes: B batch, C channels, H W size of a level.
"""

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor

from manyfill.models.config import LevelSpec, ModelConfig

DRAFT_REACH = 2  # of a 5x5 convolution; those of a level's prior and posterior reach 1
WORTH = 0.8  # a box with more of the map than this is not worth cutting out


@dataclass(frozen=True)
class Window:
    """Rows `top` to `bottom` and columns `left` to `right` (exclusive) of size x size maps."""

    size: int
    top: int
    bottom: int
    left: int
    right: int

    @classmethod
    def whole(cls, size: int) -> "Window":
        return cls(size, 0, size, 0, size)

    @property
    def is_whole(self) -> bool:
        return self == Window.whole(self.size)

    def cut(self, x: Tensor, outer: "Window | None" = None) -> Tensor:
        """This part (B, C, h, w) of whole maps, or of maps that were enlarged from those of an `outer` window."""
        if self.is_whole:
            return x
        factor = self.size // outer.size if outer else 0
        top, left = (factor * outer.top, factor * outer.left) if outer else (0, 0)
        return x[..., self.top - top : self.bottom - top, self.left - left : self.right - left]

    def paste(self, x: Tensor, around: float = 0.0) -> Tensor:
        """Whole maps (B, C, size, size) with x (B, C, h, w) here and the value `around` elsewhere."""
        if self.is_whole:
            return x
        return F.pad(x, (self.left, self.size - self.right, self.top, self.size - self.bottom), value=around)

    def put(self, x: Tensor, whole: Tensor) -> Tensor:
        """Whole maps (B, C, size, size) with x (B, C, h, w) here."""
        if self.is_whole:
            return x
        put = whole.clone()
        put[..., self.top : self.bottom, self.left : self.right] = x
        return put

    def places(self, index: Tensor) -> tuple[Tensor, Tensor]:
        """Of indices (R,) among the cells of this part of B maps: the map (R,), and the place in all of it (R,)."""
        if self.is_whole:
            return index // self.size**2, index % self.size**2
        width = self.right - self.left
        picture, cell = index // (width * (self.bottom - self.top)), index % (width * (self.bottom - self.top))
        return picture, (self.top + cell // width) * self.size + self.left + cell % width

    def grown(self, reach: int) -> "Window":
        low, high = (lambda edge: max(0, edge - reach)), (lambda edge: min(self.size, edge + reach))
        return Window(self.size, low(self.top), high(self.bottom), low(self.left), high(self.right))

    def coarser(self, factor: int) -> "Window":
        """The smallest window of maps `factor` times smaller that covers this one."""
        low, high = (lambda edge: edge // factor), (lambda edge: -(-edge // factor))
        return Window(self.size // factor, low(self.top), high(self.bottom), low(self.left), high(self.right))

    def joined(self, other: "Window") -> "Window":
        ends = max(self.bottom, other.bottom), max(self.right, other.right)
        return Window(self.size, min(self.top, other.top), ends[0], min(self.left, other.left), ends[1])


def hole_of(m: Tensor) -> Window | None:
    """The smallest window with all holes m (B, 1, S, S), None if there are none."""
    missing = m.amax((0, 1)) > 0
    rows, columns = (missing.any(axis).nonzero()[:, 0].tolist() for axis in (1, 0))
    return Window(len(missing), rows[0], rows[-1] + 1, columns[0], columns[-1] + 1) if rows else None


def windows(config: ModelConfig, m: Tensor, kept: Tensor | None = None) -> dict[int, Window]:
    """By size, what has to be worked out for holes m (B, 1, S, S), or for the part of them that is `kept`, like m:
    everything, with parts that look at a whole map."""
    sizes = sorted({level.size for level in config.levels}, reverse=True)
    found = {size: Window.whole(size) for size in sizes}
    looking = config.head != "mixture"  # its pixels look at one another, and at the state beside them
    hole = hole_of(m if kept is None or looking else kept)
    if hole is None or config.norm == "group" or any(level.autoregressive for level in config.levels):
        return found
    needed = hole.grown(int(looking)).coarser(hole.size // sizes[0])
    # Products of matrices round by how many rows there are: where positions attend to a caption, all of them do.
    attending = config.captions.attend if config.captions else []
    for size in sizes:
        if size in attending:
            break
        needed = needed.coarser(needed.size // size)
        if size != sizes[0]:
            needed = needed.grown(1)  # enlarging looks at the cells beside
        levels = [level for level in config.levels if level.size == size]
        window = needed.grown(reach(config, levels, around=kept is not None))
        if (window.bottom - window.top) * (window.right - window.left) > WORTH * size**2:
            break
        found[size] = needed = window
    return found


def reach(config: ModelConfig, levels: list[LevelSpec], around: bool = False) -> int:
    """How far from a hole the state that enters these levels, all of one size, has a say in what leaves them there.

    Where there are latents `around`, in more of the hole, each level's have a say too, and what their priors see.
    """
    each = 2 if config.block == "residual" else 1
    to_last = sum(level.lead + level.depth for level in levels[:-1]) + levels[-1].lead
    drafted = each * levels[0].lead + DRAFT_REACH
    border = 1 if config.border == "conv" else 0
    leaving = each * (to_last + levels[-1].depth) + (len(levels) if around else 0)
    return border + max(leaving, each * to_last + 1, drafted)
