"""Tells who listens that a wallet may have new entries. It carries no data: whoever is woken reads the entries themselves."""

import asyncio
import random
from collections.abc import Generator
from contextlib import contextmanager, suppress

from pymongo.errors import PyMongoError

from guerdon.database import Database, Document
from guerdon.ledger.models import SEQ_DIGITS
from guerdon.ledger.store import ENTRIES

WAIT_MS = 1000
"""How long the server waits for a change before it answers that there is none; so often it is asked whether anybody listens still."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.1, 5.0
_PIPELINE: list[Document] = [{"$match": {"operationType": "insert"}}, {"$project": {"documentKey": 1}}]


class EntryWatcher:
    """One change stream on the entries for the whole process, open while somebody listens.

    The driver resumes it by its token when the primary changes. When that fails too it is opened anew, and everybody is woken, since
    nobody knows what was missed.
    """

    def __init__(self, database: Database) -> None:
        self._entries = database.raw[ENTRIES]
        self._listeners: dict[str, set[asyncio.Event]] = {}
        self._watching: asyncio.Task[None] | None = None

    @contextmanager
    def listening(self, wallet_id: str) -> Generator[asyncio.Event]:
        """Give a flag that is set when the wallet may have new entries; it is not a queue, so a slow listener costs nothing."""
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
            self._watching.cancel()
            with suppress(asyncio.CancelledError):
                await self._watching

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
