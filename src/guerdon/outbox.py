"""Outbox of events to deliver to other systems, at least once.

An event is inserted in the commit of its fact, with one row per channel. The job of a channel takes the rows that are due, delivers them and
marks them. A row that was taken is due again after `TAKEN_MS`, so another process delivers the events of a process that died. The content is
sealed by the master keys, because it may contain secrets, and is deleted after delivery or expiry.
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
_FINISHED: Document = {"$unset": {"due_at": True, "sealed": True}}
"""Update of a row that needs no further delivery; MongoDB deletes the row at `expires_at`."""
TAKEN_MS = 60_000
"""Time in which a process must deliver a row that it took, before another process may take it."""
PAUSE_FIRST_MS, PAUSE_MS_MAX = 10_000, 300_000


def about(owner: str) -> Document:
    """Return the filter of the rows of an owner."""
    return {"_id": {"$gte": f"{owner}:", "$lt": f"{owner};"}}


def context_of(row_id: str) -> str:
    return f"outbox {row_id}"


def _context_of_row(row: Document) -> str:
    return context_of(row["_id"])


ERASABLE_ROWS = [ErasableRows("outbox", OUTBOX, about), ErasableRows("outbox_by_address", OUTBOX, about, by="address")]
SEALED_FIELDS = [SealedField(OUTBOX, "sealed", _context_of_row)]


class OutboxMessage(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One event on one channel. Integer times are milliseconds since the epoch."""

    id: str = field(name="_id")
    """`{owner}:{event}:{channel}`, so that the rows of a member are adjacent."""
    event: str
    kind: str
    owner: str
    """Id of a member, or the digest of an address whose member is not known yet."""
    channel: str
    sealed: bytes | None = None
    """Sealed content; None after delivery or expiry."""
    created_at: int
    ends_at: int
    """Time after which it is no longer delivered."""
    due_at: int | None = None
    """Time of the next attempt; None after delivery or expiry."""
    tries: int = 0
    delivered_at: int | None = None
    expires_at: datetime


class Event(Struct, frozen=True, kw_only=True):
    """An event that was taken for delivery on a channel."""

    row: OutboxMessage
    data: dict[str, str]

    @property
    def id(self) -> str:
        return self.row.event

    @property
    def owner(self) -> str:
        return self.row.owner


class Outbox:
    """Events of the deployment that are to be delivered."""

    def __init__(self, database: Database, master: MasterKeys | None, ids: IdSource, clock: Clock) -> None:
        self._rows = database.collection(OUTBOX, OutboxMessage)
        self._master_keys = master
        self._ids = ids
        self._clock = clock

    @property
    def _master(self) -> MasterKeys:
        if self._master_keys is None:
            raise StartupRefused("the outbox needs the master keys of the deployment; set GUERDON_MASTER_KEYS_FILE")
        return self._master_keys

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
        """Add an event, in the transaction of `session` if given.

        Raises:
            StartupRefused: The process was started without master keys.
        """
        event = self._ids.new("evt")
        for channel in channels:
            await self._rows.insert(self._row(kind, owner, data, event, channel=channel, ttl_seconds=ttl_seconds), session)

    def row_of(self, kind: str, owner: str, data: dict[str, str], *, channel: str, ttl_seconds: int) -> Document:
        """Return the row of a new event, for a ledger command that inserts it in its commit.

        Raises:
            StartupRefused: The process was started without master keys.
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
        """Take up to `limit` events that are due on a channel, oldest first. No other process gets them for `TAKEN_MS`.

        Raises:
            Internal: The master keys cannot open the content.
            StartupRefused: The process was started without master keys.
        """
        now = self._clock.now_ms()
        rows = await self._rows.find({"channel": channel, "due_at": {"$lte": now}}, sort=[("due_at", 1)], limit=limit)
        taken: list[Event] = []
        for row in rows:
            if row.sealed is None or row.ends_at <= now:
                await self._change(row, _FINISHED)
                continue
            lease = msgspec.structs.replace(row, due_at=now + TAKEN_MS, tries=row.tries + 1)
            if await self._change(row, {"$set": {"due_at": lease.due_at, "tries": lease.tries}}):
                data = msgspec.json.decode(self._master.open(row.sealed, context_of(row.id)), type=dict[str, str])
                taken.append(Event(row=lease, data=data))
        return taken

    async def mark_delivered(self, event: Event, session: Session | None = None) -> bool:
        """Mark an event as delivered and delete its content; return False if another process has taken it meanwhile."""
        return await self._change(event.row, {"$set": {"delivered_at": self._clock.now_ms()}, **_FINISHED}, session)

    async def retry_later(self, event: Event) -> int | None:
        """Postpone an event that could not be delivered; return the delay in milliseconds, or None if it expires before the next attempt."""
        pause_ms = pause_ms_after(event.row.tries)
        due_at = self._clock.now_ms() + pause_ms
        if due_at >= event.row.ends_at:
            await self._change(event.row, _FINISHED)
            return None
        await self._change(event.row, {"$set": {"due_at": due_at}})
        return pause_ms

    async def _change(self, row: OutboxMessage, change: Document, session: Session | None = None) -> bool:
        """Update a row if its `due_at` has not changed since it was read; return True if it was updated."""
        result = await self._rows.raw.update_one({"_id": row.id, "due_at": row.due_at}, change, session=session)
        return result.matched_count == 1


def pause_ms_after(tries: int) -> int:
    """Return the delay after `tries` attempts: it doubles from `PAUSE_FIRST_MS` up to `PAUSE_MS_MAX`."""
    return min(PAUSE_FIRST_MS << min(tries - 1, 20), PAUSE_MS_MAX)
