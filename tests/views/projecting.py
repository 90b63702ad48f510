"""Projectors at work in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from guerdon.clock import SystemClock
from guerdon.database import Database
from guerdon.ids import IdSource
from guerdon.logs import make_logger
from guerdon.projections.models import ViewGroup
from guerdon.projections.service import Projector
from tests.clients import Log
from tests.views.counting import COUNTING
from tests.waiting import SECONDS

LEASE_MS = 2_000


class Projecting:
    """A projector that a test can stop."""

    def __init__(self, projector: Projector) -> None:
        self.projector = projector
        self._stopping = asyncio.Event()
        self.task = asyncio.create_task(projector.run(self._stopping))

    async def stop(self) -> None:
        self._stopping.set()
        await self.task


@asynccontextmanager
async def projecting(
    database: Database, *, log: Log | None = None, group: ViewGroup = COUNTING, lease_ms: int = LEASE_MS
) -> AsyncIterator[Projecting]:
    clock = SystemClock()
    logger = make_logger(clock, "info", log or Log())
    running = Projecting(Projector(database, clock, IdSource(clock), logger, group, lease_ms=lease_ms))
    try:
        yield running
    finally:
        await running.stop()


async def until_true(condition: Callable[[], Awaitable[bool]], seconds: float = SECONDS) -> None:
    """Return when an asynchronous condition holds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await condition():
        assert asyncio.get_running_loop().time() < deadline, f"it did not happen within {seconds} s"
        await asyncio.sleep(0.05)
