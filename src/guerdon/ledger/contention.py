"""Turns: processes that move the same account take it in turns, instead of losing races to each other.

An account on which a race was lost is *contended* for a while. A process then begins commits on it only in its turn, a short time that a
document of `turns` gives to one process after another, in the order in which they asked; only the database's clock counts. A turn is a
courtesy and no lock: what is true is decided by the entries' `_id`. A process that knows of no turns, a holder that is too slow, and a
lost turn cost time and nothing else. See docs/adr/0010-turns.md.
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
HOLD_SECONDS = 0.06
"""How long a holder goes on beginning commits, while others wait or not."""
LEASE_MS = 400
"""When the others stop waiting for a holder that does not say that it is done; so much time a dead one costs, once."""
POLL_SECONDS = 0.003
CALM_SECONDS = 2.0
"""An account that no other process has wanted for so long is not contended any more."""
_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class ContentionLease:
    """What this process knows of one contended account."""

    __slots__ = ("account", "begun", "idle", "others_wait", "shared_at", "task", "usable_until", "wanted")

    def __init__(self, account: str) -> None:
        self.account = account
        self.shared_at = 0.0
        """When another process was last seen on the account; monotonic seconds, like `usable_until`."""
        self.usable_until = 0.0
        self.wanted = False
        """Commands wait for it."""
        self.others_wait = False
        self.begun = asyncio.Event()
        self.idle = asyncio.Event()
        self.idle.set()
        self.task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        """A batch on the account goes to the database."""
        self.begun.set()
        self.idle.clear()

    def end(self) -> None:
        """The batch is done."""
        self.begun.clear()
        self.idle.set()


class ContentionLeases:
    """The contended accounts of one process. The committer asks here before it begins a command on one of them."""

    def __init__(self, database: Database, clock: Clock, on_change: Callable[[], None]) -> None:
        self._database = database
        self._clock = clock
        self._on_change = on_change
        """Called when commands that were kept waiting may be looked at again."""
        self._me = random_base62(12)
        self._leases: dict[str, ContentionLease] = {}

    def __bool__(self) -> bool:
        """Is any account contended?"""
        return bool(self._leases)

    @property
    def tasks(self) -> set[asyncio.Task[None]]:
        return {turn.task for turn in self._leases.values() if turn.task is not None}

    @property
    def any_open(self) -> bool:
        now = self._clock.monotonic()
        return any(now < turn.usable_until for turn in self._leases.values())

    def mark_contended(self, account_ids: Iterable[str]) -> None:
        """Another process has moved these accounts before us: they are contended."""
        now = self._clock.monotonic()
        for name, turn in list(self._leases.items()):
            if turn.task is None and now - turn.shared_at > CALM_SECONDS:
                del self._leases[name]
        for name in account_ids:
            self._leases.setdefault(name, ContentionLease(name)).shared_at = now

    def lease_of(self, account_ids: Sequence[str]) -> ContentionLease | None:
        """Return the turn that a command on these accounts has to wait for, if any.

        Where several are contended it is the first: two processes that each hold one turn and want the other's would wait for nothing.
        """
        contended = [name for name in account_ids if name in self._leases]
        return self._leases[min(contended)] if contended else None

    def is_open(self, turn: ContentionLease) -> bool:
        """Is it this process's turn? If not, it stands in line from now on."""
        if self._clock.monotonic() < turn.usable_until:
            return True
        turn.wanted = True
        if turn.task is None:
            turn.task = asyncio.get_running_loop().create_task(self._attend(turn))
        return False

    async def _attend(self, turn: ContentionLease) -> None:
        """Stand in line, let the committer use the turn, pass it on; again as long as commands wait for it."""
        held = False
        try:
            while turn.wanted:
                turn.wanted = False
                while not held:
                    held = await self._ask(turn, joins=True)
                self._on_change()
                await self._used_up(turn)
                turn.usable_until = 0.0
                calm = self._clock.monotonic() - turn.shared_at > CALM_SECONDS
                held = turn.wanted and not calm and await self._ask(turn, joins=True, leaves=True)
                if calm or not turn.wanted:
                    await self._leave(turn)
                if calm:
                    del self._leases[turn.account]
                    self._on_change()
                    return
        finally:
            turn.task = None

    async def _used_up(self, turn: ContentionLease) -> None:
        """Return when the time is over, or when there is nothing left to commit and others wait; never while a batch is under way."""
        while True:
            await turn.idle.wait()
            left_seconds = turn.usable_until - self._clock.monotonic()
            if turn.idle.is_set():
                if turn.others_wait or left_seconds <= 0:
                    return
                try:
                    async with asyncio.timeout(left_seconds):
                        await turn.begun.wait()
                except TimeoutError:
                    return

    async def _leave(self, turn: ContentionLease) -> None:
        """Give the place up for good: pass it on, or take the document away when nobody waits for it."""
        if not turn.others_wait:
            nobody: list[str] = []
            alone: Document = {"_id": turn.account, "holder": self._me, "line": nobody}
            try:
                if (await self._send({"query": alone, "remove": True}))["value"] is not None:
                    return
            except PyMongoError:
                return
        await self._ask(turn, joins=False, leaves=True)

    async def _ask(self, turn: ContentionLease, *, joins: bool, leaves: bool = False) -> bool:
        """Leave the place, stand in line, or both; say whether it is our turn now. If it is not, a moment has passed."""
        asked_at = self._clock.monotonic()
        try:
            reply = await self._send(
                {
                    "query": {"_id": turn.account},
                    "update": _step(self._me, joins=joins, leaves=leaves),
                    "upsert": True,
                    "new": True,
                    "fields": {"holder": 1, "line": 1, "took_ms": 1, "left_ms": {"$subtract": ["$until", "$$NOW"]}},
                }
            )
        except PyMongoError:
            # Without turns there is still the race that decides. A database that is gone says so to the commit.
            turn.usable_until = asked_at + HOLD_SECONDS
            return joins
        found, now = reply["value"], self._clock.monotonic()
        line: list[str] = found["line"]
        turn.others_wait = bool(line)
        if line or found["holder"] not in {self._me, None}:
            turn.shared_at = now
        if found["holder"] == self._me:
            turn.usable_until = min(now + HOLD_SECONDS, asked_at + found["left_ms"] / 1000)
            return True
        if joins:
            # The closer the turn, the sooner the next question.
            rest_ms = max(found["took_ms"] - (LEASE_MS - found["left_ms"]), 0) + found["took_ms"] * line.index(self._me)
            await asyncio.sleep(max(rest_ms / 2000, POLL_SECONDS) * random.uniform(0.8, 1.2))
        return False

    async def _send(self, command: Document) -> Document:
        """A turn need not outlive its primary, so nobody waits for the journal."""
        return await self._database.raw.command({"findAndModify": CONTENTION_LEASES, **command, "writeConcern": {"w": 1}})


def _step(me: str, *, joins: bool, leaves: bool) -> list[Document]:
    """The change of a turn's document: its `holder`, `until` when, the `line` of those who wait, and how long the last turn took.

    Who asks stands in line first. If the place is vacant then (nobody's, left just now, or its time is over), the first in line has it.
    """
    nobody: list[str] = []
    mine = {"$eq": ["$holder", me]}
    over = {"$lte": [{"$ifNull": ["$until", _NEVER]}, "$$NOW"]}
    line: Document = {"$ifNull": ["$line", nobody]}
    if joins:
        stays: list[Document] = [{"$in": [me, line]}]
        if not leaves:
            stays.append({"$and": [mine, {"$not": [over]}]})
        line = {"$cond": [{"$or": stays}, line, {"$concatArrays": [line, [me]]}]}
    until = {"$cond": [{"$eq": ["$line", nobody]}, "$$NOW", {"$add": ["$$NOW", LEASE_MS]}]}
    took_ms = {"$subtract": [LEASE_MS, {"$subtract": ["$until", "$$NOW"]}]}
    return [
        {"$set": {"line": line, "vacant": {"$or": [over, mine]} if leaves else over, "took_ms": {"$ifNull": ["$took_ms", 0]}}},
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
