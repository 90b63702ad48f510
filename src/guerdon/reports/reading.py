"""Reading the rows of the view group `books`: one snapshot per report, sums over partitions, and freshness."""

import asyncio
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from guerdon.clock import Clock
from guerdon.database import Database, Document, Session
from guerdon.errors import ViewsNotBuilt
from guerdon.projections.models import PARTITIONS, Aggregate
from guerdon.views.models import ACCOUNT_STATES, BOOKS, BOOKS_VERSION

POSITIONS = "positions"
WAIT_SECONDS, WAIT_STEP_SECONDS = 2.0, 0.05
"""Longest wait for a transaction, and the interval at which the view is looked at."""


class Snapshot:
    """The rows of one version of the views at one time."""

    def __init__(self, database: Database, session: Session, version: int, as_of_ms: int) -> None:
        self.database = database
        self.session = session
        self.version = version
        self.as_of_ms = as_of_ms
        """Time up to which every change is included."""

    async def sums(self, aggregate: Aggregate, where: Mapping[str, Any], by: Sequence[str]) -> list[Document]:
        """Return the sums of the rows that match `where`, as documents with the fields of `by` and all sums of the aggregate."""
        pipeline: list[Document] = [
            {"$match": {"version": self.version, **where}},
            {"$group": {"_id": {name: f"${name}" for name in by}, **{name: {"$sum": f"${name}"} for name in aggregate.sums}}},
        ]
        rows = await self.database.raw[aggregate.collection].aggregate(pipeline, session=self.session)
        return [{**row.pop("_id"), **row} async for row in rows]


class ViewReader:
    """Access to the views for reports."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Snapshot]:
        """Open a snapshot: all rows of a report are read as they were at one time.

        Raises:
            ViewsNotBuilt: no version of the views is complete yet.
        """
        async with self._database.client.start_session(snapshot=True) as session:
            version = BOOKS_VERSION
            yield Snapshot(self._database, session, version, await self._as_of(version, session))

    async def wait_for(self, account: str, seq: int) -> bool:
        """Wait until the entry `seq` of an account is included. Return False if it is not after `WAIT_SECONDS`."""
        ends_at = self._clock.monotonic() + WAIT_SECONDS
        states = self._database.raw[ACCOUNT_STATES]
        while True:
            row = await states.find_one({"_id": f"{BOOKS_VERSION}|{account}"}, {"seq": 1})
            if row is not None and row["seq"] >= seq:
                return True
            if self._clock.monotonic() >= ends_at:
                return False
            await asyncio.sleep(WAIT_STEP_SECONDS)

    async def _as_of(self, version: int, session: Session) -> int:
        names = [f"{BOOKS}@{version}/{part}" for part in range(PARTITIONS)]
        rows = await self._database.raw[POSITIONS].find({"_id": {"$in": names}}, {"at": 1}, session=session).to_list()
        if len(rows) < PARTITIONS:
            raise ViewsNotBuilt("the views have not been built yet; run a worker and try again", retry_after_seconds=5)
        return min(row["at"] for row in rows)
