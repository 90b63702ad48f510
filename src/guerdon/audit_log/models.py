"""Stored and wire shapes of the audit log."""

from typing import Literal

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.types import PageQuery

AUDIT = "audit"
INDEXES: dict[str, list[IndexModel]] = {AUDIT: [IndexModel([("about", 1), ("_id", 1)], name="about")]}
"""Records are numbered, and read in the order of their numbers: all of them, or those about one member."""
GENESIS = bytes(32)

Phase = Literal["asked", "answered"]


class Record(Struct, frozen=True, kw_only=True):
    """Somebody asked for something, or was answered. What was asked for without an answer may have been done or not."""

    id: int = field(name="_id")
    """1, 2, 3, without a gap."""
    at: int
    """Milliseconds since the epoch."""
    phase: Phase
    actor: str
    """A member's id, `key_` and a service key's id, or `terminal`."""
    action: str
    """The operation's id in the OpenAPI document, or the command."""
    subject: dict[str, str]
    """What it was done to: the ids in the path, or the command's arguments."""
    request_id: str
    """The same in both phases of one request."""
    status: int | None = None
    """The HTTP status of the answer."""
    facts: dict[str, str] = {}
    """What the subject does not say, such as a new role. No personal data."""
    about: list[str] = []
    """The members whom it names, as doer or as subject. It follows from the other fields and is not in the hash."""
    prev: bytes
    hash: bytes


class AuditQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of the log, newest first."""


class RecordView(Struct, frozen=True):
    """One record. `hash` is SHA-256 over `prev` and the JSON array of the fields before it; see the operations page."""

    seq: int
    at: str
    phase: Phase
    actor: str
    action: str
    subject: dict[str, str]
    request_id: str
    status: int | None
    facts: dict[str, str]
    prev: str
    hash: str


class AuditPage(Struct, frozen=True):
    """Records, newest first."""

    items: list[RecordView]
    next_cursor: str | None


def view_record(record: Record) -> RecordView:
    return RecordView(
        seq=record.id,
        at=rfc3339(record.at),
        phase=record.phase,
        actor=record.actor,
        action=record.action,
        subject=record.subject,
        request_id=record.request_id,
        status=record.status,
        facts=record.facts,
        prev=record.prev.hex(),
        hash=record.hash.hex(),
    )
