"""Cohorts that remember the entries that brought their value, to tell which of them a spend consumed. Pure.

The rules are those of `guerdon.views.cohorts`, because the same code applies them: the pieces of a spend add up to the cohorts that the
views show.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from guerdon.calendar import Calendar
from guerdon.ledger.models import Source
from guerdon.views.cohorts import CohortBook
from guerdon.views.effects import apply, campaign_of, moved_by
from guerdon.views.entries import AnyEntry
from guerdon.views.flows import flow_of
from guerdon.views.models import Cohort, HeldLots

Part = tuple[int, int]
"""Number of an entry, and the amount of its value."""


class TracedCohort(Cohort, frozen=True):
    """Cohort whose value is known by the entries that brought it, in order."""

    parts: tuple[Part, ...] = ()

    def with_amount(self, amount: int) -> "TracedCohort":
        """Return the same cohort with an amount that the first of its entries brought."""
        return TracedCohort(self.month, amount, self.campaign, self.version, self.debt, ((self.parts[0][0], amount),))

    def of_amount(self, amount: int) -> "TracedCohort":
        return self._with(amount, _first(self.parts, amount))

    def without(self, amount: int) -> "TracedCohort":
        return self._with(self.amount - amount, _rest(self.parts, amount))

    def joined(self, other: Cohort) -> "TracedCohort":
        parts = other.parts if isinstance(other, TracedCohort) else ()
        return self._with(self.amount + other.amount, (*self.parts, *parts))

    def _with(self, amount: int, parts: tuple[Part, ...]) -> "TracedCohort":
        return TracedCohort(self.month, amount, self.campaign, self.version, self.debt, parts)


class Piece(NamedTuple):
    """Part of the value that left an account."""

    seq: int | None
    """Number of the entry that brought it; None for value that was owed."""
    source: Source
    month: str
    campaign: str
    version: int
    amount: int


class Tracer:
    """Follows the entries of one account, from the first one, in order."""

    def __init__(self, calendar: Calendar) -> None:
        self._calendar = calendar
        self._book = CohortBook((), ())
        self._holds: tuple[HeldLots, ...] = ()

    def follow(self, entry: AnyEntry) -> list[Piece]:
        """Apply the next entry. Return the pieces of the value that it takes from the account, in the order in which they leave."""
        book, month = self._book, self._calendar.names(entry.at)[1]
        book.mature(entry.at)
        book.movements = []
        moved, _, self._holds = moved_by(entry, self._holds)
        campaign, version = campaign_of(entry)
        cohort = TracedCohort(month, 0, campaign, version, None, ((entry.seq, 0),))
        apply(book, moved, entry, flow_of(entry) if entry.amount else None, cohort)
        return list(_pieces(book)) if entry.amount < 0 else []


def _pieces(book: CohortBook) -> Iterator[Piece]:
    for movement in book.movements:
        cohort = movement.cohort
        if isinstance(cohort, TracedCohort):
            for seq, amount in cohort.parts:
                yield Piece(seq, movement.source, cohort.month, cohort.campaign, cohort.version, amount)
        else:
            yield Piece(None, movement.source, cohort.month, "", 0, -movement.amount)


def trace(entries: Iterable[AnyEntry], calendar: Calendar, wanted: Callable[[AnyEntry], bool]) -> dict[int, list[Piece]]:
    """Return the pieces of the wanted entries by their number. `entries` are all entries of one account up to the last wanted one."""
    tracer = Tracer(calendar)
    found: dict[int, list[Piece]] = {}
    for entry in entries:
        pieces = tracer.follow(entry)
        if wanted(entry):
            found[entry.seq] = pieces
    return found


def _first(parts: tuple[Part, ...], amount: int) -> tuple[Part, ...]:
    taken: list[Part] = []
    for seq, size in parts:
        if amount <= 0:
            break
        taken.append((seq, min(size, amount)))
        amount -= size
    return tuple(taken)


def _rest(parts: tuple[Part, ...], amount: int) -> tuple[Part, ...]:
    left: list[Part] = []
    for seq, size in parts:
        if amount < size:
            left.append((seq, size - max(amount, 0)))
        amount -= size
    return tuple(left)
