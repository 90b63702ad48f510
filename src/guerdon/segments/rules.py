"""Recency, frequency and money: what is measured, the bounds of the fifths, the scores, and the groups. Pure.

The names of the groups, and that a group follows from the recency and from frequency and money together, are those of Shopify's customer
segments (https://shopify.dev/docs/api/admin-graphql/latest/enums/customerrfmgroup). The bounds of the groups are Guerdon's own.
"""

from collections.abc import Mapping
from datetime import timedelta
from typing import Any, NamedTuple

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.award_types import refunded_share
from guerdon.campaigns.domain import PURCHASE, EvaluationInputs, Item, MemberState, PurchaseRefunds, Refundable, ShopEvent
from guerdon.campaigns.evaluation import Subject, member_facts
from guerdon.campaigns.purchase_history import last_purchase_before
from guerdon.segments.models import MemberPurchases, MemberRow, RfmBounds

WINDOW_DAYS = 365
"""Number of days before a run whose purchases count."""
FIFTHS = 5
SUM_MAX = 9 * 10**18
"""Maximum of a stored sum, within the 64-bit integers of the database. A larger sum is stored as this value."""


# --- what is measured -----------------------------------------------------------------------------------------------


def window_start(at_ms: int, calendar: Calendar) -> int:
    """Return the midnight that begins the day 365 days before the day of a run."""
    return calendar.midnight(calendar.local(at_ms).date() - timedelta(days=WINDOW_DAYS))


def days_between(last_ms: int, at_ms: int, calendar: Calendar) -> int:
    """Return the number of whole days of the calendar from a purchase to a run. A day with a change of the clocks is one day."""
    return max(0, (calendar.local(at_ms).date() - calendar.local(last_ms).date()).days)


class RefundedPurchase(Struct, frozen=True):
    """A purchase with refunds or a void."""

    amount: int
    currency: str
    items: tuple[Item, ...]
    refunds: PurchaseRefunds


def correction_of(purchase: RefundedPurchase) -> tuple[int, int]:
    """Return what refunds and a void change of the number of purchases and of the spend. Both are 0 or less.

    A purchase counts until it is wholly refunded, as `refunded_share` defines it. A voided purchase never counts.
    """
    refunds, counted = purchase.refunds, int(purchase.amount >= 0)
    if refunds.voided is not None:
        return -counted, -purchase.amount
    taken = min(refunds.amount, max(purchase.amount, 0))
    whole = counted and refunded_share(refunds, Refundable(purchase.amount, (), purchase.items)) >= 1
    return -int(whole), -taken


def bounded(amount: int) -> int:
    """Return the sum, limited to -`SUM_MAX` … `SUM_MAX`."""
    return max(-SUM_MAX, min(SUM_MAX, amount))


def last_purchase_day(state: MemberState | None, at_ms: int, calendar: Calendar) -> int | None:
    """Return the number of days since the last purchase before a run, or None without one. Refunded purchases count, voided ones do not."""
    last = None if state is None else last_purchase_before(state, at_ms - 1)
    return None if last is None or last >= at_ms else days_between(last, at_ms, calendar)


def is_scored(measured: MemberPurchases) -> bool:
    """Return whether the member has a purchase in the 365 days, so that the bounds are computed from it."""
    return measured.days is not None and measured.days <= WINDOW_DAYS


def chosen_currency(counts: Mapping[str, int], wanted: str | None) -> str | None:
    """Return the currency of the money: the wanted one, or that of the most purchases, the first by name of several. None without purchases."""
    if wanted is not None:
        return wanted
    return min(counts, key=lambda currency: (-counts[currency], currency), default=None)


# --- bounds and scores ----------------------------------------------------------------------------------------------


class Fifths:
    """Upper bounds of the first four fifths of a number of values.

    The bound of the k-th fifth is the smallest value that at least k fifths of the values do not exceed.
    """

    def __init__(self, total: int) -> None:
        self._total = total
        self._seen = 0
        self.bounds: tuple[int, ...] = ()

    def add(self, value: int, times: int) -> None:
        """Add a value that occurs a number of times. Values are added in ascending order."""
        self._seen += times
        while len(self.bounds) < FIFTHS - 1 and self._seen * FIFTHS >= (len(self.bounds) + 1) * self._total:
            self.bounds = (*self.bounds, value)


def fifth_of(value: int, bounds: tuple[int, ...]) -> int:
    """Return the fifth that a value is in, 1 to 5. Equal values are in the same fifth: the lowest that one of them reaches."""
    return 1 + sum(value > bound for bound in bounds)


class Scores(NamedTuple):
    """Scores of a member, 1 to 5, or 0 for a member who has never bought."""

    recency: int
    frequency: int
    monetary: int


def scores_of(measured: MemberPurchases, currency: str | None, bounds: RfmBounds) -> Scores:
    """Return the scores of a member. A member whose purchases are all older than the 365 days has the lowest."""
    if measured.days is None:
        return Scores(0, 0, 0)
    if not is_scored(measured):
        return Scores(1, 1, 1)
    return Scores(
        FIFTHS + 1 - fifth_of(measured.days, bounds.days),
        fifth_of(measured.purchases, bounds.purchases),
        fifth_of(measured.spent.get(currency or "", 0), bounds.spent),
    )


class GroupBounds(NamedTuple):
    """Scores of the members of a group, bounds included. `value` is frequency + monetary, 2 to 10."""

    name: str
    recency: tuple[int, int]
    value: tuple[int, int]


GROUPS = (
    GroupBounds("champions", (5, 5), (8, 10)),
    GroupBounds("loyal", (3, 4), (8, 10)),
    GroupBounds("active", (4, 5), (5, 7)),
    GroupBounds("new", (5, 5), (2, 4)),
    GroupBounds("promising", (4, 4), (2, 4)),
    GroupBounds("needs-attention", (3, 3), (5, 7)),
    GroupBounds("at-risk", (1, 2), (5, 7)),
    GroupBounds("previously-loyal", (1, 2), (8, 10)),
    GroupBounds("almost-lost", (2, 3), (2, 4)),
    GroupBounds("dormant", (1, 1), (2, 4)),
    GroupBounds("prospects", (0, 0), (0, 0)),
)
"""The groups. Every combination of scores is in exactly one of them."""


def group_of(scores: Scores) -> str:
    """Return the name of the group of a member."""
    recency, value = scores.recency, scores.frequency + scores.monetary
    return next(
        group.name
        for group in GROUPS
        if group.recency[0] <= recency <= group.recency[1] and group.value[0] <= value <= group.value[1]
    )


# --- conditions -----------------------------------------------------------------------------------------------------


def facts_of_row(row: MemberRow, subject: Subject, state: MemberState | None, tier: str | None, run: "RunTime") -> dict[str, Any]:
    """Return what the condition of a segment reads of a member at the time of a run: the state that a purchase at that time would find.

    `member.segments` has the group alone, so that segments do not depend on each other.
    """
    purchase = ShopEvent(id="", type=PURCHASE, occurred_at=run.at, amount=0, currency="")
    inputs = EvaluationInputs(
        judged_at=run.at,
        tier=tier,
        purchases=0 if state is None else state.purchases,
        last_purchase_at=None if state is None else last_purchase_before(state, run.at),
        referrer=None if state is None else state.referrer,
        segments=(row.group,),
    )
    measured = row.measured
    return {
        **member_facts(subject, purchase, inputs, run.calendar),
        "purchases": inputs.purchases,
        "rfm": {
            "group": row.group,
            "recency": row.recency,
            "frequency": row.frequency,
            "monetary": row.monetary,
            "days": -1 if measured.days is None else measured.days,
            "purchases": measured.purchases,
            "spent": measured.spent.get(run.currency or "", 0),
        },
    }


class RunTime(NamedTuple):
    """Values that are the same for all members of a run."""

    at: int
    calendar: Calendar
    currency: str | None
