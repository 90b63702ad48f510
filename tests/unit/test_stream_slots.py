"""Places for long answers: bounded in number and in time, and never lost."""

import asyncio
from collections.abc import AsyncGenerator

import pytest

from guerdon.errors import Overloaded
from guerdon.history.stream_slots import StreamSlots

WAIT_SECONDS = 10.0


async def parts(count: int) -> AsyncGenerator[int]:
    for number in range(count):
        yield number


async def test_slot_is_held_until_the_response_ends() -> None:
    places = StreamSlots(2, 60)
    first, second = places.take(parts(3)), places.take(parts(3))
    with pytest.raises(Overloaded):
        places.take(parts(3))
    assert [number async for number in first] == [0, 1, 2]
    assert len(places) == 1
    await anext(second)
    await second.aclose()
    assert len(places) == 0


async def test_response_that_never_started_releases_its_slot() -> None:
    places = StreamSlots(1, 60)
    for _ in range(5):
        answer = places.take(parts(1))
        assert len(places) == 1
        del answer


async def test_failed_response_releases_its_slot() -> None:
    async def failing() -> AsyncGenerator[int]:
        yield 1
        raise ValueError("in the middle")

    places = StreamSlots(1, 60)
    with pytest.raises(ValueError, match="in the middle"):
        async for _ in places.take(failing()):
            assert len(places) == 1
    assert len(places) == 0


async def test_closed_response_releases_its_resources() -> None:
    let_go = False

    async def answer() -> AsyncGenerator[int]:
        nonlocal let_go
        try:
            async for number in parts(3):
                yield number
        finally:
            let_go = True

    taken = StreamSlots(1, 60).take(answer())
    await anext(taken)
    assert not let_go
    await taken.aclose()
    assert let_go


async def test_client_that_never_reads_loses_its_request_and_its_slot() -> None:
    """The request is held up in sending, outside of the answer. The answer's frames live on with the cancelled task."""
    places, sent = StreamSlots(1, 0.05), list[int]()

    async def request() -> None:
        taken = places.take(parts(3))
        async for number in taken:
            sent.append(number)
            await asyncio.Event().wait()

    task = asyncio.create_task(request())
    await asyncio.wait([task], timeout=WAIT_SECONDS)
    assert task.cancelled()
    assert (sent, len(places)) == ([0], 0)
