"""The chain of the audit log."""

import hashlib
import re
from collections.abc import Iterable, Iterator

import msgspec

from guerdon.audit_log.models import GENESIS, Record

_canonical = msgspec.json.Encoder(order="sorted")
_MEMBER = re.compile("mem_[0-9a-f]{32}")


def record_hash(record: Record) -> bytes:
    """SHA-256 over the previous hash and the canonical JSON array of every stored field, as in the ledger."""
    body = (
        record.id, record.at, record.phase, record.actor, record.action, record.subject, record.request_id, record.status, record.facts,
    )  # fmt: skip
    return hashlib.sha256(record.prev + _canonical.encode(body)).digest()


def members_in(record: Record) -> list[str]:
    """Return the members whom a record names: ids of wallets, holds and transactions begin with their member's."""
    return sorted({found for text in (record.actor, *record.subject.values()) for found in _MEMBER.findall(text)})


def chained(record: Record, last: Record | None) -> Record:
    """Return the record in its place behind the last one."""
    seq, prev = (1, GENESIS) if last is None else (last.id + 1, last.hash)
    placed = msgspec.structs.replace(record, id=seq, prev=prev, about=members_in(record))
    return msgspec.structs.replace(placed, hash=record_hash(placed))


def faults(records: Iterable[Record], last: Record | None = None) -> Iterator[str]:
    """Yield a sentence for each record that does not follow from the one before it. The first of all follows from nothing."""
    for record in records:
        seq, prev = (0, GENESIS) if last is None else (last.id, last.hash)
        if record.id != seq + 1:
            yield f"record {record.id} comes after {seq}"
        elif record.prev != prev:
            yield f"record {record.id} does not follow record {seq}"
        elif record.hash != record_hash(record) or record.about != members_in(record):
            yield f"record {record.id} is not what was written"
        last = record
