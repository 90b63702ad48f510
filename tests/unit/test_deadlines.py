"""One timer for all requests ends the right ones, and nothing else."""

import asyncio

import pytest

from guerdon.http.operation import Deadlines


async def test_only_work_past_its_deadline_is_cancelled() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()
    ended: list[str] = []

    async def work(name: str, seconds: float) -> str:
        try:
            await asyncio.sleep(seconds)
        except asyncio.CancelledError:
            ended.append(name)
            raise
        return name

    async def held(name: str, within: float, seconds: float) -> str:
        return await deadlines.hold(loop.time() + within, work(name, seconds))

    late, soon, later = await asyncio.gather(
        held("late", 0.05, 60), held("soon", 60, 0.3), held("later", 0.1, 60), return_exceptions=True
    )
    assert (type(late), soon, type(later)) == (TimeoutError, "soon", TimeoutError)
    assert sorted(ended) == ["late", "later"]
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


async def test_external_cancellation_is_not_reported_as_a_timeout() -> None:
    deadlines = Deadlines()
    task = asyncio.create_task(deadlines.hold(asyncio.get_running_loop().time() + 60, asyncio.sleep(60)))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert task.cancelled()


async def test_outer_deadline_overrides_a_nested_one() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()

    async def outer() -> str:
        assert await deadlines.hold(loop.time() - 1, asyncio.sleep(0, "inner")) == "inner"
        await asyncio.sleep(60)
        return "never"

    with pytest.raises(TimeoutError):
        await deadlines.hold(loop.time() + 0.05, outer())


async def test_result_and_error_of_the_work_are_passed_through() -> None:
    deadlines, loop = Deadlines(), asyncio.get_running_loop()

    async def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        await deadlines.hold(loop.time() + 60, fail())
    assert await deadlines.hold(loop.time() + 60, asyncio.sleep(0, 7)) == 7
