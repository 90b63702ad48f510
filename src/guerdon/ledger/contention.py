"""Contention leases: processes that change the same accounts do so in turn, instead of losing races to each other.

An account on which a race was lost is *contended* for a while. A process then starts commits on it only while it holds a lease that covers
the account. One lease covers all contended accounts that the commands of a process need, and one document of the collection `turns` holds
the queue of all leases, so a transfer between two contended accounts never waits for two leases. Leases are granted in order of request, by
the database's clock. A lease is advisory: the `_id` of the entries decides every race. A process without a lease, a slow holder or a lost
lease costs time and nothing else. See docs/adr/0010-turns.md.
"""

import asyncio
import random
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from msgspec import Struct
from pymongo.errors import PyMongoError

from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.ids import random_base62
from guerdon.ledger.wake_ups import WakeUps

CONTENTION_LEASES = "turns"
"""Stored name of the collection of contention leases."""
QUEUE_ID = "queue"
"""`_id` of the document that holds all leases, in order of request."""
HOLD_SECONDS = 0.06
"""Time in which a holder starts commits. It gives up the lease earlier when it has no more commands."""
LEASE_MS = 400
"""Time after which a lease that was not given up ends, which is the cost of a dead holder."""
POLL_SECONDS, POLL_NEXT_SECONDS, POLL_WOKEN_SECONDS = 0.002, 0.004, 0.05
"""Minimum time between two looks at the queue, the maximum for the process that is next, and the time if the others wake this process."""
CALM_SECONDS = 2.0
"""Time without another process after which an account is no longer contended."""
ACCOUNTS_MAX = 100
"""Number of accounts above which a lease covers no further command."""


class QueuedLease(Struct, frozen=True):
    """One lease of the queue as stored. It is granted when no earlier one covers any of its accounts."""

    process: str
    number: int
    """Number of the lease in its process, which a wake-up carries."""
    accounts: frozenset[str]
    until: datetime | None = None
    """End of the lease; None if it has not been granted."""


class LeaseQueue(Struct, frozen=True):
    """The queue as read, with the time of the server."""

    now: datetime
    line: tuple[QueuedLease, ...] = ()
    took_ms: int = 0
    """Duration of the lease that was given up last."""

    def lease_of(self, process_id: str) -> QueuedLease | None:
        return next((lease for lease in self.line if lease.process == process_id), None)

    def before(self, own: QueuedLease) -> list[QueuedLease]:
        """Return the leases for which `own` waits."""
        return [lease for lease in self.line[: self.line.index(own)] if not lease.accounts.isdisjoint(own.accounts)]

    def poll_seconds(self, own: QueuedLease) -> float:
        """Return the time until the next look at the queue: half of the expected wait, which follows from the duration of the last lease."""
        rest_ms = 0.0
        is_next = True
        for lease in self.before(own):
            is_next = is_next and lease.until is not None
            elapsed_ms = 0.0 if lease.until is None else LEASE_MS - (lease.until - self.now).total_seconds() * 1000
            rest_ms += max(self.took_ms - elapsed_ms, 0)
        seconds = max(rest_ms / 2000, POLL_SECONDS)
        return min(seconds, POLL_NEXT_SECONDS) if is_next else seconds

    def has_expired(self, own: QueuedLease) -> bool:
        """Return True if a lease before `own` has ended and was not given up."""
        return any(lease.until is not None and lease.until <= self.now for lease in self.before(own))


class ContentionLeases:
    """Contended accounts of one process, and its lease. The committer checks here before it starts a command on one of them."""

    def __init__(self, database: Database, clock: Clock, on_change: Callable[[frozenset[str]], None]) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        """Callback for a lease that was granted, with its accounts, or that is no longer needed, with none."""
        self._process_id = random_base62(12)
        self.by_account: dict[str, float] = {}
        """Contended accounts, with the monotonic time at which another process last used each; empty if no account is contended."""
        self._wanted: dict[tuple[str, ...], None] = {}
        """Contended accounts of each command that waits, in order of arrival."""
        self._used: set[str] = set()
        """Accounts that the current or the last lease was used for."""
        self._held: frozenset[str] = frozenset()
        self._usable_until = 0.0
        """Monotonic time until which commits may start on the accounts in `_held`."""
        self._number = 0
        """Number of the last lease that was requested."""
        self._wake_ups = WakeUps(self._process_id)
        self._idle = asyncio.Event()
        self._idle.set()
        self.task: asyncio.Task[None] | None = None

    @property
    def is_usable(self) -> bool:
        """True while this process holds a lease."""
        return self._clock.monotonic() < self._usable_until

    def mark_contended(self, account_ids: Iterable[str]) -> None:
        """Mark accounts as contended because another process changed them first."""
        if self.task is None:
            self._forget_calm()
        self.by_account |= dict.fromkeys(account_ids, self._clock.monotonic())

    async def look(self) -> None:
        """Mark the accounts in the leases of other processes as contended.

        A process that always wins its races would never learn that the others queue for their turns.
        """
        try:
            queue = await self._find_queue()
        except PyMongoError:
            return
        if queue is not None:
            leases = [lease for lease in queue.line if lease.process != self._process_id]
            self.mark_contended(
                name for lease in leases if lease.until is None or lease.until > queue.now for name in lease.accounts
            )

    def contended_of(self, account_ids: Sequence[str]) -> tuple[str, ...]:
        """Return the accounts that are contended: a command on them needs a lease."""
        return tuple([name for name in account_ids if name in self.by_account])

    def is_open(self, contended: tuple[str, ...]) -> bool:
        """Return True if this process holds a lease on these accounts; otherwise start to request one."""
        if self.is_usable and self._held.issuperset(contended):
            self._used.update(contended)
            return True
        self._wanted[contended] = None
        if self.task is None:
            self.task = asyncio.get_running_loop().create_task(self._keep_lease())
        return False

    def begin(self) -> None:
        """Record that a batch on contended accounts has started."""
        self._idle.clear()

    def end(self) -> None:
        """Record that the batch has ended."""
        self._idle.set()

    async def _keep_lease(self) -> None:
        """Acquire a lease, let the committer use it and pass it on, for as long as commands wait for one."""
        self._wake_ups.open()
        try:
            while self._wanted:
                if accounts := self._next_accounts():
                    await self._acquire(accounts)
                    self._on_change(self._held)
                    await self._wait_until_used()
                    self._usable_until, self._held = 0.0, frozenset()
                    self._forget_calm()
                self._on_change(frozenset())
                if not self._wanted:
                    await self._give_up()
        finally:
            self._wake_ups.close()
            self.task = None

    def _next_accounts(self) -> frozenset[str]:
        """Return the accounts that the next lease covers: those of the commands that wait, and those that the last lease was used for.

        The commands that arrive while the process waits are likely to need the same accounts as those before them.
        """
        chosen: set[str] = set()
        for names in (*self._wanted, tuple(self._used)):
            if chosen and len(chosen) + len(names) > ACCOUNTS_MAX:
                break
            chosen.update(names)
        self._wanted.clear()
        self._used.clear()
        return frozenset(chosen & self.by_account.keys())

    def _forget_calm(self) -> None:
        now = self._clock.monotonic()
        for name in [name for name, shared_at in self.by_account.items() if now - shared_at > CALM_SECONDS]:
            del self.by_account[name]

    async def _wait_until_used(self) -> None:
        """Wait until no batch uses the lease. A batch that starts as the one before it ends continues the use."""
        while not self._idle.is_set():
            await self._idle.wait()

    async def _acquire(self, accounts: frozenset[str]) -> None:
        """Join the queue with a lease on `accounts`, after giving up the last one, and wait until it is granted."""
        joins = True
        while True:
            requested_at = self._clock.monotonic()
            try:
                queue = await self.change_queue(joins=accounts, leaves=True) if joins else await self._read_queue()
            except PyMongoError:
                # Without a lease the race decides. If the database is unavailable, the commit reports it.
                self._held, self._usable_until = accounts, requested_at + HOLD_SECONDS
                return
            own = queue.lease_of(self._process_id)
            joins = own is None
            if own is None:
                continue
            self._note_others(queue, own)
            if own.until is not None and own.until > queue.now:
                left_seconds = (own.until - queue.now).total_seconds()
                self._held = own.accounts
                self._usable_until = min(self._clock.monotonic() + HOLD_SECONDS, requested_at + left_seconds)
                return
            if own.until is not None:
                joins = True
            elif queue.has_expired(own):
                await self._end_expired()
            else:
                woken = all(self._wake_ups.reach(lease.process) for lease in queue.before(own))
                seconds = POLL_WOKEN_SECONDS if woken else queue.poll_seconds(own)
                if await self._wake_ups.wait(own.number, seconds * random.uniform(0.8, 1.2)):
                    self._held, self._usable_until = own.accounts, self._clock.monotonic() + HOLD_SECONDS
                    return

    def _note_others(self, queue: LeaseQueue, own: QueuedLease) -> None:
        now = self._clock.monotonic()
        for lease in queue.line:
            if lease is not own:
                for name in lease.accounts & self.by_account.keys():
                    self.by_account[name] = now

    async def _give_up(self) -> None:
        try:
            await self.change_queue(leaves=True)
        except PyMongoError:
            return  # It ends by itself.

    async def _end_expired(self) -> None:
        try:
            await self.change_queue()
        except PyMongoError:
            return

    async def change_queue(self, *, joins: frozenset[str] = frozenset(), leaves: bool = False) -> LeaseQueue:
        """Give up the lease of this process (`leaves`), join the queue with a lease on accounts (`joins`), or both; return the queue.

        Leases that have ended are removed in any case, and those that no longer wait are granted.
        """
        self._number += bool(joins)
        reply = await self._database.raw.command(
            {
                "findAndModify": CONTENTION_LEASES,
                "query": {"_id": QUEUE_ID},
                "update": _queue_update(self._process_id, self._number, sorted(joins), leaves=leaves),
                "upsert": True,
                "new": True,
                "fields": _FIELDS,
                # A lease need not survive a failover, so the write does not wait for the journal.
                "writeConcern": {"w": 1},
            }
        )
        queue = _decode_queue(reply["value"])
        for lease in queue.line:
            if lease.until is not None and lease.process != self._process_id:
                self._wake_ups.wake(lease.process, lease.number)
        return queue

    async def _read_queue(self) -> LeaseQueue:
        return await self._find_queue() or await self.change_queue()

    async def _find_queue(self) -> LeaseQueue | None:
        reply = await self._database.raw.command(
            {"find": CONTENTION_LEASES, "filter": {"_id": QUEUE_ID}, "projection": _FIELDS, "limit": 1, "singleBatch": True}
        )
        rows: list[Document] = reply["cursor"]["firstBatch"]
        return _decode_queue(rows[0]) if rows else None


_FIELDS: Document = {"line": 1, "took_ms": 1, "now": "$$NOW"}


def _decode_queue(document: Document) -> LeaseQueue:
    line = tuple([QueuedLease(row["process"], row["number"], frozenset(row["accounts"]), row["until"]) for row in document["line"]])
    return LeaseQueue(document["now"], line, document["took_ms"])


def _queue_update(process_id: str, number: int, accounts: list[str], *, leaves: bool) -> list[Document]:
    """Return the update of the queue (`line`) and of the duration of the last lease (`took_ms`).

    The update removes leases that have ended and, with `leaves`, the lease of the caller. Then it adds the lease of the caller, if there are
    `accounts` and it has none. Then it grants every lease of which no account is covered by an earlier one.
    """
    none: list[str] = []
    stored: Document = {"$ifNull": ["$line", none]}
    mine: Document = {"$eq": ["$$lease.process", process_id]}
    ended: Document = {"$and": [{"$ne": ["$$lease.until", None]}, {"$lte": ["$$lease.until", "$$NOW"]}]}
    removed: Document = {"$or": [ended, mine]} if leaves else ended
    kept: Document = {"$filter": {"input": stored, "as": "lease", "cond": {"$not": [removed]}}}
    given_up: Document = {
        "$first": {"$filter": {"input": stored, "as": "lease", "cond": {"$and": [mine, {"$ne": ["$$lease.until", None]}]}}}
    }
    took_ms: Document = {"$ifNull": [{"$subtract": [LEASE_MS, {"$subtract": ["$given_up.until", "$$NOW"]}]}, "$took_ms", 0]}
    stages: list[Document] = [{"$set": {"given_up": given_up if leaves else None, "line": kept}}]
    if accounts:
        own: Document = {"$literal": [{"process": process_id, "number": number, "accounts": accounts, "until": None}]}
        joined: Document = {"$cond": [{"$in": [process_id, "$line.process"]}, "$line", {"$concatArrays": ["$line", own]}]}
        stages.append({"$set": {"line": joined}})
    is_free: Document = {"$eq": [{"$setIntersection": ["$$value.covered", "$$this.accounts"]}, none]}
    until: Document = {"$cond": [is_free, {"$ifNull": ["$$this.until", {"$add": ["$$NOW", LEASE_MS]}]}, None]}
    granted: Document = {
        "$reduce": {
            "input": "$line",
            "initialValue": {"covered": none, "line": none},
            "in": {
                "covered": {"$setUnion": ["$$value.covered", "$$this.accounts"]},
                "line": {"$concatArrays": ["$$value.line", [{"$mergeObjects": ["$$this", {"until": until}]}]]},
            },
        }
    }
    return [
        *stages,
        {"$set": {"took_ms": took_ms, "granted": granted}},
        {"$set": {"line": "$granted.line"}},
        {"$unset": ["given_up", "granted"]},
    ]
