"""Partitions of a view group that this worker holds: a fair share of them, each under a lease of its own."""

import asyncio
import random
from contextlib import suppress

from pymongo.asynchronous.collection import AsyncCollection
from pymongo.errors import PyMongoError
from structlog.typing import FilteringBoundLogger

from guerdon.database import Database, Document, end_tasks
from guerdon.projections.models import PARTITIONS
from guerdon.projections.positions import VIEW_WORKERS
from guerdon.workers.leases import LeaseAnswer, Leases
from guerdon.workers.models import Job

LEASE_MS = 10_000
TICKS = 8
"""Number of times within a lease that the worker looks for free partitions."""
TICK_SECONDS_MAX = 1.0
CLOSE_SECONDS = 4.0
"""Maximum time to give the partitions back when the worker stops."""


class PartitionLeases:
    """Leases of one worker. A lease says who should work; the epoch of a position decides whose writes count."""

    def __init__(self, database: Database, group: str, holder: str, *, log: FilteringBoundLogger, lease_ms: int = LEASE_MS) -> None:
        self._leases = Leases(database, holder, lease_ms)
        self._workers = database.raw[VIEW_WORKERS]
        self._group = group
        self._row_id = f"{group}/{holder}"
        self._log = log
        self._lease_ms = lease_ms
        self._keepers: dict[int, asyncio.Task[None]] = {}
        self.changed = asyncio.Event()
        """Set when the set of held partitions has changed."""
        self.releasing = asyncio.Lock()
        """Held while a transaction is written, so that no partition is given back in the middle of it."""

    @property
    def held(self) -> frozenset[int]:
        """Partitions that this worker holds."""
        return frozenset(part for part, keeper in self._keepers.items() if not keeper.done())

    async def run(self) -> None:
        """Take and give back partitions until cancelled. Call `close` then."""
        tick_seconds = min(self._lease_ms / 1000 / TICKS, TICK_SECONDS_MAX)
        while True:
            try:
                await self._adjust(await self._share())
            except PyMongoError as error:
                self._log.warning("view_leases_unknown", group=self._group, cause=type(error).__name__)
            await asyncio.sleep(tick_seconds)

    async def close(self) -> None:
        """Give all partitions back, as far as the database answers; the other leases expire."""
        parts, keepers = list(self._keepers), list(self._keepers.values())
        self._keepers.clear()
        await end_tasks(*keepers)
        with suppress(PyMongoError, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                for part in parts:
                    await self._leases.release(self._job(part), pause_ms=0, failures=0)
                await self._workers.delete_one({"_id": self._row_id})

    async def _share(self) -> int:
        """Register this worker and return the number of partitions that it should hold."""
        until = {"$add": ["$$NOW", self._lease_ms]}
        await self._workers.update_one({"_id": self._row_id}, [{"$set": {"expires_at": until}}], upsert=True)
        workers = sorted({self._row_id, *await live_workers(self._workers, self._group)})
        return share_of(workers.index(self._row_id), len(workers))

    async def _adjust(self, share: int) -> None:
        for part in [part for part, keeper in self._keepers.items() if keeper.done()]:
            del self._keepers[part]
        held = sorted(self._keepers)
        for part in held[share:]:
            await self._give_back(part)
        if len(held) < share:
            free = [part for part in range(PARTITIONS) if part not in self._keepers]
            random.shuffle(free)  # Workers that start together do not ask for the same partitions in the same order.
            for part in free:
                if len(self._keepers) >= share:
                    break
                await self._try(part)

    async def _try(self, part: int) -> None:
        job = self._job(part)
        answer = await self._leases.take(job)
        if answer.granted:
            self._keepers[part] = asyncio.create_task(self._keep(job, answer), name=job.name)
            self.changed.set()

    async def _keep(self, job: Job, answer: LeaseAnswer) -> None:
        try:
            await self._leases.keep(job, answer.requested_at)
            self._log.warning("view_lease_lost", lease=job.name)
        finally:
            self.changed.set()

    async def _give_back(self, part: int) -> None:
        async with self.releasing:
            await end_tasks(self._keepers.pop(part))
            self.changed.set()
            await self._leases.release(self._job(part), pause_ms=0, failures=0)

    def _job(self, part: int) -> Job:
        return Job(f"views-{self._group}-{part:02}", 1, _nothing)


async def live_workers(rows: AsyncCollection[Document], group: str) -> list[str]:
    """Return the registrations of a group that have not expired."""
    live: list[Document] = [
        {"$match": {"_id": {"$gt": f"{group}/", "$lt": f"{group}0"}}},
        {"$project": {"live": {"$gt": ["$expires_at", "$$NOW"]}}},
        {"$match": {"live": True}},
    ]
    return [row["_id"] async for row in await rows.aggregate(live)]


def share_of(index: int, workers: int) -> int:
    """Return the number of partitions of the worker with this index, so that shares differ by at most one."""
    return PARTITIONS // workers + (index < PARTITIONS % workers)


async def _nothing() -> int:
    return 0
