"""How often something is done in a run: every so many steps, or every so often by the clock."""

import re
from typing import Annotated

from pydantic import BeforeValidator

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
