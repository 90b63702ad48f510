"""Stored and wire shapes of the audit log."""

from typing import Literal

from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.types import PageQuery

AUDIT = "audit"
INDEXES: dict[str, list[IndexModel]] = {AUDIT: [IndexModel([("about", 1), ("_id", 1)], name="about")]}
"""Records are read in the order of their numbers: all of them, or those about one member."""
GENESIS = bytes(32)

Phase = Literal["asked", "answered"]


class Record(Struct, frozen=True, kw_only=True):
    """A request (`asked`) or its response (`answered`). A request without a response may or may not have been executed."""

    id: int = field(name="_id")
    """Sequence number: 1, 2, 3, without gaps."""
    at: int
    """Milliseconds since the epoch."""
    phase: Phase
    actor: str
    """Id of a member, `key_` and the id of a service key, or `terminal`."""
    action: str
    """Id of the operation in the OpenAPI document, or the command."""
    subject: dict[str, str]
    """Target of the action: the ids in the path, or the arguments of the command."""
    request_id: str
    """Request id, which is the same in both phases."""
    status: int | None = None
    """HTTP status of the response."""
    facts: dict[str, str] = {}
    """Further details, such as a new role. They contain no personal data."""
    about: list[str] = []
    """Ids of the members in `actor` and `subject`. Derived from the other fields, and not part of the hash."""
    prev: bytes
    hash: bytes


class AuditQuery(PageQuery, frozen=True, forbid_unknown_fields=True):
    """One page of the audit log, newest first."""


class RecordView(Struct, frozen=True):
    """A record of the audit log."""

    seq: int
    """Number of the record: 1, 2, 3, without gaps."""
    at: str
    """Time of the record, RFC 3339 in UTC."""
    phase: Phase
    """`asked` before the action, `answered` after it."""
    actor: str
    """Id of a member, `key_` and the id of a service key, or `terminal`."""
    action: str
    """Id of the operation in this document, or the command."""
    subject: dict[str, str]
    """Target of the action: the ids in the path, or the arguments of the command."""
    request_id: str
    """Request id, which is the same in both phases."""
    status: int | None
    """HTTP status of the response. Null in the phase `asked`."""
    facts: dict[str, str]
    """Further details, such as a new role."""
    prev: str
    """Hash of the previous record, hexadecimal."""
    hash: str
    """SHA-256 over `prev` and the JSON array of the fields before it, hexadecimal; see the operations page."""


class AuditPage(Struct, frozen=True):
    """One page of the audit log, newest first."""

    items: list[RecordView]
    """The records of this page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


def view_record(record: Record) -> RecordView:
    """Return the wire shape of a record."""
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
