"""A stream of server-sent events: each fill as soon as it is drawn, then mean and uncertainty, then the record.

waiting      {"ahead": requests before this one}
start        {"size": {"height", "width"}, "view": {"top", "left", "height", "width"}, "notes"}
fill         {"index", "png"}         n times; every png is in base64
mean         {"png"}
uncertainty  {"png", "largest"}       a heat map up to the largest standard deviation, in grey levels
done         {"result", "levels", "record"}   the id to have files by for a while; each level's size; fill.json
error        {"detail"}
"""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event
from starlette.requests import Request

from manyfill.errors import ManyfillError
from manyfill.web.result import Result, View
from manyfill.web.service import Service
from manyfill.web.slot import Turn
from manyfill.web.words import plain
from manyfill.web.work import Drawing, Gone


def event(name: str, **values: Any) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(values, separators=(",", ":")))


async def fill_events(
    request: Request, service: Service, turn: Turn, drawing: Drawing, view: View
) -> AsyncIterator[bytes]:
    """The events of one request; what goes wrong on the way is the last of them."""
    yield event("waiting", ahead=turn.ahead)
    do, drawn = service.slot.encode, 0
    try:
        async with aclosing(service.draw(request, turn, drawing)) as arriving:
            async for portion in arriving:
                if not drawn:
                    yield event("start", **portion.frame(view), notes=[plain(note) for note in portion.part.notes])
                for index in range(portion.n):
                    yield await do(shown, "fill", portion, f"fill-{index:02d}", view, index=drawn + index)
                drawn += portion.n
        result = await do(drawing.whole)
        yield await do(shown, "mean", result, "mean", view)
        yield await do(shown, "uncertainty", result, "std", view, largest=float(result.part.std.max()))
        name = service.results.put(result)
        yield event("done", result=name, levels=service.levels(result), record=result.record())
    except ManyfillError as error:
        yield event("error", detail=plain(error))
    except Gone:
        pass  # nobody is left to tell


def shown(name: str, result: Result, file: str, view: View, **values: Any) -> bytes:
    """The event that holds a picture of a result."""
    return event(name, **values, png=base64.b64encode(result.png(file, view)).decode())
