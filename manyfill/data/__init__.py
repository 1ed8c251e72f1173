"""Pictures from folders and tar shards, and the stream of training batches made of them."""

from manyfill.data.batch import Batch, Example, Sample, Skipped, Source, collate
from manyfill.data.loader import DEFAULT_MASKS, StreamConfig, TrainingSamples, batches, fixed_batches
from manyfill.data.source import open_source

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
