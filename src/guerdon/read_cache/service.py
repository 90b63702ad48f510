"""The read cache: an account from its copy if that is new enough, else from the database."""

import asyncio
import random
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from typing import Literal, get_args

from guerdon.clock import Clock
from guerdon.ledger.models import Account
from guerdon.read_cache.breaker import ReadGate
from guerdon.read_cache.copies import Copy, MalformedCopy, unpack, usable_until
from guerdon.read_cache.store import CopyStore, StoreFailed

JITTER_MS_MAX = 12_000
"""Maximum time by which a copy ends earlier, so that copies that were made together do not end together."""
FLOORS_MAX = 50_000
"""Number of accounts of which a process remembers the newest `seq` that it has committed or read."""
Result = Literal["hit", "miss", "stale", "expired", "malformed", "unavailable"]
RESULTS: tuple[Result, ...] = get_args(Result)
"""Results of looking for the copy of an account."""
Load = Callable[[], Awaitable[Account | None]]
"""Function that reads the account from the database."""


class ReadCache:
    """Reads of accounts that may be answered from a copy. Without a store, all reads go to the database."""

    def __init__(self, store: CopyStore | None, clock: Clock, *, kind: str, gate: ReadGate | None = None) -> None:
        """`kind` is the kind of account that is copied."""
        self._store = store
        self._clock = clock
        self._kind = kind
        self._gate = gate or ReadGate()
        self._floors: dict[str, int] = {}
        """Newest `seq` of accounts that this process has committed or read, the least recent first. No read here goes back behind it."""
        self.results: Counter[Result] = Counter()

    @property
    def store(self) -> CopyStore | None:
        return self._store

    @property
    def refused(self) -> int:
        """Number of reads that were refused because too many waited for the database."""
        return self._gate.refused

    async def get(self, account_id: str, load: Load, *, at_least: int = 0) -> Account | None:
        """Return an account whose `seq` is at least `at_least`: its copy, or what `load` reads from the database.

        Raises:
            Overloaded: Too many reads wait for the database.
        """
        if self._store is None:
            return await load()
        found = await self._find(self._store, account_id, max(at_least, self._floors.get(account_id, 0)))
        if found is not None:
            self._raise_floor(found)
            return found
        read_at_ms = self._clock.now_ms()
        async with self._gate.slot():
            account = await load()
        if account is not None:
            self._keep(self._store, account, read_at_ms)
        return account

    def after_commit(self, accounts: Iterable[Account]) -> None:
        """Keep copies of accounts that were just committed. It returns at once; the copies are made in the next turn of the event loop.

        The callers of these commands continue after it, so their next read in this process finds their change. An error cannot fail the commit.
        """
        if self._store is not None:
            asyncio.get_running_loop().call_soon(self._keep_all, self._store, tuple(accounts))

    async def close(self) -> None:
        if self._store is not None:
            await self._store.close()

    async def _find(self, store: CopyStore, account_id: str, at_least: int) -> Account | None:
        """Return the account of a copy that may be used, or None."""
        try:
            value = await store.read(account_id)
        except StoreFailed:
            return self._count("unavailable")
        if value is None:
            return self._count("miss")
        try:
            copy = unpack(value, account_id)
        except MalformedCopy:
            store.discard(account_id, value)
            return self._count("malformed")
        if copy.account.seq < at_least:
            return self._count("stale")
        if copy.valid_until <= self._clock.now_ms():
            return self._count("expired")
        self.results["hit"] += 1
        return copy.account

    def _count(self, result: Result) -> None:
        self.results[result] += 1

    def _keep_all(self, store: CopyStore, accounts: Iterable[Account]) -> None:
        now_ms = self._clock.now_ms()
        for account in accounts:
            if account.kind == self._kind:
                self._keep(store, account, now_ms)

    def _keep(self, store: CopyStore, account: Account, read_at_ms: int) -> None:
        self._raise_floor(account)
        store.offer(Copy(account, usable_until(account, read_at_ms, random.randrange(JITTER_MS_MAX))))

    def _raise_floor(self, account: Account) -> None:
        """Remember the `seq` of an account. Beyond the maximum, the least recent account is forgotten."""
        known = self._floors.pop(account.id, 0)
        self._floors[account.id] = max(known, account.seq)
        if len(self._floors) > FLOORS_MAX:
            del self._floors[next(iter(self._floors))]
