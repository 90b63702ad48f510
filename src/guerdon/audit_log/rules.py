"""Pure rules of the hash chain of the audit log."""

import hashlib
import re
from collections.abc import Iterable, Iterator

import msgspec

from guerdon.audit_log.models import GENESIS, Record

_canonical = msgspec.json.Encoder(order="sorted")
_MEMBER = re.compile("mem_[0-9a-f]{32}")


def record_hash(record: Record) -> bytes:
    """Return the SHA-256 over the previous hash and the canonical JSON array of every stored field, as in the ledger."""
    body = (
        record.id, record.at, record.phase, record.actor, record.action, record.subject, record.request_id, record.status, record.facts,
    )  # fmt: skip
    return hashlib.sha256(record.prev + _canonical.encode(body)).digest()


def members_in(record: Record) -> list[str]:
    """Return the ids of the members in a record. The ids of wallets, holds and transactions contain the id of their member."""
    return sorted({found for text in (record.actor, *record.subject.values()) for found in _MEMBER.findall(text)})


def as_successor(record: Record, last: Record | None) -> Record:
    """Return the record as the successor of `last`, with its number and hashes."""
    seq, prev = (1, GENESIS) if last is None else (last.id + 1, last.hash)
    numbered = msgspec.structs.replace(record, id=seq, prev=prev, about=members_in(record))
    return msgspec.structs.replace(numbered, hash=record_hash(numbered))


def find_faults(records: Iterable[Record], last: Record | None = None) -> Iterator[str]:
    """Yield a message for each record that is not a valid successor of the record before it. `last` is None at the beginning of the log."""
    for record in records:
        seq, prev = (0, GENESIS) if last is None else (last.id, last.hash)
        if record.id != seq + 1:
            yield f"record {record.id} follows record {seq}"
        elif record.prev != prev:
            yield f"record {record.id} does not contain the hash of record {seq}"
        elif record.hash != record_hash(record) or record.about != members_in(record):
            yield f"record {record.id} was changed after it was written"
        last = record
