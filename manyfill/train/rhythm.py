"""How often something is done in a run: every so many steps, or every so often by the clock."""

import re
from typing import Annotated

from pydantic import BeforeValidator

from manyfill.errors import ConfigError

SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}


def seconds(every: int | str) -> float | None:
    """A duration such as "90s", "5m" or "1.5h" in seconds; None for a number of steps."""
    if isinstance(every, int):
        return None
    return float(every[:-1]) * SECONDS[every[-1]]


def _checked(every: object) -> object:
    duration = isinstance(every, str) and re.fullmatch(r"\d+(\.\d+)?[smh]", every) and seconds(every)
    if not duration and not (type(every) is int and every >= 1):
        raise ValueError('write a number of steps, or a duration such as "90s", "5m" or "1.5h"')
    return every


Every = Annotated[int | str, BeforeValidator(_checked)]


def parse(text: str, flag: str) -> int | str:
    """A flag's number of steps or duration; ConfigError."""
    try:
        found = _checked(int(text) if text.isdecimal() else text)
    except ValueError as error:
        raise ConfigError(f"{flag} {text}: {error}") from None
    assert isinstance(found, int | str)
    return found
