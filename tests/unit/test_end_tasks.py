"""Ending tasks: one cancellation can be lost in the driver, so it is repeated."""

import asyncio

from guerdon.database import end_tasks


async def stubborn(ignored: int) -> None:
    """Loop as periodic work does, and lose the first cancellations."""
    while True:
        try:
            await asyncio.sleep(3_600)
        except asyncio.CancelledError:
            if ignored <= 0:
                raise
            ignored -= 1


async def test_tasks_end_although_cancellations_are_lost() -> None:
    tasks = [asyncio.create_task(stubborn(ignored)) for ignored in (0, 1, 2)]
    await asyncio.sleep(0)
    async with asyncio.timeout(30):
        await end_tasks(*tasks)
    assert all(task.cancelled() for task in tasks)


async def test_ended_and_failed_tasks_are_no_obstacle() -> None:
    async def fail() -> None:
        raise ValueError

    failed, ended = asyncio.create_task(fail()), asyncio.create_task(asyncio.sleep(0))
    await asyncio.wait({failed, ended})
    await end_tasks(failed, ended)
    await end_tasks()
    assert isinstance(failed.exception(), ValueError)
