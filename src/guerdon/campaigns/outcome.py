"""What an event comes to, before anything is booked: judged, decided, and with what was refunded of it early. Pure.

The one place that says it: recording books what stands here, a replay compares it with what is stored, and a simulation adds it up.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.achievements import reach, without
from guerdon.campaigns.allocation import Allocation, allocate, apply_allocation, wallet_after
from guerdon.campaigns.domain import (
    PURCHASE,
    AchievementProgress,
    AchievementReached,
    AwaitedEvent,
    Award,
    AwardWallet,
    DecisionView,
    EvaluationInputs,
    PurchaseRefunds,
    Release,
    Released,
    ShopEvent,
)
from guerdon.campaigns.evaluation import Evaluation
from guerdon.campaigns.line_items import add_up
from guerdon.campaigns.models import Campaign, PendingEvent
from guerdon.campaigns.refunds import AwardClawback, Refundable, RefundRequest, award_wallet_name, refund, take_whole
from guerdon.campaigns.releases import CONFIRMED_MAX, lot_of, released_now


class EventOutcome(Struct, frozen=True):
    """Everything that is decided about an event."""

    allocations: list[Allocation] = []
    taken: list[AwardClawback] = []
    """What goes back of earlier awards, or of these where the purchase was refunded before it arrived."""
    decisions: list[DecisionView] = []
    refunded: PurchaseRefunds | None = None
    """What has been refunded of the purchase now, where that has changed."""
    note: str | None = None
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: how far the member is with its achievement now, where that has changed."""
    broken: list[AchievementReached] = []
    """Achievements that rested on what is refunded now."""
    releases: list[Release] = []
    """What has waited and is spendable now, without the names that the ledger gives it."""

    @property
    def awards(self) -> list[Award]:
        """What is paid and taken, without the names that the ledger gives it."""
        return [
            *(award_of(verdict) for verdict in self.allocations if verdict.amount),
            *(clawback_award(each) for each in self.taken),
        ]


def award_of(verdict: Allocation, transaction_id: str | None = None) -> Award:
    """What a campaign pays, or takes back."""
    campaign, lot = verdict.campaign, verdict.lot
    return Award(
        campaign=campaign.id,
        version=campaign.version,
        asset=campaign.asset,
        amount=verdict.amount,
        transaction_id=transaction_id,
        available_at=None if lot is None else lot.available_at,
        expires_at=None if lot is None else lot.expires_at,
        counted=tuple(each.account for each in verdict.counters),
        clawback=campaign.clawback,
        items=campaign.items,
        to=verdict.to,
        achievement=campaign.achievement is not None,
        waits=waiting_of(campaign) if lot is not None and lot.awaits_confirmation else None,
    )


def waiting_of(campaign: Campaign) -> AwaitedEvent | None:
    """What an award of the campaign waits for, if it is an event."""
    pending = campaign.pending
    return AwaitedEvent(event_type=pending.event_type, expiry=campaign.expiry) if isinstance(pending, PendingEvent) else None


def clawback_award(taken: AwardClawback, transaction_id: str | None = None) -> Award:
    """What a refund takes back of an award."""
    return msgspec.structs.replace(
        taken.award, amount=-taken.amount, transaction_id=transaction_id, available_at=None, expires_at=None, waits=None
    )


def event_outcome(
    event: ShopEvent, owner: str, judgements: Sequence[Evaluation], inputs: EvaluationInputs, calendar: Calendar
) -> EventOutcome:
    """Decide what the judgements pay, and take back at once what was refunded before a purchase arrived."""
    verdicts = allocate(event, owner, judgements, inputs, calendar)
    decisions = [
        DecisionView(each.campaign.id, each.campaign.version, each.outcome, each.amount, each.reasons) for each in verdicts
    ]
    achieved = _achieved(event, judgements, verdicts, inputs)
    before = inputs.before
    if event.type != PURCHASE or before is None or not before.amount or event.amount <= 0:
        return EventOutcome(verdicts, decisions=decisions, achieved=achieved)
    wallets = dict(inputs.wallets)
    for verdict in verdicts:
        apply_allocation(wallets, verdict)
    purchase = Refundable(event.amount, [award_of(verdict) for verdict in verdicts if verdict.amount], event.items)
    asked = RefundRequest(before.amount, before.itemised, before.items)
    unknown = msgspec.structs.replace(before, amount=0, itemised=0, items=())
    early = refund(unknown, asked, purchase, wallets, inputs.decided_at)
    note = f"{early.refunded.amount} were refunded before it arrived"
    return EventOutcome(verdicts, early.taken, decisions + early.decisions, early.refunded, note, achieved)


def refund_outcome(event: ShopEvent, owner: str, purchase: Refundable | None, inputs: EvaluationInputs) -> EventOutcome:
    """Decide what a linked refund takes back; None is a purchase that has not arrived, for which it waits."""
    known = inputs.before or PurchaseRefunds(id=f"{owner}/{event.refund_of}", owner=owner)
    if purchase is None:
        waiting = msgspec.structs.replace(
            known,
            count=known.count + 1,
            amount=known.amount + event.amount,
            itemised=known.itemised + (event.amount if event.items else 0),
            items=add_up(event.items, known.items),
        )
        return EventOutcome(refunded=waiting, note=f"it waits for its purchase, {event.refund_of}")
    asked = RefundRequest(event.amount, event.amount if event.items else 0, add_up(event.items))
    outcome = refund(known, asked, purchase, inputs.wallets, inputs.decided_at)
    if not 2 * known.amount < purchase.amount <= 2 * outcome.refunded.amount:
        return EventOutcome(taken=outcome.taken, decisions=outcome.decisions, refunded=outcome.refunded)
    assert event.refund_of is not None
    achieved: dict[str, AchievementProgress] = {}
    broken: list[AchievementReached] = []
    for campaign, state in inputs.achieved.items():
        achieved[campaign], gone = without(state, event.refund_of)
        for reached in gone:
            outcome = take_whole(reached, f"{event.refund_of} counts no more", outcome, inputs.decided_at)
        broken += gone
    return EventOutcome([], outcome.taken, outcome.decisions, outcome.refunded, None, achieved, broken)


def confirmation_outcome(
    event: ShopEvent, owner: str, awards: Sequence[Award] | None, inputs: EvaluationInputs, calendar: Calendar
) -> EventOutcome:
    """Decide what an event releases that confirms a purchase; no awards are those of one that has not arrived."""
    known = inputs.before or PurchaseRefunds(id=f"{owner}/{event.about}", owner=owner)
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
                left = {**inputs.waiting, lot_of(award): inputs.waiting[lot_of(award)] - release.amount}
                inputs = msgspec.structs.replace(inputs, waiting=left)
            wallets[award_wallet_name(award)] = wallet_after(wallets[award_wallet_name(award)], 0, -release.amount)
    note = None if decisions else f"nothing of {event.about} waits for {event.type}"
    if confirmed == known.confirmed and not releases:
        return EventOutcome(decisions=decisions, note=note)
    now = msgspec.structs.replace(known, count=known.count + 1, confirmed=confirmed, released=released)
    return EventOutcome(decisions=decisions, refunded=now, note=note, releases=releases)


def _achieved(
    event: ShopEvent, judgements: Sequence[Evaluation], verdicts: Sequence[Allocation], inputs: EvaluationInputs
) -> dict[str, AchievementProgress]:
    """What has become of the achievements that the event counts for. One that a cap or the budget leaves unpaid is achieved all the same."""
    achieved: dict[str, AchievementProgress] = {}
    for judgement, verdict in zip(judgements, verdicts, strict=True):
        taken = judgement.step
        if taken is None:
            continue
        state = taken.state
        if taken.completed:
            award = award_of(verdict) if verdict.amount else None
            reached = AchievementReached(
                kind=state.kind, marks=taken.completed, occurred_at=event.occurred_at, recorded_at=inputs.decided_at, award=award
            )
            state = reach(taken, reached)
        achieved[judgement.campaign.id] = state
    return achieved
