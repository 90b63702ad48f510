"""Fold of recorded events, voids and tier changes into the state of their member and the aggregates of campaigns, purchases and tiers. Pure.

Documents of one member are folded in the order of their chain, which is that of recording. Their own times can be in any order: a purchase
that is older than all that are known moves the member to an earlier cohort.
"""

from collections.abc import Iterable

from msgspec.structs import replace

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import PURCHASE, REFUND
from guerdon.projections.models import Folded, Increment, Target
from guerdon.views.events import FoldedEvent, FoldedTierChange, FoldedVoid
from guerdon.views.models import CAMPAIGN_MEMBERS, DECISIONS, MEMBER_MONTHS, PURCHASES, TIER_STEPS, MemberReadModel

TIMES_KEPT = 8
"""Number of first and of last purchases whose times a member's state keeps."""
VOID = "void"
Decisions = dict[tuple[str, int, str], list[int]]
"""By campaign, version and outcome: count, amount and revenue."""


def fold_event(
    state: MemberReadModel | None, document: FoldedEvent | FoldedVoid | FoldedTierChange, target: Target, *, calendar: Calendar
) -> Folded[MemberReadModel]:
    """Return the member after the next document, and the changes of the aggregates. `state` is None before the first one."""
    if state is None:
        version, part = target
        state = MemberReadModel(id=f"{version}|{document.owner}", version=version, part=part, owner=document.owner)
    state = replace(state, number=state.number if document.proof is None else document.proof.number)
    if isinstance(document, FoldedTierChange):
        key = (calendar.names(document.at)[0], document.before or "", document.after or "")
        return Folded(state, [Increment(TIER_STEPS, key, {"members": 1})])
    return _fold_event(state, document, calendar) if isinstance(document, FoldedEvent) else _fold_void(state, document, calendar)


def _fold_event(state: MemberReadModel, event: FoldedEvent, calendar: Calendar) -> Folded[MemberReadModel]:
    day, month = calendar.names(event.occurred_at)
    amount = event.amount
    if event.type == REFUND:
        # Of a purchase that was voided nothing is left to refund.
        amount = 0 if event.refund_of is not None and event.before.voided is not None else -amount
    increments = [Increment(PURCHASES, (day, event.currency, event.type), {"count": 1, "amount": amount})]
    decisions = _decisions_of(event, amount)
    increments += _decision_increments(day, event.currency, decisions)
    awarding = {campaign for (campaign, _, outcome), sums in decisions.items() if outcome == "awarded" and sums[1] > 0}
    new = sorted(awarding.difference(state.campaigns))
    increments += [Increment(CAMPAIGN_MEMBERS, (campaign,), {"members": 1}) for campaign in new]
    after = replace(
        state,
        last_event_at=max(event.occurred_at, state.last_event_at or event.occurred_at),
        campaigns=(*state.campaigns, *new),
        spent=_spent(state, event.currency, amount) if event.type in (PURCHASE, REFUND) else state.spent,
    )
    if event.type == PURCHASE and event.amount >= 0:
        after = _with_purchase(after, event.occurred_at, month)
    return Folded(after, [*increments, *_months_moved(state, after)])


def _fold_void(state: MemberReadModel, void: FoldedVoid, calendar: Calendar) -> Folded[MemberReadModel]:
    day = calendar.names(void.recorded_at)[0]
    event = void.voided
    if event is None:
        return Folded(state, [Increment(PURCHASES, (day, "", VOID), {"count": 1, "amount": 0})])
    left = event.amount - event.refunded
    sold = left if event.type == PURCHASE else 0
    increments = [Increment(PURCHASES, (day, event.currency, VOID), {"count": 1, "amount": -sold})]
    decisions: Decisions = {}
    for taken in event.taken:
        revenue = 0 if (taken.campaign, taken.version, "taken_back") in decisions else -left
        _count(decisions, (taken.campaign, taken.version, "taken_back"), 1, -taken.amount, revenue)
    increments += _decision_increments(day, event.currency, decisions)
    after = state
    if event.type == PURCHASE:
        after = replace(after, spent=_spent(after, event.currency, -left))
        if event.amount >= 0:
            after = _without_purchase(after, event.occurred_at, calendar)
    return Folded(after, [*increments, *_months_moved(state, after)])


# --- decisions ------------------------------------------------------------------------------------------------------


def _decisions_of(event: FoldedEvent, amount: int) -> Decisions:
    """Return the decisions on an event. `amount` is the change of the revenue that it makes."""
    found: Decisions = {}
    if event.confirms is not None:
        for release in event.releases:
            _count(found, (release.campaign, release.version, "released"), 1, release.amount, 0)
        return found
    evaluated: set[tuple[str, int]] = set()
    for decision in event.decisions:
        campaign, version = decision.campaign, decision.version
        outcome, revenue = decision.outcome, amount
        if event.refund_of is not None:
            # Every award of the purchase has a decision, also one of which nothing could be taken back.
            outcome = "taken_back"
        elif (campaign, version) in evaluated:
            # Refunds that arrived before their purchase follow the evaluations.
            outcome, revenue = "taken_back", -event.before.amount
        elif event.type == REFUND and outcome == "awarded":
            outcome = "taken_back"
        elif outcome != "awarded":
            revenue = 0
        evaluated.add((campaign, version))
        key = (campaign, version, outcome)
        counts = outcome != "taken_back" or decision.amount != 0
        _count(found, key, 1 if counts else 0, decision.amount, 0 if key in found else revenue)
    return found


def _count(decisions: Decisions, key: tuple[str, int, str], count: int, amount: int, revenue: int) -> None:
    sums = decisions.setdefault(key, [0, 0, 0])
    for index, change in enumerate((count, amount, revenue)):
        sums[index] += change


def _decision_increments(day: str, currency: str, decisions: Decisions) -> Iterable[Increment]:
    return [
        Increment(DECISIONS, (day, campaign, version, outcome, currency), {"count": count, "amount": amount, "revenue": revenue})
        for (campaign, version, outcome), (count, amount, revenue) in decisions.items()
    ]


# --- purchases ------------------------------------------------------------------------------------------------------


def _spent(state: MemberReadModel, currency: str, amount: int) -> dict[str, int]:
    return {**state.spent, currency: state.spent.get(currency, 0) + amount}


def _with_purchase(state: MemberReadModel, at: int, month: str) -> MemberReadModel:
    earliest, latest = state.earliest, state.latest
    if len(earliest) < TIMES_KEPT or at < earliest[-1]:
        # With fewer kept than there are, a later time could have one before it that is not known.
        known = len(earliest) == state.purchases or (earliest and at < earliest[-1])
        earliest = tuple(sorted((*earliest, at))[:TIMES_KEPT]) if known else earliest
    if len(latest) < TIMES_KEPT or at > latest[0]:
        known = len(latest) == state.purchases or (latest and at > latest[0])
        latest = tuple(sorted((*latest, at))[-TIMES_KEPT:]) if known else latest
    months = {**state.purchases_by_month, month: state.purchases_by_month.get(month, 0) + 1}
    first = at if state.first_purchase_at is None else min(at, state.first_purchase_at)
    last = at if state.last_purchase_at is None else max(at, state.last_purchase_at)
    return replace(
        state,
        purchases=state.purchases + 1,
        first_purchase_at=first,
        last_purchase_at=last,
        months=tuple(sorted(months)),
        purchases_by_month=months,
        earliest=earliest,
        latest=latest,
    )


def _without_purchase(state: MemberReadModel, at: int, calendar: Calendar) -> MemberReadModel:
    """Return the state without one purchase at a time.

    The first and last purchase that are left are known exactly while fewer than `TIMES_KEPT` of the first or last ones are voided. After that
    they are the beginning of the first month and the end of the last month with a purchase.
    """
    month = calendar.names(at)[1]
    count = state.purchases_by_month.get(month, 0)
    if not count:
        # The purchase is older than the chain of its member, and was counted by none.
        return state
    months = {name: number - (name == month) for name, number in state.purchases_by_month.items() if number - (name == month)}
    earliest, latest = _removed(state.earliest, at), _removed(state.latest, at)
    first, last = state.first_purchase_at, state.last_purchase_at
    if not months:
        first = last = None
    else:
        names = sorted(months)
        if at == first:
            first = earliest[0] if earliest else calendar.month_bounds(*_numbers(names[0]))[0]
        if at == last:
            last = latest[-1] if latest else calendar.month_bounds(*_numbers(names[-1]))[1] - 1
    return replace(
        state,
        purchases=state.purchases - 1,
        first_purchase_at=first,
        last_purchase_at=last,
        months=tuple(sorted(months)),
        purchases_by_month=months,
        earliest=earliest,
        latest=latest,
    )


def _removed(times: tuple[int, ...], at: int) -> tuple[int, ...]:
    index = times.index(at) if at in times else len(times)
    return times[:index] + times[index + 1 :]


def _numbers(month: str) -> tuple[int, int]:
    return int(month[:4]), int(month[5:])


def _months_moved(before: MemberReadModel, after: MemberReadModel) -> list[Increment]:
    """Return the changes of `MEMBER_MONTHS`: a new month, one that is gone, or another first month, which moves all of them."""
    if before.months == after.months:
        return []
    old = {(before.months[0], month) for month in before.months}
    new = {(after.months[0], month) for month in after.months}
    changes = [(key, -1) for key in sorted(old - new)] + [(key, 1) for key in sorted(new - old)]
    return [Increment(MEMBER_MONTHS, key, {"members": change}) for key, change in changes]
