"""When a run's KL exploded, by its log."""

from manyfill.train.log import Record

UNCODED = 8.0  # bits: what a value costs that is written down without any model


def explosions(train: list[Record]) -> list[int]:
    """The steps of those training records that say so.

    The first record, of the first steps, is where a design starts, which may be high; only breaking counts there.
    """
    return [
        record["step"]
        for number, (record, kl) in enumerate(zip(train, map(kl_of, train), strict=True))
        if record["broken_steps"] or (number and (kl is None or kl > UNCODED))
    ]


def kl_of(record: Record) -> float | None:
    """All levels together, in bits/dim; None if it is not a number."""
    bound, pixels = record["bits_per_dim"], record["pixel_bits"]
    return None if bound is None or pixels is None else bound - pixels
