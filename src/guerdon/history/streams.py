"""Live changes of a wallet as server-sent events."""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable

import msgspec
from falcon.asgi import SSEvent

from guerdon.clock import Clock
from guerdon.database import Database, PyMongoError
from guerdon.errors import CallerError, Overloaded
from guerdon.history.entry_watcher import EntryWatcher
from guerdon.history.models import balance_event, entry_event
from guerdon.history.stream_slots import StreamSlots
from guerdon.ledger.models import SEQ_DIGITS, Account, Entry, entry_id
from guerdon.ledger.store import ENTRIES, decode_entry
from guerdon.permissions import Actor, scope
from guerdon.wallets.service import Wallets

STREAMS_MAX = 1000
STREAM_SECONDS = 900
"""Maximum lifetime of an access token."""
STUCK_SECONDS = STREAM_SECONDS + 60
HEARTBEAT_SECONDS = 15.0
RESUME_MAX = 1000
READ_MAX = 100
READS_AT_ONCE = 4
"""Maximum number of concurrent reads of all streams, so that they leave database connections for commits."""
RETRY_SECONDS = 1.0
RECHECK_SECONDS = 15.0
"""Interval at which a stream checks its caller's permission again; the answer may be half a minute old."""
READERS = scope("wallets:read", own=True)
_encode = msgspec.json.Encoder().encode
Events = AsyncGenerator[SSEvent | None]
RecheckActor = Callable[[Actor], Awaitable[Actor]]
"""Function that returns a caller with its current permissions, or raises `Unauthenticated`."""


class Streams:
    """Open streams of one process.

    A stream is a position in a wallet's history and a flag. When the flag is set, by the watcher, a heartbeat or the start, the stream
    reads the entries after its position. `seq` has no gaps, so no entry is lost or sent twice, even if the watcher missed some.
    """

    def __init__(
        self,
        wallets: Wallets,
        *,
        database: Database,
        clock: Clock,
        recheck_actor: RecheckActor,
        streams_max: int = STREAMS_MAX,
        heartbeat_seconds: float = HEARTBEAT_SECONDS,
    ) -> None:
        self._wallets = wallets
        self._entries = database.raw[ENTRIES]
        self._clock = clock
        self._recheck = recheck_actor
        self._heartbeat_seconds = heartbeat_seconds
        self._slots = StreamSlots(streams_max, STUCK_SECONDS)
        self._reads = asyncio.Semaphore(READS_AT_ONCE)
        self._ending = False
        self.entry_watcher = EntryWatcher(database)

    def __len__(self) -> int:
        return len(self._slots)

    async def open(self, actor: Actor, wallet_id: str, last_seq: int | None) -> Events:
        """Return the events of a wallet from now, or from the entry after `last_seq`.

        Raises:
            NotFound: The wallet does not exist or is not the caller's.
            Overloaded: Too many streams are open in this process, or it is shutting down.
        """
        account = await self._wallets.get_account(actor, wallet_id)
        if self._ending:
            raise Overloaded("the process is shutting down; try again", retry_after_seconds=1)
        return self._slots.take(self._events(actor, account, last_seq))

    def end(self) -> None:
        """End every stream. Clients reconnect with the last id that they received."""
        self._ending = True
        self.entry_watcher.wake_all()

    async def close(self) -> None:
        self.end()
        await self.entry_watcher.close()

    async def _events(self, actor: Actor, account: Account, last_seq: int | None) -> Events:
        checked_at = self._clock.monotonic()
        ends_at = checked_at + STREAM_SECONDS
        with self.entry_watcher.listening(account.id) as news:
            seq = account.seq
            if last_seq is not None and 0 <= account.seq - last_seq <= RESUME_MAX:
                seq = last_seq
            else:
                state = balance_event(self._wallets.state_of(account), reset=last_seq is not None)
                yield SSEvent(event="balance", event_id=str(seq), data=_encode(state))
            while True:
                news.clear()  # Before the read, so that an entry written during it sets the flag again.
                ending = (
                    self._ending
                )  # Before the read too, so that an ending stream has sent every entry committed before its end.
                entries = await self._read_after(account, seq)
                for entry in entries or ():
                    seq = entry.seq
                    yield SSEvent(event="entry", event_id=str(seq), data=_encode(entry_event(entry)))
                now = self._clock.monotonic()
                if ending or now >= ends_at:
                    return
                if now >= checked_at + RECHECK_SECONDS:
                    checked_at = now
                    if not await self._may_follow(actor, account):
                        return
                if entries is not None and len(entries) == READ_MAX:
                    continue
                if not await _set_within(news, RETRY_SECONDS if entries is None else self._heartbeat_seconds):
                    yield None  # A comment. It keeps the connection open and shows when the client is gone.

    async def _may_follow(self, actor: Actor, account: Account) -> bool:
        """Return True if the caller may still read the wallet, or if the database does not answer."""
        try:
            now = await self._recheck(actor)
            READERS.check(now)
            now.require_reach(account.owner)
        except CallerError:
            return False
        except PyMongoError:
            return True
        return True

    async def _read_after(self, account: Account, seq: int) -> list[Entry] | None:
        """Return the next entries, or None if the database does not answer, so that a stream survives a failover."""
        newest = entry_id(account.id, 10**SEQ_DIGITS - 1)
        where = {"_id": {"$gt": entry_id(account.id, seq), "$lte": newest}, "owner": account.owner}
        try:
            async with self._reads:
                return [decode_entry(row) async for row in self._entries.find(where, limit=READ_MAX).sort("_id", 1)]
        except PyMongoError:
            return None


async def _set_within(news: asyncio.Event, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await news.wait()
    except TimeoutError:
        return False
    return True
