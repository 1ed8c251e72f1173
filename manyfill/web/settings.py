"""What the server allows: whom it answers, and how much of its memory and time one request can take."""

from dataclasses import dataclass, field

from manyfill.images import DEFAULT_MAX_PIXELS

MEGABYTE = 2**20


@dataclass(frozen=True)
class Limits:
    """Sizes in bytes, pixels or counts, times in seconds. Whatever is beyond is refused before it is decoded."""

    body: int = 40 * MEGABYTE  # of one request
    text: int = 4096  # of one value that is no file
    held: int = 512 * MEGABYTE  # bodies and decoded pictures of all requests together
    pixels: int = DEFAULT_MAX_PIXELS  # of one picture
    fills: int = 64  # of one request
    volume: int = 256_000_000  # pixels of all fills of one request
    waiting: int = 8  # requests in the queue before the model
    reading: float = 60.0  # until a request must have arrived whole
    kept: int = 256 * MEGABYTE  # results, to download or re-roll
    results: int = 16  # of them
    keeping: float = 900.0  # after a result was last asked for


@dataclass(frozen=True)
class Access:
    """Whom the server answers: names it is known by besides its own address, and a token to show, if any."""

    host: str = "127.0.0.1"
    names: tuple[str, ...] = ()
    token: str | None = field(default=None, repr=False)
