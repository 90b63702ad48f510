"""Reads of one moment, for whoever compares documents with each other while they are written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import OperationFailure

from guerdon.database import Database, Session
from guerdon.errors import DatabaseUnavailable

CODES, TRIES, PAUSE_SECONDS = frozenset({239, 246}), 50, 0.1
"""SnapshotTooOld, SnapshotUnavailable (a collection has just been made): read again."""
T = TypeVar("T")


async def in_snapshot(database: Database, read: Callable[[Session], Awaitable[T]]) -> T:
    """Let `read` see one moment of the database; it may be called several times.

    Raises:
        DatabaseUnavailable: the database gives no snapshot.
    """
    for _ in range(TRIES):
        try:
            async with database.client.start_session(snapshot=True) as session:
                return await read(session)
        except OperationFailure as error:
            if error.code not in CODES:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    raise DatabaseUnavailable("the database gives no snapshot of its present state")
