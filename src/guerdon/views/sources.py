"""Documents that the views are derived from: entries by account, and events with their voids and changes of tier by member."""

import re
from collections.abc import Callable, Sequence
from typing import Any

from bson import Regex

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, TIER_CHANGES
from guerdon.database import Document
from guerdon.ledger.models import SEQ_DIGITS, entry_id
from guerdon.ledger.store import ENTRIES
from guerdon.projections.models import Feed, Range


def entry_feed(decode: Callable[[Document], Any], fields: tuple[str, ...] = ()) -> Feed:
    """Return the feed of the entries. Their subject is the account. Without `fields`, whole entries are read."""
    return Feed(
        ENTRIES,
        fields,
        decode,
        subject_of=lambda row: row["_id"][: -SEQ_DIGITS - 1],
        number_of=lambda row: int(row["_id"][-SEQ_DIGITS:]),
        where=_entries,
        # Refusals are in the same collection.
        inserted={"fullDocument.balance_after": {"$exists": True}},
    )


def event_feed(decode: Callable[[Document], Any], fields: tuple[str, ...] = ()) -> Feed:
    """Return the feed of the recorded events. Their subject is the member."""

    def where(ranges: Sequence[Range]) -> Document:
        return {"owner": {"$in": [each.subject for each in ranges]}}

    return Feed(EVENTS, fields, decode, subject_of=lambda row: row["owner"], number_of=_link_number, where=where)


def void_feed(decode: Callable[[Document], Any], fields: tuple[str, ...] = ()) -> Feed:
    """Return the feed of the voids of events. Their subject is the member."""

    def where(ranges: Sequence[Range]) -> Document:
        return {"_id": {"$in": [Regex(f"^{re.escape(each.subject)}/") for each in ranges]}}

    return Feed(EVENT_VOIDS, fields, decode, subject_of=lambda row: row["owner"], number_of=_link_number, where=where)


def tier_change_feed(decode: Callable[[Document], Any], fields: tuple[str, ...] = ()) -> Feed:
    """Return the feed of the changes of tier. Their subject is the member."""

    def where(ranges: Sequence[Range]) -> Document:
        return {"_id": {"$in": [Regex(f"^{re.escape(each.subject)}#") for each in ranges]}}

    return Feed(TIER_CHANGES, fields, decode, subject_of=lambda row: row["owner"], number_of=_link_number, where=where)


def _entries(ranges: Sequence[Range]) -> Document:
    # One scan of the index with an interval for each account. An alternative for each would be a scan of its own.
    whole = [each for each in ranges if not each.after]
    parts = [each for each in ranges if each.after]
    alternatives: list[Document] = [
        {"_id": {"$gt": entry_id(each.subject, each.after), "$lte": entry_id(each.subject, each.upto)}} for each in parts
    ]
    if whole:
        alternatives.append({"_id": {"$in": [Regex(f"^{re.escape(each.subject)}#") for each in whole]}})
    return alternatives[0] if len(alternatives) == 1 else {"$or": alternatives}


def _link_number(row: Document) -> int:
    proof: Document = row.get("proof") or {}
    return int(proof.get("number", 0))
