"""Snapshot reads, for the comparison of documents that are being written."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from pymongo.errors import OperationFailure

from guerdon.database import Database, Session
from guerdon.errors import DatabaseUnavailable

RETRIED_CODES, TRIES_MAX, PAUSE_SECONDS = frozenset({239, 246}), 50, 0.1
"""SnapshotTooOld and SnapshotUnavailable (a collection has just been created) are retried."""
T = TypeVar("T")


async def in_snapshot(database: Database, read: Callable[[Session], Awaitable[T]]) -> T:
    """Return the result of `read` in a snapshot session. `read` may be called several times.

    Raises:
        DatabaseUnavailable: the database does not provide a snapshot.
    """
    for _ in range(TRIES_MAX):
        try:
            async with database.client.start_session(snapshot=True) as session:
                return await read(session)
        except OperationFailure as error:
            if error.code not in RETRIED_CODES:
                raise
            await asyncio.sleep(PAUSE_SECONDS)
    raise DatabaseUnavailable("the database does not provide a snapshot of its current state")
