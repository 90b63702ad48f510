"""Notifications that a wallet may have new entries. They carry no data: the listener reads the entries."""

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager

from pymongo.errors import PyMongoError

from guerdon.database import Database, Document, end_tasks
from guerdon.ledger.models import SEQ_DIGITS
from guerdon.ledger.store import ENTRIES

WAIT_MS = 1000
"""Time that the server waits for a change before it answers, and thus the interval of the check for listeners."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.1, 5.0
_PIPELINE: list[Document] = [{"$match": {"operationType": "insert"}}, {"$project": {"documentKey": 1}}]


class EntryWatcher:
    """One change stream on the entries for the process, open while there are listeners.

    The driver resumes it by its token when the primary changes. If that fails, it is opened again, and all listeners are woken, because
    entries may have been missed.
    """

    def __init__(self, database: Database) -> None:
        self._entries = database.raw[ENTRIES]
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self, wallet_id: str) -> Generator[asyncio.Event]:
        """Yield an event that is set when the wallet may have new entries. It is not a queue, so a slow listener costs nothing."""
        news = asyncio.Event()
        self._listeners.setdefault(wallet_id, set()).add(news)
        if self._watching is None or self._watching.done():
            self._watching = asyncio.get_running_loop().create_task(self._watch())
        try:
            yield news
        finally:
            listeners = self._listeners[wallet_id]
            listeners.discard(news)
            if not listeners:
                del self._listeners[wallet_id]

    def wake_all(self) -> None:
        for listeners in self._listeners.values():
            for news in listeners:
                news.set()

    async def close(self) -> None:
        if self._watching is not None:
            await end_tasks(self._watching)

    async def _watch(self) -> None:
        backoff = BACKOFF_START_SECONDS
        while self._listeners:
            try:
                await self._follow()
                backoff = BACKOFF_START_SECONDS
            except (PyMongoError, OSError):
                await asyncio.sleep(random.uniform(backoff / 2, backoff))
                backoff = min(backoff * 2, BACKOFF_CAP_SECONDS)

    async def _follow(self) -> None:
        async with await self._entries.watch(_PIPELINE, max_await_time_ms=WAIT_MS) as changes:
            self.wake_all()
            while self._listeners and changes.alive:
                change = await changes.try_next()
                if change is not None:
                    wallet_id = change["documentKey"]["_id"][: -SEQ_DIGITS - 1]
                    for news in self._listeners.get(wallet_id, ()):
                        news.set()
