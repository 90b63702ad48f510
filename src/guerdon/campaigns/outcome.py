"""Outcome of an event before anything is booked: awards, decisions, clawbacks and releases. Pure.

Recording books the outcome, a replay compares it with the stored event, and a simulation adds outcomes up.
"""

from collections.abc import Mapping, Sequence
from fractions import Fraction

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.achievements import reach, without
from guerdon.campaigns.allocation import Allocation, allocate, apply_allocation, wallet_after
from guerdon.campaigns.award_types import AWARD_TYPES, refunded_share
from guerdon.campaigns.domain import (
    PURCHASE,
    AchievementProgress,
    AchievementReached,
    AwaitedEvent,
    Award,
    AwardWallet,
    DecisionView,
    EarlyRefunds,
    EvaluationInputs,
    PurchaseRefunds,
    Refundable,
    Release,
    Released,
    ShopEvent,
)
from guerdon.campaigns.evaluation import Evaluation
from guerdon.campaigns.line_items import add_up, merged
from guerdon.campaigns.models import Campaign, PendingEvent
from guerdon.campaigns.refunds import AwardClawback, RefundOutcome, RefundRequest, award_wallet_name, lot_name, refund, take_whole
from guerdon.campaigns.releases import CONFIRMED_MAX, released_now

HALF = Fraction(1, 2)
"""Refunded share of a purchase from which it no longer counts towards achievements."""


class EventOutcome(Struct, frozen=True):
    """Everything that is decided about an event."""

    allocations: list[Allocation] = []
    taken: list[AwardClawback] = []
    """Clawbacks of earlier awards, or of these awards if the purchase was refunded before it arrived."""
    decisions: list[DecisionView] = []
    refunded: PurchaseRefunds | None = None
    """Refunds of the purchase after this event. None if they have not changed."""
    note: str | None = None
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: progress in its achievement after this event, where it has changed."""
    broken: list[AchievementReached] = []
    """Achievements that counted the refunded purchase."""
    releases: list[Release] = []
    """Releases of waiting awards, without transaction ids."""
    expired: Mapping[str, int] = {}
    """By lot name: expired value that a refund has left for later ones."""

    @property
    def awards(self) -> list[Award]:
        """Awards and clawbacks, without transaction ids."""
        return [
            *(award_of(allocation) for allocation in self.allocations if allocation.amount),
            *(clawback_award(each) for each in self.taken),
        ]


def award_of(allocation: Allocation, transaction_id: str | None = None) -> Award:
    """Return the stored form of an allocation."""
    campaign, lot = allocation.campaign, allocation.lot
    return Award(
        campaign=campaign.id,
        version=campaign.version,
        asset=campaign.asset,
        amount=allocation.amount,
        transaction_id=transaction_id,
        available_at=None if lot is None else lot.available_at,
        expires_at=None if lot is None else lot.expires_at,
        counted=tuple(each.account for each in allocation.counters),
        clawback=campaign.clawback,
        items=campaign.items,
        to=allocation.to,
        achievement=campaign.achievement is not None,
        waits=waiting_of(campaign) if lot is not None and lot.awaits_confirmation else None,
        refund_rule=AWARD_TYPES[type(campaign.award)].refund_rule,
    )


def waiting_of(campaign: Campaign) -> AwaitedEvent | None:
    """Return the event that an award of the campaign waits for, or None."""
    pending = campaign.pending
    return AwaitedEvent(event_type=pending.event_type, expiry=campaign.expiry) if isinstance(pending, PendingEvent) else None


def clawback_award(taken: AwardClawback, transaction_id: str | None = None) -> Award:
    """Return the stored form of a clawback."""
    return msgspec.structs.replace(
        taken.award, amount=-taken.amount, transaction_id=transaction_id, available_at=None, expires_at=None, waits=None
    )


def event_outcome(
    event: ShopEvent, owner: str, evaluations: Sequence[Evaluation], inputs: EvaluationInputs, calendar: Calendar
) -> EventOutcome:
    """Return the outcome of evaluations. What was refunded before the purchase arrived is taken back at once."""
    allocations = allocate(event, owner, evaluations, inputs, calendar)
    decisions = [
        DecisionView(each.campaign.id, each.campaign.version, each.outcome, each.amount, each.reasons) for each in allocations
    ]
    achieved = _achieved(event, evaluations, allocations, inputs)
    before = inputs.before
    if event.type != PURCHASE or before is None or not _has_refunds(before) or event.amount < 0:
        return EventOutcome(allocations, decisions=decisions, note=left_out(event, before), achieved=achieved)
    wallets = dict(inputs.wallets)
    for allocation in allocations:
        apply_allocation(wallets, allocation)
    purchase = Refundable(event.amount, [award_of(allocation) for allocation in allocations if allocation.amount], event.items)
    without_items = before.without_items or before.amount > before.itemised
    request = RefundRequest(before.amount, before.itemised, before.items, without_items)
    unrefunded = msgspec.structs.replace(before, amount=0, itemised=0, items=(), without_items=False)
    early = refund(unrefunded, request, purchase, wallets, inputs.decided_at)
    note = "; ".join(filter(None, (f"{early.refunded.amount} were refunded before it arrived", left_out(event, before))))
    return EventOutcome(allocations, early.taken, decisions + early.decisions, early.refunded, note, achieved)


def refunds_at_arrival(known: PurchaseRefunds, currency: str) -> PurchaseRefunds:
    """Return the refunds of a purchase when it arrives: those that waited for it count if they are in its currency."""
    same = known.early.get(currency)
    if same is None:
        return known
    return msgspec.structs.replace(
        known,
        amount=known.amount + same.amount,
        itemised=known.itemised + same.itemised,
        items=merged(known.items, same.items),
        without_items=known.without_items or same.without_items,
    )


def left_out(event: ShopEvent, before: PurchaseRefunds | None) -> str | None:
    """Return a note on the refunds in other currencies that arrived before their purchase, or None."""
    if event.type != PURCHASE or before is None:
        return None
    others = [f"{early.amount} in {currency}" for currency, early in sorted(before.early.items()) if currency != event.currency]
    return f"refunds of {', '.join(others)} that arrived before it are left out: it is in {event.currency}" if others else None


def _has_refunds(refunded: PurchaseRefunds) -> bool:
    """Return whether a refund, and not only a confirmation, was recorded."""
    return bool(refunded.amount or refunded.items or refunded.without_items)


def refund_outcome(event: ShopEvent, owner: str, purchase: Refundable | None, inputs: EvaluationInputs) -> EventOutcome:
    """Return the outcome of a linked refund. `purchase` is None if it has not arrived; the refund then waits for it."""
    known = inputs.before or PurchaseRefunds(id=f"{owner}/{event.refund_of}", owner=owner)
    if known.voided is not None:
        return EventOutcome(note=f"{event.refund_of} was voided: nothing is left to take back", expired=inputs.expired or {})
    if purchase is None:
        same = known.early.get(event.currency, EarlyRefunds())
        more = EarlyRefunds(
            amount=same.amount + event.amount,
            itemised=same.itemised + (event.amount if event.items else 0),
            items=add_up(event.items, same.items),
            without_items=same.without_items or not event.items,
        )
        waiting = msgspec.structs.replace(known, count=known.count + 1, early={**known.early, event.currency: more})
        return EventOutcome(refunded=waiting, note=f"it waits for its purchase, {event.refund_of}")
    request = RefundRequest(event.amount, event.amount if event.items else 0, add_up(event.items), not event.items)
    outcome = refund(known, request, purchase, inputs.wallets, inputs.decided_at, expired=inputs.expired)
    if not refunded_share(known, purchase) < HALF <= refunded_share(outcome.refunded, purchase):
        return EventOutcome(taken=outcome.taken, decisions=outcome.decisions, refunded=outcome.refunded, expired=outcome.expired)
    assert event.refund_of is not None
    return _without_achievements(event.refund_of, outcome, inputs)


def void_outcome(event_id: str, event: Refundable, known: PurchaseRefunds, inputs: EvaluationInputs) -> EventOutcome:
    """Return the outcome of the void of an event: what is left of its awards is taken back, and it counts towards no achievement."""
    request = RefundRequest(max(event.amount - known.amount, 0), without_items=True, void=True)
    outcome = refund(known, request, event, inputs.wallets, inputs.decided_at, expired=inputs.expired)
    return _without_achievements(event_id, outcome, inputs)


def _without_achievements(event_id: str, outcome: RefundOutcome, inputs: EvaluationInputs) -> EventOutcome:
    """Return the outcome of a refund after which the event counts no more towards the achievements in `inputs`."""
    achieved: dict[str, AchievementProgress] = {}
    broken: list[AchievementReached] = []
    for campaign, state in inputs.achieved.items():
        achieved[campaign], lost = without(state, event_id)
        for reached in lost:
            outcome = take_whole(reached, f"{event_id} counts no more", outcome, inputs.decided_at)
        broken += lost
    return EventOutcome(
        taken=outcome.taken,
        decisions=outcome.decisions,
        refunded=outcome.refunded,
        achieved=achieved,
        broken=broken,
        expired=outcome.expired,
    )


def confirmation_outcome(
    event: ShopEvent, owner: str, awards: Sequence[Award] | None, inputs: EvaluationInputs, calendar: Calendar
) -> EventOutcome:
    """Return the outcome of a confirmation. `awards` is None if the purchase has not arrived; the confirmation then waits for it."""
    known = inputs.before or PurchaseRefunds(id=f"{owner}/{event.about}", owner=owner)
    if known.voided is not None:
        return EventOutcome(note=f"{event.about} was voided: nothing of it waits")
    confirmed = known.confirmed
    if event.type not in confirmed and len(confirmed) < CONFIRMED_MAX:
        confirmed = {**confirmed, event.type: event.id}
    if awards is None:
        waiting = msgspec.structs.replace(known, count=known.count + 1, confirmed=confirmed)
        return EventOutcome(refunded=waiting, note=f"it waits for its purchase, {event.about}")
    releases: list[Release] = []
    decisions: list[DecisionView] = []
    released, wallets = dict(known.released), dict(inputs.wallets)
    for award in awards:
        if award.waits is None or award.waits.event_type != event.type:
            continue
        release, reason = released_now(award, known, wallets.get(award_wallet_name(award), AwardWallet()), inputs, calendar)
        decisions.append(DecisionView(award.campaign, award.version, "refused" if release is None else "awarded", 0, [reason]))
        if release is not None:
            releases.append(release)
            released[award.campaign] = Released(event=event.id, expires_at=release.expires_at)
            if inputs.waiting is not None:
                left = {**inputs.waiting, lot_name(award): inputs.waiting[lot_name(award)] - release.amount}
                inputs = msgspec.structs.replace(inputs, waiting=left)
            wallets[award_wallet_name(award)] = wallet_after(wallets[award_wallet_name(award)], 0, -release.amount)
    note = None if decisions else f"nothing of {event.about} waits for {event.type}"
    if confirmed == known.confirmed and not releases:
        return EventOutcome(decisions=decisions, note=note)
    now = msgspec.structs.replace(known, count=known.count + 1, confirmed=confirmed, released=released)
    return EventOutcome(decisions=decisions, refunded=now, note=note, releases=releases)


def _achieved(
    event: ShopEvent, evaluations: Sequence[Evaluation], allocations: Sequence[Allocation], inputs: EvaluationInputs
) -> dict[str, AchievementProgress]:
    """Return the progress in the achievements that the event counts for. A goal counts as reached even if a cap or the budget leaves no award."""
    achieved: dict[str, AchievementProgress] = {}
    for evaluation, allocation in zip(evaluations, allocations, strict=True):
        step = evaluation.step
        if step is None:
            continue
        state = step.state
        if step.completed:
            award = award_of(allocation) if allocation.amount else None
            reached = AchievementReached(
                kind=state.kind, marks=step.completed, occurred_at=event.occurred_at, recorded_at=inputs.decided_at, award=award
            )
            state = reach(step, reached)
        achieved[evaluation.campaign.id] = state
    return achieved
