"""What others are to hear of, kept in the database until they have.

An event is appended in the commit of the fact that it tells, one row for each channel that is to carry it. Whoever delivers on a channel takes
the rows that are due, tells, and marks them. A row that was taken is due again a little later, so what a process leaves behind when it dies is
told by another one: at least once. What an event says is sealed by the master keys, since it may hold what opens a door; and it goes when it
was told or is of no use any more.
"""

from collections.abc import Sequence
from datetime import datetime

import msgspec
from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.clock import Clock, to_datetime
from guerdon.crypto.sealing import MasterKeys
from guerdon.database import Database, Document, Session
from guerdon.erasable_data import ErasableRows, SealedField
from guerdon.errors import StartupRefused
from guerdon.ids import IdSource

OUTBOX = "outbox"
INDEXES: dict[str, list[IndexModel]] = {
    OUTBOX: [
        IndexModel([("channel", 1), ("due_at", 1)], name="due", partialFilterExpression={"due_at": {"$exists": True}}),
        IndexModel([("expires_at", 1)], name="expiry", expireAfterSeconds=0),
    ]
}
_OVER: Document = {"$unset": {"due_at": True, "sealed": True}}
"""There is nothing left to tell; MongoDB takes the row away in its time."""
TAKEN_MS = 60_000
"""So long whoever has taken a row has to deliver it, before another one does."""
PAUSE_FIRST_MS, PAUSE_MS_MAX = 10_000, 300_000


def about(owner: str) -> Document:
    """Return the filter of the rows about somebody."""
    return {"_id": {"$gte": f"{owner}:", "$lt": f"{owner};"}}


def context_of(row_id: str) -> str:
    return f"outbox {row_id}"


def _context_of_row(row: Document) -> str:
    return context_of(row["_id"])


BELONGINGS = [ErasableRows("outbox", OUTBOX, about), ErasableRows("outbox_by_address", OUTBOX, about, by="address")]
MASTER_SEALED = [SealedField(OUTBOX, "sealed", _context_of_row)]


class OutboxMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event on one channel. Times are milliseconds since the epoch, where nothing else is said."""

    id: str = field(name="_id")
    """`{owner}:{event}:{channel}`, so that a member's rows lie together."""
    event: str
    kind: str
    owner: str
    """A member, or the digest of an address whose member is still to be found."""
    channel: str
    sealed: bytes | None = None
    """What it says, as long as it is still to be said."""
    created_at: int
    ends_at: int
    """From then on it is of no use."""
    due_at: int | None = None
    """When to tell it, or to try again."""
    tries: int = 0
    delivered_at: int | None = None
    expires_at: datetime


class Event(Struct, frozen=True, kw_only=True):
    """An event that was taken, in order to be told on a channel."""

    row: OutboxMessage
    data: dict[str, str]

    @property
    def id(self) -> str:
        return self.row.event

    @property
    def owner(self) -> str:
        return self.row.owner


class Outbox:
    """The events of this deployment that somebody is still to hear of."""

    def __init__(self, database: Database, master: MasterKeys | None, ids: IdSource, clock: Clock) -> None:
        self._rows = database.collection(OUTBOX, OutboxMessage)
        self._given = master
        self._ids = ids
        self._clock = clock

    @property
    def _master(self) -> MasterKeys:
        if self._given is None:
            raise StartupRefused("this needs the master keys of the deployment: set GUERDON_MASTER_KEYS_FILE")
        return self._given

    async def append(
        self,
        kind: str,
        owner: str,
        data: dict[str, str],
        *,
        channels: Sequence[str],
        ttl_seconds: int,
        session: Session | None = None,
    ) -> None:
        """Add an event, in the transaction of `session` if there is one.

        Raises:
            StartupRefused: this process was started without master keys.
        """
        event = self._ids.new("evt")
        for channel in channels:
            await self._rows.insert(self._row(kind, owner, data, event, channel=channel, ttl_seconds=ttl_seconds), session)

    def row_of(self, kind: str, owner: str, data: dict[str, str], *, channel: str, ttl_seconds: int) -> Document:
        """Return the row of a new event, for a command of the ledger that inserts it in its commit.

        Raises:
            StartupRefused: this process was started without master keys.
        """
        return self._rows.encode(self._row(kind, owner, data, self._ids.new("evt"), channel=channel, ttl_seconds=ttl_seconds))

    def _row(self, kind: str, owner: str, data: dict[str, str], event: str, *, channel: str, ttl_seconds: int) -> OutboxMessage:
        now = self._clock.now_ms()
        ends_at = now + ttl_seconds * 1000
        row_id = f"{owner}:{event}:{channel}"
        return OutboxMessage(
            id=row_id,
            event=event,
            kind=kind,
            owner=owner,
            channel=channel,
            sealed=self._master.seal(msgspec.json.encode(data), context_of(row_id)),
            created_at=now,
            ends_at=ends_at,
            due_at=now,
            expires_at=to_datetime(ends_at),
        )

    async def take(self, channel: str, limit: int) -> list[Event]:
        """Take what is due on a channel, the oldest first; nobody else gets it for a minute.

        Raises:
            Internal: the master keys do not open it.
            StartupRefused: this process was started without master keys.
        """
        now = self._clock.now_ms()
        due = await self._rows.find({"channel": channel, "due_at": {"$lte": now}}, sort=[("due_at", 1)], limit=limit)
        taken: list[Event] = []
        for row in due:
            if row.sealed is None or row.ends_at <= now:
                await self._change(row, _OVER)
                continue
            lease = msgspec.structs.replace(row, due_at=now + TAKEN_MS, tries=row.tries + 1)
            if await self._change(row, {"$set": {"due_at": lease.due_at, "tries": lease.tries}}):
                data = msgspec.json.decode(self._master.open(row.sealed, context_of(row.id)), type=dict[str, str])
                taken.append(Event(row=lease, data=data))
        return taken

    async def done(self, event: Event, session: Session | None = None) -> bool:
        """Mark an event as told, and forget what it said; false when somebody else has taken it meanwhile."""
        return await self._change(event.row, {"$set": {"delivered_at": self._clock.now_ms()}, **_OVER}, session)

    async def again(self, event: Event) -> int | None:
        """Put an event off that could not be told, for longer each time. Return for how many milliseconds, or None when that was the last try."""
        pause_ms = pause_ms_after(event.row.tries)
        due_at = self._clock.now_ms() + pause_ms
        if due_at >= event.row.ends_at:
            await self._change(event.row, _OVER)
            return None
        await self._change(event.row, {"$set": {"due_at": due_at}})
        return pause_ms

    async def _change(self, row: OutboxMessage, change: Document, session: Session | None = None) -> bool:
        """Change a row if it still is as it was seen."""
        done = await self._rows.raw.update_one({"_id": row.id, "due_at": row.due_at}, change, session=session)
        return done.matched_count == 1


def pause_ms_after(tries: int) -> int:
    """Return how long to wait after so many tries."""
    return min(PAUSE_FIRST_MS << min(tries - 1, 20), PAUSE_MS_MAX)
