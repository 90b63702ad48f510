"""References of transactions: unique per owner while the transaction stands, and free again after it was undone. Pure.

The idempotency key tells a repeated request from a new attempt. A request with the key of an earlier one gets the first answer, also after the
transaction was undone. A request with a new key and the same reference is a new attempt. It is refused while the earlier transaction stands,
and takes place once that was undone whole: a use that was undone, a voucher that was cancelled, a hold that was voided or has expired without
a capture, any other transaction that was reversed in full. Attempts of one reference are numbered, and the number is a part of the
unique key, so that of several concurrent attempts one takes place.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from guerdon.errors import ReferenceReused
from guerdon.ledger.expiry import HOLD_DOCUMENTS, REVERSALS
from guerdon.ledger.models import DocumentRef, Entry, EntryKind, Idempotency, RecordedRefusal, hold_id, reference_key

ATTEMPTS_MAX = 16
"""Maximum number of transactions with one reference, of which all but the newest were undone."""
Documents = Mapping[tuple[str, str], dict[str, Any]]


class UndoRule(Struct, frozen=True):
    """The document that shows whether a transaction was undone."""

    document: Callable[[Entry], DocumentRef]
    undone: Callable[[Entry, dict[str, Any], int], bool]
    """Returns whether an entry was undone, from the document and the time in milliseconds."""


def _hold_undone(_: Entry, document: dict[str, Any], now_ms: int) -> bool:
    ended = document["status"] in {"voided", "expired"} or document["expires_at"] <= now_ms
    return ended and not document["captured"]


def _reversed_in_full(entry: Entry, document: dict[str, Any], _: int) -> bool:
    return entry.amount != 0 and document["reversed"] == abs(entry.amount)


_REVERSAL = UndoRule(lambda entry: DocumentRef(REVERSALS, entry.transaction_id, entry.owner), _reversed_in_full)
_RULES: dict[str, UndoRule] = {
    "hold": UndoRule(lambda entry: DocumentRef(HOLD_DOCUMENTS, hold_id(entry.account, entry.seq), entry.owner), _hold_undone)
}
"""By kind of transaction; every other kind is undone by a reversal in full."""


def register_undo_rule(kinds: Iterable[EntryKind], rule: UndoRule) -> None:
    """Add the rule of transactions that a document of another package shows to be undone."""
    for kind in kinds:
        _RULES[kind] = rule


def document_of(entry: Entry) -> DocumentRef:
    """Return the document that shows whether the transaction of an entry was undone."""
    return _RULES.get(entry.kind, _REVERSAL).document(entry)


def reference_keys(owner: str, reference: str) -> list[bytes]:
    """Return the unique keys of all attempts that a reference can have, in order."""
    return [reference_key(owner, reference, None if attempt == 1 else attempt) for attempt in range(1, ATTEMPTS_MAX + 1)]


def further_keys(first: Entry) -> list[bytes]:
    """Return the unique keys of all attempts after the first."""
    assert first.reference is not None
    return reference_keys(first.owner, first.reference)[1:]


def first_attempts(recorded: Mapping[bytes, Entry | RecordedRefusal], requested: Sequence[bytes]) -> list[Entry]:
    """Return the entries that were found under the reference of a command."""
    entries: list[Entry] = []
    for unique_key in requested:
        entry = recorded.get(unique_key)
        if isinstance(entry, Entry) and unique_key != (entry.unique_keys or [None])[0]:
            entries.append(entry)
    return entries


def newest_attempt(first: Entry, recorded: Mapping[bytes, Entry | RecordedRefusal]) -> Entry:
    """Return the entry of the newest attempt."""
    newest = first
    for unique_key in further_keys(first):
        entry = recorded.get(unique_key)
        if not isinstance(entry, Entry):
            break
        newest = entry
    return newest


def attempt_of(
    idempotency: Idempotency, recorded: Mapping[bytes, Entry | RecordedRefusal], documents: Documents, now_ms: int
) -> int | None:
    """Return the number of the attempt that a new transaction with the reference is, or None for the first one.

    Raises:
        ReferenceReused: The newest transaction with the reference stands, or too many were undone.
    """
    digest = idempotency.reference_digest
    first = None if digest is None else recorded.get(digest)
    if not isinstance(first, Entry):
        return None
    newest = newest_attempt(first, recorded)
    attempt = newest.attempt or 1
    if attempt >= ATTEMPTS_MAX or not _undone(newest, documents, now_ms):
        raise ReferenceReused(
            f"reference {idempotency.reference!r} is already on this member's ledger", transaction_id=newest.transaction_id
        )
    return attempt + 1


def _undone(entry: Entry, documents: Documents, now_ms: int) -> bool:
    ref = document_of(entry)
    document = documents.get((ref.collection, ref.id))
    # Without the document nothing was undone: every hold and every voucher has one, and a reversal makes it.
    return document is not None and _RULES.get(entry.kind, _REVERSAL).undone(entry, document, now_ms)
