"""Effect of an entry on the lots, holds and cohorts of its account. Pure."""

from collections.abc import Iterable
from typing import NamedTuple

from msgspec.structs import replace

from guerdon.ledger.lots import UNDATED
from guerdon.ledger.models import Lot, LotDates
from guerdon.views.cohorts import CohortBook
from guerdon.views.entries import AnyEntry
from guerdon.views.flows import MOVES, is_return
from guerdon.views.models import Cohort, Flow, HeldLots

CAMPAIGN_KINDS = frozenset({"award", "clawback"})
"""Kinds of entries whose metadata names a campaign. Only events write them, so callers cannot choose that metadata."""
Net = dict[LotDates, int]
"""Signed change of each lot, held value included. `UNDATED` is undated paid value."""


def campaign_of(entry: AnyEntry) -> tuple[str, int]:
    """Return the campaign and version of an award or clawback, or "" and 0."""
    if entry.kind not in CAMPAIGN_KINDS:
        return "", 0
    version = entry.metadata.get("version", "")
    return entry.metadata.get("campaign", ""), int(version) if version.isdecimal() else 0


class Moved(NamedTuple):
    """Effect of an entry on the lots of its account."""

    net: Net
    """Change of each lot, held value included."""
    held: Net
    """Change of the held value of each lot."""
    holds: tuple[HeldLots, ...]
    """Holds with dated value after the entry."""


def moved_by(entry: AnyEntry, holds: tuple[HeldLots, ...]) -> Moved:
    """Return the effect of an entry on an account with these holds."""
    if entry.lots is None and entry.hold is None:
        return Moved(_with_undated({}, entry.amount), {}, holds)
    hold, lots = entry.hold, entry.lots or ()
    net: Net = {}
    for lot in lots:
        net[lot.dates] = net.get(lot.dates, 0) + lot.amount
    if hold is None:
        return Moved(_with_undated(net, entry.amount), {}, holds)
    if hold.change > 0:
        # The value is set aside and stays in its lots.
        set_aside: Net = {dates: -change for dates, change in net.items()}
        taken = tuple(replace(lot, amount=-lot.amount) for lot in lots)
        holds = (*holds, HeldLots(hold.seq, taken)) if taken else holds
        return Moved({}, _with_undated(set_aside, hold.change), holds)
    before = next((each.lots for each in holds if each.seq == hold.seq), ())
    holds = tuple([each for each in holds if each.seq != hold.seq])
    held: Net = {}
    if entry.amount:
        held = dict(net)
        rest = _without(before, lots)
        holds = (*holds, HeldLots(hold.seq, rest)) if rest else holds
    else:
        for lot in before:
            held[lot.dates] = held.get(lot.dates, 0) - lot.amount
            net[lot.dates] = net.get(lot.dates, 0) - lot.amount
    return Moved(_with_undated(net, entry.amount), _with_undated(held, hold.change), holds)


def _with_undated(dated: Net, whole: int) -> Net:
    """Return changes of lots that add up to `whole`: what the dated ones leave is undated."""
    undated = whole - sum(dated.values())
    changes = {dates: change for dates, change in dated.items() if change}
    if undated:
        changes[UNDATED] = undated
    return changes


def _without(held: Iterable[Lot], captured: Iterable[Lot]) -> tuple[Lot, ...]:
    """Return what is left of held lots after a capture, whose lots have negative amounts."""
    amounts = {lot.dates: lot.amount for lot in captured}
    rest = [replace(lot, amount=lot.amount + amounts.get(lot.dates, 0)) for lot in held]
    return tuple([lot for lot in rest if lot.amount])


def apply(book: CohortBook, moved: Net, entry: AnyEntry, flow: Flow | None, cohort: Cohort) -> None:
    """Apply an entry to the cohorts of its account. `cohort` is that of value that arrives; its amount has no meaning."""
    if flow is None:
        _shift(book, moved)
    elif entry.amount < 0:
        campaign = cohort.campaign if flow == "clawed_back" else ""
        for dates, change in moved.items():
            book.leave(dates, -change, MOVES[flow], campaign=campaign, month=cohort.month)
    else:
        receive = book.give_back if is_return(entry) else book.arrive
        for dates, change in moved.items():
            receive(dates, cohort.with_amount(change), MOVES[flow])


def _shift(book: CohortBook, moved: Net) -> None:
    """Move value between lots, or let it repay a debt. The balance stays the same."""
    if moved:
        before = [(dates, -change) for dates, change in moved.items() if change < 0]
        after = [(dates, change) for dates, change in moved.items() if change > 0 and dates != UNDATED]
        book.shift(before, after, moved.get(UNDATED, 0))
