"""What a contender has to be able to do to be compared. B pictures, C channels, S side."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping

from torch import Tensor, nn

WHOLE, HOLE = "whole pictures", "centre holes"
"""The two tasks: a hole of S/2 x S/2 given the rest, and all of a picture given nothing."""


class Contender(ABC):
    """A model with the training step, the bound and the draws of its own code.

    Pictures x (B, C, S, S) are float32 in [-1, 1], holes m (B, 1, S, S) are 1 where pixels are missing. `modes` are
    ways to use what was learnt, of which the best counts. `batch` is that of the model's own recipe, `origin` says
    whose code it is.
    """

    name: str
    task: str
    batch: int
    precision: str
    modes: tuple[str, ...]
    origin: Mapping[str, str]
    refused = 0
    """Steps that its own code did not take, for its gradient was too large."""

    def prepare(self, pictures: Tensor) -> None:  # noqa: B027, not all want to know
        """Measure what the model wants to know of the training pictures x before its first step, if anything."""

    @property
    @abstractmethod
    def parameters(self) -> int:
        """How many numbers are learnt."""

    @abstractmethod
    def step(self, x: Tensor, m: Tensor, progress: float) -> None:
        """One update of the weights, when `progress` (0 to 1) of the training is over."""

    @abstractmethod
    def nats(self, x: Tensor, m: Tensor, mode: str) -> float:
        """The sum over pictures of a bound on -log p(hole | the rest), of 8-bit values."""

    @abstractmethod
    def fill(self, x: Tensor, m: Tensor, mode: str) -> Tensor:
        """A fill of each picture, drawn at random; known pixels as they are in x."""


def count(model: nn.Module) -> int:
    """Learnt numbers of a network."""
    return sum(parameter.numel() for parameter in model.parameters())


def nearest(build: Callable[[int], nn.Module], wanted: int, widths: range) -> int:
    """The width at which `build` gives the number of parameters nearest to `wanted`; it must grow with the width."""
    low, high = 0, len(widths) - 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if count(build(widths[middle])) < wanted else (low, middle)
    return min((widths[low], widths[high]), key=lambda width: abs(count(build(width)) - wanted))
