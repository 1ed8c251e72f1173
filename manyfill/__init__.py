"""manyfill: many plausible fills for the hole in a picture, how sure each pixel is, and a likelihood bound.

from manyfill import Filler
completions = Filler.from_pretrained()("photo.jpg", "mask.png", n=8, seed=0)
"""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from manyfill.pipeline import Completions, Fill, Filler

__version__ = "0.1.0"
__all__ = ["Completions", "Fill", "Filler", "__version__"]


def __getattr__(name: str) -> Any:
    # Late, so that the command line can answer --help without loading torch.
    if name in ("Completions", "Fill", "Filler"):
        from manyfill import pipeline

        return getattr(pipeline, name)
    raise AttributeError(f"module 'manyfill' has no attribute {name!r}")
