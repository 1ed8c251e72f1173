"""Counter-based randomness: every draw is a function of (seed, purpose, index) and of nothing else.

No generator is ever shared or advanced across pictures, workers or ranks, so order of work cannot change a result.
"""

import hashlib

import numpy as np
import torch


def key(seed: int, purpose: str, *index: int) -> int:
    """A 63-bit key from (seed, purpose, index); equal inputs give equal keys on every machine."""
    text = ":".join([str(seed), purpose, *map(str, index)])
    return int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little") >> 1


def generator(seed: int, purpose: str, *index: int, device: torch.device | str = "cpu") -> torch.Generator:
    """A torch generator for (seed, purpose, index); its numbers differ between kinds of device."""
    return torch.Generator(device).manual_seed(key(seed, purpose, *index))


def numpy_generator(seed: int, purpose: str, *index: int) -> np.random.Generator:
    """A numpy generator (Philox, itself counter-based) for (seed, purpose, index)."""
    return np.random.Generator(np.random.Philox(key(seed, purpose, *index)))
