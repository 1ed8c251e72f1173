"""What all requests share: the model waits for nobody who takes what is drawn slowly."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import aclosing
from types import SimpleNamespace
from typing import Any

import pytest

from manyfill.pipeline import Filler
from manyfill.web.service import Service, eagerly
from manyfill.web.settings import Limits
from manyfill.web.work import Gone


async def counted(made: list[int], end: Exception | None = None) -> AsyncGenerator[int]:
    for number in range(3):
        made.append(number)
        yield number
    if end:
        raise end


def test_items_are_worked_out_before_they_are_taken() -> None:
    async def take() -> None:
        made: list[int] = []
        async with aclosing(eagerly(counted(made))) as arriving:
            assert await anext(arriving) == 0 and made == [0, 1, 2]
            assert [item async for item in arriving] == [1, 2]

    asyncio.run(take())


def test_what_goes_wrong_is_told_after_what_went_well() -> None:
    async def take() -> None:
        arriving = eagerly(counted([], Gone()))
        assert [await anext(arriving) for _ in range(3)] == [0, 1, 2]
        with pytest.raises(Gone):
            await anext(arriving)

    asyncio.run(take())


class Present:
    async def is_disconnected(self) -> bool:
        return False


class Stub:
    def portions(self, wanted: Callable[[], bool]) -> Iterator[Any]:
        yield from (SimpleNamespace(n=1) for _ in range(3))


def test_the_model_is_free_once_all_is_drawn_and_the_place_once_it_is_sent(filler: Filler) -> None:
    async def take() -> None:
        service = Service(filler, Limits())
        turn = service.slot.admit()
        async with aclosing(service.draw(Present(), turn, Stub())) as arriving:  # type: ignore[arg-type]
            await anext(arriving)
            async with asyncio.timeout(5):
                await service.slot.admit().begin()
        turn.end()
        assert service.slot.inside == 1 and service.slot.lock.locked()
        service.slot.close()

    asyncio.run(take())


def test_warming_up_leaves_nothing_behind_and_asks_no_more_than_is_allowed(filler: Filler) -> None:
    service = Service(filler, Limits(pixels=1, fills=1))
    threads = service.slot.model_thread, service.slot.decoding_thread, service.slot.encoding_thread
    service.warm_up()
    assert all(len(each._threads) == 1 for each in threads)
    assert service.slot.inside == service.budget.taken == len(service.results) == 0
    service.slot.close()
