"""MongoDB client, typed collections, transactions with explicit concerns, and start-up checks."""

import asyncio
from collections.abc import AsyncGenerator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Generic, Literal, TypeVar

import msgspec
from pymongo import AsyncMongoClient, IndexModel, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern
from pymongo.read_preferences import Nearest, PrimaryPreferred, Secondary, SecondaryPreferred

from guerdon.errors import StartupRefused

Document = dict[str, Any]
Session = AsyncClientSession
T = TypeVar("T", bound=msgspec.Struct)

MAJORITY_JOURNALED = WriteConcern("majority", j=True)
SNAPSHOT = ReadConcern("snapshot")
PRIMARY = ReadPreference.PRIMARY
SERVER_FLOOR = (6, 0)
DUPLICATE_KEY, UNAUTHORIZED, WRITE_CONFLICT = 11000, 13, 112
STALENESS_SECONDS_MAX = 120
"""Maximum time by which a secondary may be behind the primary and still be read from."""
CANCEL_AGAIN_SECONDS = 0.25
ReadFrom = Literal["primary", "primaryPreferred", "secondary", "secondaryPreferred", "nearest"]
_READ_PREFERENCES: dict[ReadFrom, Any] = {
    "primary": PRIMARY,
    "primaryPreferred": PrimaryPreferred(max_staleness=STALENESS_SECONDS_MAX),
    "secondary": Secondary(max_staleness=STALENESS_SECONDS_MAX),
    "secondaryPreferred": SecondaryPreferred(max_staleness=STALENESS_SECONDS_MAX),
    "nearest": Nearest(max_staleness=STALENESS_SECONDS_MAX),
}
_NATIVE = (bytes, datetime)
"""Types that BSON stores unchanged."""

__all__ = [
    "Collection",
    "Database",
    "Document",
    "DuplicateKeyError",
    "PyMongoError",
    "ReadFrom",
    "Session",
    "decode_document",
    "end_tasks",
    "may_try_again",
]


class Collection(Generic[T]):
    """Documents of one struct type. Writes are majority-acknowledged and journaled, alone or in the transaction of a `session`."""

    def __init__(self, raw: AsyncCollection[Document], kind: type[T]) -> None:
        self.raw = raw
        self._kind = kind

    def decode(self, document: Document) -> T:
        return decode_document(document, self._kind)

    @staticmethod
    def encode(value: msgspec.Struct) -> Document:
        return msgspec.to_builtins(value, builtin_types=_NATIVE)

    async def get(self, document_id: str) -> T | None:
        return await self.find_one({"_id": document_id})

    async def find_one(self, where: Mapping[str, Any]) -> T | None:
        document = await self.raw.find_one(where)
        return None if document is None else self.decode(document)

    async def find(self, where: Mapping[str, Any], *, sort: Sequence[tuple[str, int]] = (), limit: int) -> list[T]:
        cursor = self.raw.find(where, limit=limit)
        if sort:
            cursor = cursor.sort(list(sort))
        return [self.decode(document) async for document in cursor]

    async def insert(self, value: T, session: Session | None = None) -> None:
        await self.raw.insert_one(self.encode(value), session=session)

    async def insert_many(self, values: Sequence[T], session: Session) -> None:
        """Insert all values in the session's transaction.

        Raises:
            DuplicateKeyError: A document exists already; the transaction must be aborted.
        """
        try:
            await self.raw.insert_many([self.encode(value) for value in values], session=session)
        except BulkWriteError as error:
            if error.code == DUPLICATE_KEY or f"E{DUPLICATE_KEY}" in str(error.details):
                raise DuplicateKeyError(str(error), DUPLICATE_KEY) from None
            raise


class Database:
    """Database handle of one event loop. Create and close it inside that loop."""

    def __init__(self, url: str, name: str, *, pool_max: int = 32) -> None:
        try:
            self.client: AsyncMongoClient[Document] = AsyncMongoClient(
                url,
                appname="guerdon",
                maxPoolSize=pool_max,
                serverSelectionTimeoutMS=5000,
                connectTimeoutMS=5000,
                heartbeatFrequencyMS=2000,  # A server that returns is noticed within this time; the default is 10 s.
                tz_aware=True,
            )
        except (ConfigurationError, ValueError) as error:
            # The driver's message is left out: it may quote the end of a password as a database name.
            raise StartupRefused(
                f"the MongoDB URL is invalid ({type(error).__name__}): write mongodb://user:password@host:port/?options, with user and "
                "password percent-encoded"
            ) from None
        except OSError as error:
            raise StartupRefused(f"a file named in the MongoDB URL cannot be read: {error.strerror}") from None
        configured = self.client.write_concern.document
        if configured and configured != {"w": "majority"} and configured.get("w") != "majority":
            raise StartupRefused(f"the MongoDB URL sets write concern {configured}; remove it or set w=majority")
        self.raw: AsyncDatabase[Document] = self.client.get_database(
            name, write_concern=MAJORITY_JOURNALED, read_concern=ReadConcern("majority"), read_preference=PRIMARY
        )
        self.sharded = False

    def collection(self, name: str, kind: type[T]) -> Collection[T]:
        return Collection(self.raw[name], kind)

    def reading_from(self, preference: ReadFrom) -> AsyncDatabase[Document]:
        """Return a handle for reports and exports, which reads from the members of the replica set that `preference` names."""
        return self.raw.with_options(read_preference=_READ_PREFERENCES[preference])

    async def close(self) -> None:
        await self.client.close()

    async def ping(self) -> None:
        await self.client.admin.command("ping")

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        """Start a transaction with read concern snapshot, write concern majority with journal, and the primary.

        The concerns of the handle do not apply to a transaction.
        """
        async with self.client.start_session() as session, await session.start_transaction(SNAPSHOT, MAJORITY_JOURNALED, PRIMARY):
            yield session

    async def check(self) -> None:
        """Check that the server cannot lose an acknowledged write.

        Raises:
            StartupRefused: The server is unreachable, standalone or too old, or has a weak default write concern.
        """
        try:
            hello = await self.client.admin.command("hello")
            version = (await self.client.server_info())["versionArray"]
            self.sharded = hello.get("msg") == "isdbgrid"
            if not self.sharded and "setName" not in hello:
                raise StartupRefused(
                    "MongoDB is a standalone server, without transactions; start it with --replSet and run rs.initiate()"
                )
            if tuple(version[:2]) < SERVER_FLOOR:
                raise StartupRefused(f"MongoDB {'.'.join(map(str, version[:3]))} is too old; use 6.0 or later")
            await self._check_concern()
            if not self.sharded:
                await self._check_journal()
        except StartupRefused:
            raise
        except PyMongoError as error:
            raise StartupRefused(f"MongoDB does not answer: {type(error).__name__}: {str(error)[:300]}") from None

    async def _check_concern(self) -> None:
        found = await self._ask("getDefaultRWConcern")
        if found is not None and (default := found.get("defaultWriteConcern", {})).get("w") != "majority":
            raise StartupRefused(
                f"the cluster's default write concern is {default.get('w')!r}, not majority (an arbiter weakens it); "
                "run setDefaultRWConcern with w: 'majority', or replace the arbiter with a data-bearing member"
            )

    async def _check_journal(self) -> None:
        found = await self._ask("replSetGetConfig")
        if found is not None and found["config"].get("writeConcernMajorityJournalDefault") is False:
            raise StartupRefused(
                "writeConcernMajorityJournalDefault is false: a majority write could be rolled back; set it to true"
            )

    async def _ask(self, command: str) -> Document | None:
        """Return the reply of an admin command, or None if the user lacks the privilege; all concerns are explicit anyway."""
        try:
            return await self.client.admin.command(command)
        except OperationFailure as error:
            if error.code == UNAUTHORIZED:
                return None
            raise

    async def has_any(self, collections: Iterable[str]) -> bool:
        """Return True if at least one of the collections exists."""
        return not set(collections).isdisjoint(await self.raw.list_collection_names())

    async def sync_indexes(self, wanted: Mapping[str, Sequence[IndexModel]]) -> None:
        """Create missing collections and indexes. Transactions cannot create collections on every server."""
        present = set(await self.raw.list_collection_names())
        for name in sorted(set(wanted) - present):
            try:
                # Without `check_exists` the server decides, so two processes that start together both continue.
                await self.raw.create_collection(name, check_exists=False)
            except OperationFailure as error:
                if error.code != 48:  # NamespaceExists: another process created it first.
                    raise
        for name, indexes in wanted.items():
            if indexes:
                await self.raw[name].create_indexes(list(indexes))


def decode_document(document: Document, kind: type[T]) -> T:
    """Return a stored document as a struct."""
    return msgspec.convert(document, kind, builtin_types=_NATIVE)


async def end_tasks(*tasks: asyncio.Task[Any]) -> None:
    """Cancel tasks that use the database, and wait for their end.

    One cancellation is not enough: `asyncio.wait_for` of Python 3.11, which the driver uses, ignores it if the awaited answer arrives in the same
    moment, and a task that loops would go on.
    """
    waiting = set(tasks)
    while waiting:
        for task in waiting:
            task.cancel()
        _, waiting = await asyncio.wait(waiting, timeout=CANCEL_AGAIN_SECONDS)


def may_try_again(error: PyMongoError) -> bool:
    """Return True if the transaction wrote nothing, or if a unique `_id` that it inserts shows whether it was committed."""
    return (
        isinstance(error, DuplicateKeyError)
        or error.has_error_label("TransientTransactionError")
        or error.has_error_label("UnknownTransactionCommitResult")
    )
