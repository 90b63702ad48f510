"""Leases that decide which worker runs a job. The database grants them in one atomic step, by its own clock."""

import asyncio
from contextlib import suppress
from typing import Any

from msgspec import Struct, to_builtins
from pymongo import ReturnDocument

from guerdon.database import Database, Document, DuplicateKeyError, PyMongoError
from guerdon.workers.models import LEASES, Job, Lease
from guerdon.workers.rules import pause_ms_max

NOW: Document = {"$toLong": "$$NOW"}
"""Time of the server in milliseconds. It is constant within a command."""
RENEWALS = 4
"""Number of renewals within the duration of a lease."""
TRUSTED_SHARE = 5 / 6
"""Share of the duration of a lease after which its holder stops the job, so that the job has ended before another worker starts it."""


class LeaseAnswer(Struct, frozen=True):
    """Answer to a request for a lease."""

    granted: bool
    wait_ms: int
    """Milliseconds to wait before the next request; at most 0 if the lease is granted or free."""
    failures: int
    """Number of consecutive failed runs before this one."""
    requested_at: float
    """Time of the request, in seconds of the clock of the event loop. The lease cannot have begun earlier."""


class Leases:
    """Leases of one worker. `holder` is the unique name of the worker."""

    def __init__(self, database: Database, holder: str, lease_ms: int) -> None:
        self._rows = database.collection(LEASES, Lease).raw
        self._holder = holder
        self._lease_ms = lease_ms

    async def take(self, job: Job) -> LeaseAnswer:
        """Take the lease of the job if it is free and the job is due; otherwise return the time to wait."""
        requested_at = asyncio.get_running_loop().time()
        # The worker already holds the lease if the answer to an earlier request was lost.
        own = {"$eq": ["$holder", self._holder]}
        free = {"$lte": ["$expires_at", NOW]}
        # A due time after the longest pause is invalid: the schedule was slower when it was written, or the clock of the server was wrong.
        too_late = {"$gt": ["$due_at", {"$add": [NOW, pause_ms_max(job.every_ms)]}]}
        due = {"$or": [{"$lte": ["$due_at", NOW]}, too_late]}
        taken = {"holder": self._holder, "expires_at": self._expiry(), "last_run_at": NOW}
        steps: list[Document] = [
            {"$replaceWith": {"$mergeObjects": [to_builtins(Lease(job.name)), "$$ROOT"]}},
            {"$replaceWith": {"$cond": [{"$or": [own, {"$and": [free, due]}]}, {"$mergeObjects": ["$$ROOT", taken]}, "$$ROOT"]}},
        ]
        wait: Document = {"$subtract": [{"$max": ["$expires_at", "$due_at"]}, NOW]}
        try:
            row: Any = await self._rows.find_one_and_update(
                {"_id": job.name},
                steps,
                projection={"holder": 1, "failures": 1, "wait_ms": wait},
                upsert=True,
                return_document=ReturnDocument.AFTER,
            )
        except DuplicateKeyError:  # Another worker has inserted the row of a new job at the same time.
            return LeaseAnswer(granted=False, wait_ms=0, failures=0, requested_at=requested_at)
        granted = row["holder"] == self._holder
        return LeaseAnswer(granted, 0 if granted else int(row["wait_ms"]), int(row["failures"]), requested_at)

    async def keep(self, job: Job, requested_at: float) -> None:
        """Renew the lease. Return when it is lost or may expire soon.

        The remaining time is measured by a monotonic clock from the request of the last successful renewal, so the clocks of the worker and the
        database may differ.
        """
        trusted_seconds = self._lease_ms / 1000 * TRUSTED_SHARE
        with suppress(TimeoutError):
            async with asyncio.timeout_at(requested_at + trusted_seconds) as deadline:
                while True:
                    await asyncio.sleep(self._lease_ms / 1000 / RENEWALS)
                    requested_at = asyncio.get_running_loop().time()
                    try:
                        if not await self._change(job, {"expires_at": self._expiry()}):
                            return
                    except PyMongoError:
                        continue
                    deadline.reschedule(requested_at + trusted_seconds)

    async def release(self, job: Job, *, pause_ms: int, failures: int) -> None:
        """Release the lease, if the worker still holds it. The job is due `pause_ms` after the start of the last run."""
        due_at = {"$add": ["$last_run_at", pause_ms]}
        await self._change(job, {"holder": None, "expires_at": 0, "due_at": due_at, "failures": failures})

    async def _change(self, job: Job, values: Document) -> bool:
        """Change the row if the worker holds the lease; return True if it does."""
        result = await self._rows.update_one({"_id": job.name, "holder": self._holder}, [{"$set": values}])
        return result.matched_count == 1

    def _expiry(self) -> Document:
        return {"$add": [NOW, self._lease_ms]}
