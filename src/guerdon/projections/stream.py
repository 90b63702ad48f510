"""The change stream of one worker: the documents that were inserted since a cluster time, for some partitions, in the order of their commits."""

import asyncio
from collections.abc import AsyncGenerator, Iterable
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from pymongo.asynchronous.change_stream import AsyncChangeStream
from pymongo.errors import OperationFailure

from guerdon.clock import to_ms
from guerdon.database import Database, Document, end_tasks
from guerdon.projections.batch import part_of
from guerdon.projections.models import PARTITIONS, Feed, Source, ViewGroup
from guerdon.projections.positions import milliseconds_of, to_number, to_timestamp

BATCH_MAX, LINGER_SECONDS = 500, 0.05
"""Maximum number of changes of a transaction, and the time that the first of them waits for more."""
BUFFER_MAX = 2_000
AWAIT_MS = 500
"""Time that the server waits for a change before it answers without one."""
HISTORY_LOST, NOT_RESUMABLE = 286, 280
_TIMESTAMP_KEY = "82"
"""Type of the first value of a resume token: the cluster time, of eight bytes."""


class HistoryLost(Exception):
    """The oplog no longer has the changes since the position."""


class Change(NamedTuple):
    """An inserted document."""

    source: Source[Any]
    feed: Feed
    row: Document
    part: int
    time: int
    """Cluster time of its commit."""
    at_ms: int
    """Time of its commit in milliseconds by the clock of the database."""


class Pulled(NamedTuple):
    """Changes to apply together, and the time up to which the stream is complete with them."""

    changes: list[Change]
    time: int
    at_ms: int


def pipeline_of(group: ViewGroup, parts: Iterable[int]) -> list[Document]:
    """Return the stages that select and project the changes on the server: a whole change costs more than twice as much to read."""
    wanted = sorted(parts)
    kinds: list[Document] = []
    fields: Document = {
        "clusterTime": 1,
        "wallTime": 1,
        "part": 1,
        "name": "$ns.coll",
        "fullDocument._id": 1,
        "fullDocument.owner": 1,
    }
    feeds = [feed for source in group.sources for feed in source.feeds]
    for feed in feeds:
        kinds.append({"ns.coll": feed.collection, **feed.inserted})
        fields.update(dict.fromkeys([f"fullDocument.{name}" for name in feed.fields], 1))
    if not all(feed.fields for feed in feeds):
        fields = {name: value for name, value in fields.items() if not name.startswith("fullDocument.")} | {"fullDocument": 1}
    stages: list[Document] = [
        {"$match": {"operationType": "insert", "$or": kinds}},
        {"$addFields": {"part": part_of("$fullDocument.owner")}},
    ]
    if len(wanted) < PARTITIONS:
        stages.append({"$match": {"part": {"$in": wanted}}})
    return [*stages, {"$project": fields}]


class ChangeReader:
    """Reads a stream ahead while earlier changes are applied."""

    def __init__(self, group: ViewGroup, stream: AsyncChangeStream[Document], start: int) -> None:
        self._feeds = {feed.collection: (source, feed) for source in group.sources for feed in source.feeds}
        self._stream = stream
        self._changes: list[Change] = []
        self._complete = start
        """Cluster time up to which everything has been read, while no change is waiting."""
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._task = asyncio.create_task(self._read())

    async def pull(self) -> Pulled:
        """Return the next changes, or none with the time up to which there are none.

        Raises:
            HistoryLost: see there.
            PyMongoError: the stream has failed.
        """
        if not self._changes:
            await self._wait(None)
        if self._changes and len(self._changes) < BATCH_MAX:
            deadline = asyncio.get_running_loop().time() + LINGER_SECONDS
            while len(self._changes) < BATCH_MAX and await self._wait(deadline):
                pass
        changes, self._changes = self._changes[:BATCH_MAX], self._changes[BATCH_MAX:]
        if len(self._changes) < BUFFER_MAX:
            self._room.set()
        if not changes:
            return Pulled([], self._complete, milliseconds_of(self._complete))
        return Pulled(changes, changes[-1].time, changes[-1].at_ms)

    async def close(self) -> None:
        await end_tasks(self._task)

    async def _wait(self, deadline: float | None) -> bool:
        """Wait for news from the server; return False if there are none by the deadline."""
        self._news.clear()
        if self._task.done():
            self._raise()
        try:
            async with asyncio.timeout_at(deadline):
                await self._news.wait()
        except TimeoutError:
            return False
        return True

    def _raise(self) -> None:
        error = None if self._task.cancelled() else self._task.exception()
        if isinstance(error, OperationFailure) and error.code in {HISTORY_LOST, NOT_RESUMABLE}:
            raise HistoryLost from error
        if error is not None:
            raise error
        raise HistoryLost  # The database was dropped, which ends a stream.

    async def _read(self) -> None:
        try:
            while self._stream.alive:
                row = await self._stream.try_next()
                if row is None:
                    if not self._changes:
                        self._complete = max(self._complete, time_of(self._stream.resume_token))
                elif (change := self._change(row)) is not None:
                    self._changes.append(change)
                self._news.set()
                if len(self._changes) >= BUFFER_MAX:
                    self._room.clear()
                    await self._room.wait()
        finally:
            self._news.set()

    def _change(self, row: Document) -> Change | None:
        source, feed = self._feeds[row["name"]]
        time = to_number(row["clusterTime"])
        wall = row.get("wallTime")
        at_ms = milliseconds_of(time) if wall is None else to_ms(wall)
        return Change(source, feed, row["fullDocument"], int(row["part"]), time, at_ms)


@asynccontextmanager
async def reading(database: Database, group: ViewGroup, parts: Iterable[int], start: int) -> AsyncGenerator[ChangeReader]:
    """Open a stream at a cluster time. A resume token is not used: it belongs to the pipeline that gave it, and the partitions change.

    Raises:
        HistoryLost: see there.
    """
    reply = await database.client.admin.command("ping")
    if to_number(reply["operationTime"]) < start:
        raise HistoryLost  # The database was restored from an older moment, and the stream would wait until its clock gets there.
    try:
        stream = await database.raw.watch(
            pipeline_of(group, parts),
            start_at_operation_time=to_timestamp(start),
            max_await_time_ms=AWAIT_MS,
            batch_size=BATCH_MAX,
        )
    except OperationFailure as error:
        if error.code in {HISTORY_LOST, NOT_RESUMABLE}:
            raise HistoryLost from error
        raise
    async with stream:
        reader = ChangeReader(group, stream, start)
        try:
            yield reader
        finally:
            await reader.close()


def time_of(token: Any) -> int:
    """Return the cluster time of a resume token, up to which the stream is complete; 0 if its form is not known."""
    data = token.get("_data") if token else None
    if not isinstance(data, str) or not data.startswith(_TIMESTAMP_KEY):
        return 0
    return int(data[2:18], 16)
