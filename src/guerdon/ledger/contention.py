"""Contention leases: processes that change the same account do so in turn, instead of losing races to each other.

An account on which a race was lost is *contended* for a while. A process then starts commits on it only while it holds the account's
lease. A document of the collection `turns` grants the lease to one process after another, in order of request, by the database's clock. A
lease is advisory: the `_id` of the entries decides every race. A process without leases, a slow holder or a lost lease costs time and
nothing else. See docs/adr/0010-turns.md.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime

from pymongo.errors import PyMongoError

from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.ids import random_base62

CONTENTION_LEASES = "turns"
"""Stored name of the collection of contention leases."""
HOLD_SECONDS = 0.06
"""Time in which a holder starts commits."""
LEASE_MS = 400
"""Time after which a lease that was not given up is granted to the next process, which is the cost of a dead holder."""
POLL_SECONDS = 0.003
CALM_SECONDS = 2.0
"""Time without another process after which an account is no longer contended."""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class ContentionLease:
    """State of one contended account in this process."""

    __slots__ = ("account", "begun", "idle", "others_wait", "shared_at", "task", "usable_until", "wanted")

    def __init__(self, account: str) -> None:
        self.account = account
        self.shared_at = 0.0
        """Time at which another process last used the account, in monotonic seconds, like `usable_until`."""
        self.usable_until = 0.0
        self.wanted = False
        """True while commands of this process wait for the lease."""
        self.others_wait = False
        self.begun = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """Record that a batch on the account has started."""
        self.begun.set()
        self.idle.clear()

    def end(self) -> None:
        """Record that the batch has ended."""
        self.begun.clear()
        self.idle.set()


class ContentionLeases:
    """Contended accounts of one process. The committer checks here before it starts a command on one of them."""

    def __init__(self, database: Database, clock: Clock, on_change: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        """Callback for a lease that was granted or is no longer needed."""
        self._process_id = random_base62(12)
        self.by_account: dict[str, ContentionLease] = {}
        """Leases of the contended accounts; empty if no account is contended."""

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        return {lease.task for lease in self.by_account.values() if lease.task is not None}

    @property
    def any_open(self) -> bool:
        now = self._clock.monotonic()
        return any(now < lease.usable_until for lease in self.by_account.values())

    def mark_contended(self, account_ids: Iterable[str]) -> None:
        """Mark accounts as contended because another process changed them first."""
        now = self._clock.monotonic()
        for name, lease in list(self.by_account.items()):
            if lease.task is None and now - lease.shared_at > CALM_SECONDS:
                del self.by_account[name]
        for name in account_ids:
            self.by_account.setdefault(name, ContentionLease(name)).shared_at = now

    def lease_of(self, account_ids: Sequence[str]) -> ContentionLease | None:
        """Return the lease that a command on these accounts needs, or None.

        If several accounts are contended, the smallest id decides, so that two processes do not each hold a lease that the other needs.
        """
        contended = [name for name in account_ids if name in self.by_account]
        return self.by_account[min(contended)] if contended else None

    def is_open(self, lease: ContentionLease) -> bool:
        """Return True if this process holds the lease; otherwise start to request it."""
        if self._clock.monotonic() < lease.usable_until:
            return True
        lease.wanted = True
        if lease.task is None:
            lease.task = asyncio.get_running_loop().create_task(self._keep_lease(lease))
        return False

    async def _keep_lease(self, lease: ContentionLease) -> None:
        """Acquire the lease, let the committer use it and pass it on, for as long as commands wait for it."""
        held = False
        try:
            while lease.wanted:
                lease.wanted = False
                while not held:
                    held = await self._request_lease(lease, joins=True)
                self._on_change()
                await self._wait_until_used(lease)
                lease.usable_until = 0.0
                calm = self._clock.monotonic() - lease.shared_at > CALM_SECONDS
                held = lease.wanted and not calm and await self._request_lease(lease, joins=True, leaves=True)
                if calm or not lease.wanted:
                    await self._give_up_lease(lease)
                if calm:
                    del self.by_account[lease.account]
                    self._on_change()
                    return
        finally:
            lease.task = None

    async def _wait_until_used(self, lease: ContentionLease) -> None:
        """Wait until the lease ends, or until no batch uses it and another process waits."""
        while True:
            await lease.idle.wait()
            left_seconds = lease.usable_until - self._clock.monotonic()
            if lease.idle.is_set():
                if lease.others_wait or left_seconds <= 0:
                    return
                try:
                    async with asyncio.timeout(left_seconds):
                        await lease.begun.wait()
                except TimeoutError:
                    return

    async def _give_up_lease(self, lease: ContentionLease) -> None:
        """Pass the lease on, or delete its document if no other process waits."""
        if not lease.others_wait:
            empty_queue: list[str] = []
            unshared: Document = {"_id": lease.account, "holder": self._process_id, "line": empty_queue}
            try:
                if (await self._send({"query": unshared, "remove": True}))["value"] is not None:
                    return
            except PyMongoError:
                return
        await self._request_lease(lease, joins=False, leaves=True)

    async def _request_lease(self, lease: ContentionLease, *, joins: bool, leaves: bool = False) -> bool:
        """Join the queue (`joins`), give up the lease (`leaves`), or both; return True if this process holds the lease now.

        If it joined and does not hold the lease, it has slept for an estimate of the remaining wait.
        """
        requested_at = self._clock.monotonic()
        try:
            reply = await self._send(
                {
                    "query": {"_id": lease.account},
                    "update": _lease_update(self._process_id, joins=joins, leaves=leaves),
                    "upsert": True,
                    "new": True,
                    "fields": {"holder": 1, "line": 1, "took_ms": 1, "left_ms": {"$subtract": ["$until", "$$NOW"]}},
                }
            )
        except PyMongoError:
            # Without a lease the race decides. If the database is unavailable, the commit reports it.
            lease.usable_until = requested_at + HOLD_SECONDS
            return joins
        found, now = reply["value"], self._clock.monotonic()
        queue: list[str] = found["line"]
        lease.others_wait = bool(queue)
        if queue or found["holder"] not in {self._process_id, None}:
            lease.shared_at = now
        if found["holder"] == self._process_id:
            lease.usable_until = min(now + HOLD_SECONDS, requested_at + found["left_ms"] / 1000)
            return True
        if joins:
            # The shorter the expected wait, the sooner the next request.
            rest_ms = max(found["took_ms"] - (LEASE_MS - found["left_ms"]), 0) + found["took_ms"] * queue.index(self._process_id)
            await asyncio.sleep(max(rest_ms / 2000, POLL_SECONDS) * random.uniform(0.8, 1.2))
        return False

    async def _send(self, command: Document) -> Document:
        """Run `findAndModify` without waiting for the journal: a lease need not survive a failover."""
        return await self._database.raw.command({"findAndModify": CONTENTION_LEASES, **command, "writeConcern": {"w": 1}})


def _lease_update(process_id: str, *, joins: bool, leaves: bool) -> list[Document]:
    """Return the update of a lease document: its `holder`, `until`, the queue (`line`) and the duration of the last lease (`took_ms`).

    The caller joins the queue first. If the lease is vacant then (never held, given up, or expired), the first of the queue gets it.
    """
    empty_queue: list[str] = []
    mine = {"$eq": ["$holder", process_id]}
    expired = {"$lte": [{"$ifNull": ["$until", _NEVER]}, "$$NOW"]}
    queue: Document = {"$ifNull": ["$line", empty_queue]}
    if joins:
        keeps_queue: list[Document] = [{"$in": [process_id, queue]}]
        if not leaves:
            keeps_queue.append({"$and": [mine, {"$not": [expired]}]})
        queue = {"$cond": [{"$or": keeps_queue}, queue, {"$concatArrays": [queue, [process_id]]}]}
    until = {"$cond": [{"$eq": ["$line", empty_queue]}, "$$NOW", {"$add": ["$$NOW", LEASE_MS]}]}
    took_ms = {"$subtract": [LEASE_MS, {"$subtract": ["$until", "$$NOW"]}]}
    return [
        {
            "$set": {
                "line": queue,
                "vacant": {"$or": [expired, mine]} if leaves else expired,
                "took_ms": {"$ifNull": ["$took_ms", 0]},
            }
        },
        {
            "$set": {
                "holder": {"$cond": ["$vacant", {"$ifNull": [{"$first": "$line"}, None]}, "$holder"]},
                "until": {"$cond": ["$vacant", until, "$until"]},
                "took_ms": {"$cond": [mine, took_ms, "$took_ms"]} if leaves else "$took_ms",
                "line": {"$cond": ["$vacant", {"$slice": ["$line", 1, {"$max": [1, {"$size": "$line"}]}]}, "$line"]},
            }
        },
        {"$unset": "vacant"},
    ]
