"""The view group `books`: what is derived from entries and events, in one pass."""

from functools import partial

import msgspec

from guerdon.calendar import Calendar
from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS
from guerdon.projections.models import Source, ViewGroup
from guerdon.views.entries import FOLDED_FIELDS, FoldedEntry
from guerdon.views.fold_entries import fold_entry
from guerdon.views.models import ACCOUNT_STATES, AGGREGATES, BOOKS, BOOKS_VERSION, AccountReadModel
from guerdon.views.sources import entry_feed


def _decode_entry(row: Document) -> FoldedEntry:
    return msgspec.convert(row, FoldedEntry, builtin_types=(bytes,))


def books_group(calendar: Calendar) -> ViewGroup:
    """Return the definition of the group. `calendar` gives the days and months of the programme."""
    entries = Source(
        name="entries",
        subjects=ACCOUNTS,
        newest="seq",
        feeds=(entry_feed(_decode_entry, FOLDED_FIELDS),),
        states=ACCOUNT_STATES,
        state=AccountReadModel,
        watermark="seq",
        fold=partial(fold_entry, calendar=calendar),
    )
    return ViewGroup(BOOKS, BOOKS_VERSION, (entries,), AGGREGATES)
