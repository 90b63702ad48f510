"""Which worker may run a job. The database decides, in one atomic step and by its own clock."""

import asyncio
from contextlib import suppress
from typing import Any

from msgspec import Struct, to_builtins
from pymongo import ReturnDocument

from guerdon.database import Database, Document, DuplicateKeyError, PyMongoError
from guerdon.workers.models import LEASES, Job, Lease
from guerdon.workers.rules import pause_ms_max

NOW: Document = {"$toLong": "$$NOW"}
"""The server's time in milliseconds, one value for the whole of a command."""
RENEWALS = 4
"""How often a lease is renewed in the time it lasts."""
TRUSTED_SHARE = 5 / 6
"""The share of a lease after which its holder stops to count on it, so that a job has ended when another worker begins it."""


class LeaseAnswer(Struct, frozen=True):
    """The answer to a worker that asked for a job."""

    granted: bool
    wait_ms: int
    """How long to wait before asking again; at most 0 when the lease is granted or free."""
    failures: int
    """Failed runs in a row before this one."""
    asked_at: float
    """When it was asked for, in seconds of the event loop's clock: the lease cannot have begun earlier."""


class Leases:
    """The leases as one worker sees them; `holder` is its name, and no other worker's."""

    def __init__(self, database: Database, holder: str, lease_ms: int) -> None:
        self._rows = database.collection(LEASES, Lease).raw
        self._holder = holder
        self._lease_ms = lease_ms

    async def take(self, job: Job) -> LeaseAnswer:
        """Take the job's lease if nobody has it and the job is due; else tell how long to wait."""
        asked_at = asyncio.get_running_loop().time()
        # Ours already: the answer to an earlier request was lost.
        ours = {"$eq": ["$holder", self._holder]}
        free = {"$lte": ["$expires_at", NOW]}
        # Later than any pause can be: the job comes more often now than when that was written, or the server's clock was wrong.
        absurd = {"$gt": ["$due_at", {"$add": [NOW, pause_ms_max(job.every_ms)]}]}
        due = {"$or": [{"$lte": ["$due_at", NOW]}, absurd]}
        taken = {"holder": self._holder, "expires_at": self._until(), "last_run_at": NOW}
        steps: list[Document] = [
            {"$replaceWith": {"$mergeObjects": [to_builtins(Lease(job.name)), "$$ROOT"]}},
            {"$replaceWith": {"$cond": [{"$or": [ours, {"$and": [free, due]}]}, {"$mergeObjects": ["$$ROOT", taken]}, "$$ROOT"]}},
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
        except DuplicateKeyError:  # Another worker has inserted the row of a new job at the same moment.
            return LeaseAnswer(granted=False, wait_ms=0, failures=0, asked_at=asked_at)
        granted = row["holder"] == self._holder
        return LeaseAnswer(granted, 0 if granted else int(row["wait_ms"]), int(row["failures"]), asked_at)

    async def keep(self, job: Job, asked_at: float) -> None:
        """Renew the lease, and return as soon as it cannot be counted on any more: another worker has it, or may soon.

        How long the lease can be trusted is measured from the sending of what the database has answered, by a clock that does
        not jump; the two clocks need not agree on the time of day.
        """
        trusted_seconds = self._lease_ms / 1000 * TRUSTED_SHARE
        with suppress(TimeoutError):
            async with asyncio.timeout_at(asked_at + trusted_seconds) as deadline:
                while True:
                    await asyncio.sleep(self._lease_ms / 1000 / RENEWALS)
                    asked_at = asyncio.get_running_loop().time()
                    try:
                        if not await self._change(job, {"expires_at": self._until()}):
                            return
                    except PyMongoError:
                        continue
                    deadline.reschedule(asked_at + trusted_seconds)

    async def release(self, job: Job, *, pause_ms: int, failures: int) -> None:
        """Give the lease back, if it is still ours; the job is due `pause_ms` after the beginning of the run that has ended."""
        due_at = {"$add": ["$last_run_at", pause_ms]}
        await self._change(job, {"holder": None, "expires_at": 0, "due_at": due_at, "failures": failures})

    async def _change(self, job: Job, values: Document) -> bool:
        """Change the row if the lease is ours, and tell whether it was."""
        result = await self._rows.update_one({"_id": job.name, "holder": self._holder}, [{"$set": values}])
        return result.matched_count == 1

    def _until(self) -> Document:
        return {"$add": [NOW, self._lease_ms]}
