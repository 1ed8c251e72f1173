"""A stream of server-sent events: each fill as soon as it is drawn, then mean and uncertainty, then the record.

waiting      {"ahead": requests before this one}
start        {"n", "size": {"height", "width"}, "view": {"top", "left", "height", "width"}, "notes"}
fill         {"index", "png"}         n times; every png is in base64
mean         {"png"}
uncertainty  {"png", "largest"}       a heat map up to the largest standard deviation, in grey levels
done         {"result", "record"}     the id under which files can be had for a while, and what fill.json holds
error        {"detail"}
"""

import base64
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from typing import Any

from fastapi.sse import format_sse_event
from starlette.requests import Request

from manyfill.errors import ManyfillError
from manyfill.web.service import Service
from manyfill.web.slot import Turn
from manyfill.web.words import plain
from manyfill.web.work import Result, View, frame, joined, png, record


def event(name: str, **values: Any) -> bytes:
    return format_sse_event(event=name, data_str=json.dumps(values, separators=(",", ":")))


async def fill_events(
    request: Request, service: Service, turn: Turn, steps: Iterator[Result], view: View
) -> AsyncIterator[bytes]:
    """The events of one request; what goes wrong on the way is the last of them."""
    yield event("waiting", ahead=turn.ahead)
    portions: list[Result] = []
    drawn = 0
    do = service.slot.work
    try:
        async with aclosing(service.draw(request, turn, steps)) as arriving:
            async for portion in arriving:
                completions = await do(portion.completions, service.filler, view)
                if not portions:
                    yield event("start", **frame(portion.subject, view), notes=completions.notes)
                for index in range(portion.sampling.n):
                    image = await do(png, completions, f"fill-{index:02d}.png", view)
                    yield event("fill", index=drawn + index, png=_text(image))
                portions.append(portion)
                drawn += portion.sampling.n
        if not portions:
            return
        result = joined(portions)
        if len(portions) > 1:
            completions = await do(result.completions, service.filler, view)
        yield event("mean", png=_text(await do(png, completions, "mean.png", view)))
        heat = _text(await do(png, completions, "std.png", view))
        yield event("uncertainty", png=heat, largest=float(completions.std.max()))
        yield event("done", result=service.results.put(result), record=record(result, completions))
    except ManyfillError as error:
        yield event("error", detail=plain(error))


def _text(content: bytes) -> str:
    return base64.b64encode(content).decode()
