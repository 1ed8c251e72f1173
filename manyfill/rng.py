"""Counter-based randomness: every draw is a function of (seed, purpose, index) and of nothing else.

No generator is ever shared or advanced across pictures, workers or ranks, so order of work cannot change a result.
"""

import hashlib
import math
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    import torch

WORD, HALF_WORD = 1 << 32, np.uint64(32)
BLOCK = 16  # values that torch turns from uniform to normal at once


def key(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit key from (seed, purpose, index); equal inputs give equal keys on every machine."""
    text = ":".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *index: int, device: "torch.device | str" = "cpu") -> "torch.Generator":
    """A torch generator for (seed, purpose, index); its numbers differ between kinds of device."""
    import torch

    return torch.Generator(device).manual_seed(key(seed, purpose, *index))


def numpy_generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A numpy generator (Philox, itself counter-based) for (seed, purpose, index)."""
    return np.random.Generator(np.random.Philox(key(seed, purpose, *index)))


class Draws(Protocol):
    """Numbers that are a function of a key, float32."""

    def normal(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """Standard normal."""

    def uniform(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """Uniform on [0, 1)."""


class TorchDraws:
    """What torch draws on a processor."""

    def normal(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """As `Draws`."""
        import torch

        return torch.randn(shape, generator=torch.Generator().manual_seed(key)).numpy()

    def uniform(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """As `Draws`."""
        import torch

        return torch.rand(shape, generator=torch.Generator().manual_seed(key)).numpy()


class TwisterDraws:
    """The same numbers without torch: uniform ones to the bit, normal ones but for the rounding of sine and logarithm.

    Matsumoto & Nishimura (1998), which both torch and numpy's RandomState, whose stream is frozen, start from 32 bits;
    Box & Muller (1958), by halves of a block as torch pairs them.
    """

    def normal(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """As `Draws`."""
        count, words = math.prod(shape), _TWISTER.start(key)
        if count < BLOCK:  # of which torch draws one after the other, in double precision
            high, low = np.moveaxis(words(4 * -(-count // 2)).astype(np.uint64).reshape(-1, 2, 2), -1, 0)
            angle, depth = ((high << HALF_WORD | low) & np.uint64((1 << 53) - 1)).T / 2.0**53
            radius, angle = np.sqrt(-2 * np.log1p(-depth)), 2 * np.pi * angle
            values = np.stack([radius * np.cos(angle), radius * np.sin(angle)], -1).ravel()[:count]
            return values.astype(np.float32).reshape(shape)
        values = _unit(words(count))
        # What is left over of the last block is drawn anew, with a whole block that ends where all does.
        whole, end = count - count % BLOCK, _unit(words(BLOCK)) if count % BLOCK else values[:0]
        values[:whole] = _box_muller(values[:whole])
        values[count - len(end) :] = _box_muller(end)
        return values.reshape(shape)

    def uniform(self, key: int, shape: tuple[int, ...]) -> np.ndarray:
        """As `Draws`."""
        return _unit(_TWISTER.start(key)(math.prod(shape))).reshape(shape)


class _Twister(threading.local):
    """A thread's own, which every draw starts anew: to make one takes as long as to draw ten thousand numbers."""

    def __init__(self) -> None:
        self.state = np.random.RandomState(0)

    def start(self, key: int) -> Callable[[int], np.ndarray]:
        """So many of the 32-bit words of a key, and then the next ones."""
        self.state.seed(key % WORD)
        return lambda count: self.state.randint(0, WORD, count, np.uint32)


_TWISTER = _Twister()


def _unit(words: np.ndarray) -> np.ndarray:
    return (words & np.uint32((1 << 24) - 1)).astype(np.float32) * np.float32(2.0**-24)


def _box_muller(uniform: np.ndarray) -> np.ndarray:
    # In one piece each: over pieces of eight values numpy is several times slower.
    depth, angle = np.ascontiguousarray(uniform.reshape(-1, 2, BLOCK // 2).swapaxes(0, 1))
    radius, angle = np.sqrt(np.float32(-2) * np.log(np.float32(1) - depth)), np.float32(2 * np.pi) * angle
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], 1).ravel()
