"""The MongoDB client of one event loop, typed collections, transactions with explicit concerns, and the start-up checks."""

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Generic, TypeVar

import msgspec
from pymongo import AsyncMongoClient, IndexModel, ReadPreference, WriteConcern
from pymongo.asynchronous.client_session import AsyncClientSession
from pymongo.asynchronous.collection import AsyncCollection
from pymongo.asynchronous.database import AsyncDatabase
from pymongo.errors import BulkWriteError, ConfigurationError, DuplicateKeyError, OperationFailure, PyMongoError
from pymongo.read_concern import ReadConcern

from guerdon.errors import StartupRefused

Document = dict[str, Any]
Session = AsyncClientSession
T = TypeVar("T", bound=msgspec.Struct)

MAJORITY_JOURNALED = WriteConcern("majority", j=True)
SNAPSHOT = ReadConcern("snapshot")
PRIMARY = ReadPreference.PRIMARY
SERVER_FLOOR = (6, 0)
DUPLICATE_KEY, UNAUTHORIZED, WRITE_CONFLICT = 11000, 13, 112
_NATIVE = (bytes, datetime)
"""What BSON holds as it is."""

__all__ = ["Collection", "Database", "Document", "DuplicateKeyError", "PyMongoError", "Session", "may_try_again"]


class Collection(Generic[T]):
    """Documents of one struct type. A write is majority-acknowledged and journaled, alone or in a `session`'s transaction."""

    def __init__(self, raw: AsyncCollection[Document], kind: type[T]) -> None:
        self.raw = raw
        self._kind = kind

    def decode(self, document: Document) -> T:
        return msgspec.convert(document, self._kind, builtin_types=_NATIVE)

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
        """Insert all of them in the session's transaction.

        Raises:
            DuplicateKeyError: one exists already; the transaction is lost.
        """
        try:
            await self.raw.insert_many([self.encode(value) for value in values], session=session)
        except BulkWriteError as error:
            if error.code == DUPLICATE_KEY or f"E{DUPLICATE_KEY}" in str(error.details):
                raise DuplicateKeyError(str(error), DUPLICATE_KEY) from None
            raise


class Database:
    """One process's handle; create it inside the running loop and close it there."""

    def __init__(self, url: str, name: str, *, pool_max: int = 32) -> None:
        try:
            self.client: AsyncMongoClient[Document] = AsyncMongoClient(
                url,
                appname="guerdon",
                maxPoolSize=pool_max,
                serverSelectionTimeoutMS=5000,
                connectTimeoutMS=5000,
                heartbeatFrequencyMS=2000,  # A server that was lost for a moment is noticed again within it; the default is 10 s.
                tz_aware=True,
            )
        except (ConfigurationError, ValueError) as error:
            # Not the driver's sentence: it quotes what it takes for a database name, which may be the end of a password.
            raise StartupRefused(
                f"the MongoDB URL is not usable ({type(error).__name__}): it is mongodb://user:password@host:port/?options with user and "
                "password percent-encoded"
            ) from None
        except OSError as error:
            raise StartupRefused(f"a file that the MongoDB URL names cannot be read: {error.strerror}") from None
        asked = self.client.write_concern.document
        if asked and asked != {"w": "majority"} and asked.get("w") != "majority":
            raise StartupRefused(f"the MongoDB URL asks for write concern {asked}; remove it or say w=majority")
        self.raw: AsyncDatabase[Document] = self.client.get_database(
            name, write_concern=MAJORITY_JOURNALED, read_concern=ReadConcern("majority"), read_preference=PRIMARY
        )
        self.sharded = False

    def collection(self, name: str, kind: type[T]) -> Collection[T]:
        return Collection(self.raw[name], kind)

    async def close(self) -> None:
        await self.client.close()

    async def ping(self) -> None:
        await self.client.admin.command("ping")

    @asynccontextmanager
    async def transaction(self) -> AsyncGenerator[Session]:
        """One transaction at snapshot / majority+journal / primary. Concerns of the handle do not reach a transaction."""
        async with self.client.start_session() as session, await session.start_transaction(SNAPSHOT, MAJORITY_JOURNALED, PRIMARY):
            yield session

    async def check(self) -> None:
        """Refuse a server on which an acknowledged write could be lost.

        Raises:
            StartupRefused: unreachable, standalone, too old, or a weak write concern default.
        """
        try:
            hello = await self.client.admin.command("hello")
            version = (await self.client.server_info())["versionArray"]
            self.sharded = hello.get("msg") == "isdbgrid"
            if not self.sharded and "setName" not in hello:
                raise StartupRefused(
                    "MongoDB is a standalone server, which has no transactions; start it with --replSet and run rs.initiate()"
                )
            if tuple(version[:2]) < SERVER_FLOOR:
                raise StartupRefused(f"MongoDB {'.'.join(map(str, version[:3]))} is too old; 6.0 is the oldest that is supported")
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
                "run setDefaultRWConcern with w: 'majority' or replace the arbiter by a data-bearing member"
            )

    async def _check_journal(self) -> None:
        found = await self._ask("replSetGetConfig")
        if found is not None and found["config"].get("writeConcernMajorityJournalDefault") is False:
            raise StartupRefused(
                "writeConcernMajorityJournalDefault is false: a majority write could be rolled back; set it to true"
            )

    async def _ask(self, command: str) -> Document | None:
        """Return the answer, or None where a user with no more rights than it needs may not ask: our own concerns are explicit anyway."""
        try:
            return await self.client.admin.command(command)
        except OperationFailure as error:
            if error.code == UNAUTHORIZED:
                return None
            raise

    async def sync_indexes(self, wanted: Mapping[str, Sequence[IndexModel]]) -> None:
        """Create the collections and indexes that are missing. Transactions cannot create collections on the fly everywhere."""
        present = set(await self.raw.list_collection_names())
        for name in sorted(set(wanted) - present):
            try:
                # Without `check_exists` the server decides, and two processes that start together both go on.
                await self.raw.create_collection(name, check_exists=False)
            except OperationFailure as error:
                if error.code != 48:  # NamespaceExists: another process was quicker.
                    raise
        for name, indexes in wanted.items():
            if indexes:
                await self.raw[name].create_indexes(list(indexes))


def may_try_again(error: PyMongoError) -> bool:
    """True when a transaction has written nothing, or when a unique `_id` that it has written will tell whether it was committed."""
    return (
        isinstance(error, DuplicateKeyError)
        or error.has_error_label("TransientTransactionError")
        or error.has_error_label("UnknownTransactionCommitResult")
    )
