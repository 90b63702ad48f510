"""Reading the rows of the view group `books`: one snapshot per report, and the sums over partitions."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from guerdon.database import Database, Document, Session
from guerdon.errors import ViewsNotBuilt
from guerdon.projections.models import Aggregate
from guerdon.projections.reading import Views


class Snapshot:
    """The rows of one version of the views at one time."""

    def __init__(self, database: Database, session: Session, version: int, as_of_ms: int, behind_seconds: float) -> None:
        self.database = database
        self.session = session
        self.version = version
        self.as_of_ms = as_of_ms
        """Time up to which every change is included, in milliseconds."""
        self.behind_seconds = behind_seconds

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

    def __init__(self, database: Database, views: Views) -> None:
        self._database = database
        self._views = views

    @asynccontextmanager
    async def open(self) -> AsyncGenerator[Snapshot]:
        """Open a snapshot: all rows of a report are read as they were at one time, and add up to each other.

        Raises:
            ViewsNotBuilt: no version of the views is complete yet.
        """
        # Asked before the snapshot is taken, so that its rows include at least what was committed before `as_of`.
        freshness = await self._views.freshness()
        if freshness.as_of is None or freshness.behind_seconds is None:
            raise ViewsNotBuilt(_NOT_BUILT[freshness.state == "building"], retry_after_seconds=5)
        async with self._database.client.start_session(snapshot=True) as session:
            yield Snapshot(self._database, session, freshness.view_version, freshness.as_of, freshness.behind_seconds)

    async def wait_for(self, transaction_id: str) -> bool:
        """Wait for up to two seconds until a transaction is included. Return True if it is."""
        return await self._views.wait_for(transaction_id)


_NOT_BUILT = {
    True: "a worker builds the views for the first time; try again when it has finished",
    False: "the views have not been built yet; run `guerdon worker` and try again",
}
