"""The view group `books`: what is derived from entries and events, in one pass."""

from functools import partial

import msgspec

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import MEMBER_STATES as STANDINGS
from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS
from guerdon.projections.models import Source, ViewGroup
from guerdon.views.entries import FOLDED_FIELDS, FoldedEntry
from guerdon.views.events import EVENT_FIELDS, TIER_CHANGE_FIELDS, VOID_FIELDS, FoldedEvent, FoldedTierChange, FoldedVoid
from guerdon.views.fold_entries import fold_entry
from guerdon.views.fold_events import fold_event
from guerdon.views.models import (
    ACCOUNT_STATES,
    AGGREGATES,
    BOOKS,
    BOOKS_VERSION,
    MEMBER_STATES,
    AccountReadModel,
    MemberReadModel,
)
from guerdon.views.sources import entry_feed, event_feed, tier_change_feed, void_feed

_NATIVE = (bytes,)


def books_group(calendar: Calendar) -> ViewGroup:
    """Return the definition of the group. `calendar` gives the days and months of the programme."""
    entries = Source(
        name="entries",
        subjects=ACCOUNTS,
        newest="seq",
        feeds=(entry_feed(decode_entry, FOLDED_FIELDS),),
        states=ACCOUNT_STATES,
        state=AccountReadModel,
        watermark="seq",
        fold=partial(fold_entry, calendar=calendar),
    )
    events = Source(
        name="events",
        subjects=STANDINGS,
        newest="links",
        feeds=(
            event_feed(decode_event, EVENT_FIELDS),
            void_feed(decode_void, VOID_FIELDS),
            tier_change_feed(decode_tier_change, TIER_CHANGE_FIELDS),
        ),
        states=MEMBER_STATES,
        state=MemberReadModel,
        watermark="number",
        fold=partial(fold_event, calendar=calendar),
        # The documents of a member are in three collections, and those of one commit arrive in any order.
        dense=False,
    )
    return ViewGroup(BOOKS, BOOKS_VERSION, (entries, events), AGGREGATES)


def decode_entry(row: Document) -> FoldedEntry:
    return msgspec.convert(row, FoldedEntry, builtin_types=_NATIVE)


def decode_event(row: Document) -> FoldedEvent:
    return msgspec.convert(row, FoldedEvent, builtin_types=_NATIVE)


def decode_tier_change(row: Document) -> FoldedTierChange:
    return msgspec.convert(row, FoldedTierChange, builtin_types=_NATIVE)


def decode_void(row: Document) -> FoldedVoid:
    return msgspec.convert(row, FoldedVoid, builtin_types=_NATIVE)
