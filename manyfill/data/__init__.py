"""Pictures from folders and tar shards, and the stream of training batches made of them."""

from typing import TYPE_CHECKING, Any

from manyfill.data.batch import Batch, Example, Sample, Skipped, Source, collate
from manyfill.data.source import open_source

if TYPE_CHECKING:
    from manyfill.data.loader import DEFAULT_MASKS, StreamConfig, TrainingSamples, batches, fixed_batches

__all__ = [
    "DEFAULT_MASKS",
    "Batch",
    "Example",
    "Sample",
    "Skipped",
    "Source",
    "StreamConfig",
    "TrainingSamples",
    "batches",
    "collate",
    "fixed_batches",
    "open_source",
]


def __getattr__(name: str) -> Any:
    # Late, so that pictures can be read without torch.
    if name in __all__:
        from manyfill.data import loader

        return getattr(loader, name)
    raise AttributeError(f"module 'manyfill.data' has no attribute {name!r}")
