"""How far along a long loop is, for whoever wants to show it: a bar on a terminal, or nobody."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import Any, TypeVar

Item = TypeVar("Item")
PATIENCE = 1.0  # seconds before a bar shows, so that quick work does not flicker
Show = Callable[[Sequence[Any], str], Iterable[Any]]
"""`show(items, what)` gives the items one by one, telling meanwhile how many of them are left."""

_show: ContextVar[Show | None] = ContextVar("show", default=None)


def followed(items: Sequence[Item], what: str) -> Iterable[Item]:
    """The items, one by one, as whoever follows this work wants them shown."""
    show = _show.get()
    return items if show is None else show(items, what)


@contextmanager
def following(show: Show | None) -> Iterator[None]:
    """Within it, and in this thread, long loops are shown so, or by nobody."""
    token = _show.set(show)
    try:
        yield
    finally:
        _show.reset(token)


def bar(items: Sequence[Item], what: str) -> Iterator[Item]:
    """On a terminal, a bar on standard error for what takes longer than a moment."""
    began, rest = monotonic(), iter(items)
    done = 0
    for item in rest:
        yield item
        done += 1
        if monotonic() - began > PATIENCE:
            break
    if done == len(items):
        return
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    yield from track(
        rest, what, len(items), completed=done, transient=True, console=console, disable=not console.is_terminal
    )
