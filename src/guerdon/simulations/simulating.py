"""Evaluation of one recorded event in a simulation, by the functions that recorded it, on simulated inputs. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.allocation import payee, wallet_name
from guerdon.campaigns.caps import BUDGET, cap_accounts
from guerdon.campaigns.domain import (
    PURCHASE,
    REFERRERS,
    AchievementProgress,
    Award,
    AwardWallet,
    EvaluationInputs,
    PurchaseRefunds,
    RecordedEvent,
    Refundable,
    Released,
    ShopEvent,
)
from guerdon.campaigns.evaluation import LiveCampaign, Subject, evaluate
from guerdon.campaigns.models import Campaign
from guerdon.campaigns.outcome import EventOutcome, confirmation_outcome, event_outcome, refund_outcome
from guerdon.campaigns.refunds import award_wallet_name, current_award
from guerdon.events.replay import event_of
from guerdon.simulations.differences import (
    Usages,
    newest_periods,
    simulated_qualifying,
    simulated_usage,
    simulated_wallet,
    store_real_wallets,
    update_qualifying,
    update_released,
    update_usages,
    update_wallets,
)
from guerdon.simulations.models import SimulatedMember, SimulatedPurchase
from guerdon.tiers.models import TierSet
from guerdon.tiers.rules import QualifyingGain, gains_of, tier_at

BUDGETS = "cmp_"
"""Prefix of the ids of budget accounts, which belong to campaigns. The ids of cap accounts begin with a member."""


class SimulationInput(Struct, frozen=True):
    """A recorded event with everything that its evaluation needs."""

    recorded: RecordedEvent
    inputs: EvaluationInputs
    campaigns: Sequence[LiveCampaign]
    """Campaigns to evaluate in the simulation, in order of priority."""
    real_campaigns: Sequence[LiveCampaign]
    """Campaigns that were evaluated when the event was recorded."""
    subject: Subject
    tiers: Sequence[TierSet] = ()
    """Versions of the tier set that the recorded evaluation used."""
    original: RecordedEvent | None = None
    """The purchase that the event refunds or confirms."""
    purchase: SimulatedPurchase | None = None
    """Simulated awards of `original`, if they differ from the real ones."""


class SimulatedOutcome(Struct, frozen=True):
    """Outcome of an event in the simulation."""

    awards: list[Award]
    tiers: tuple[str | None, str | None]
    """Simulated and real tier of the member at the time of the event."""
    clawback_differences: dict[str, int]
    """By campaign: simulated minus real amount by which refunds reduce the award of a purchase."""
    confirmed: list[Award] | None = None
    """Simulated awards of the purchase, with their dates after the confirmation."""


class _OutcomePair(Struct, frozen=True):
    """Simulated outcome of an event, with the parts of the real outcome that it is compared with."""

    outcome: EventOutcome
    simulated_gains: Sequence[QualifyingGain]
    real_gains: Sequence[QualifyingGain]
    sources: tuple[Sequence[Award], Sequence[Award]]
    """Awards that clawbacks take from, simulated and real."""
    clawback_differences: dict[str, int] = {}
    real_achieved: dict[str, AchievementProgress] = {}


@lru_cache(maxsize=16)
def calendar_of(zone: str) -> Calendar:
    """Return the calendar of a time zone."""
    return Calendar(zone)


def simulate(event_input: SimulationInput, members: Mapping[str, SimulatedMember], budgets: Usages) -> SimulatedOutcome:
    """Evaluate an event in the simulation, and apply its outcome to `members` and `budgets`.

    `members` must contain every member that the event can pay.
    """
    recorded, inputs = event_input.recorded, event_input.inputs
    event, member = event_of(recorded), members[recorded.owner]
    real_tier = _real_tier(event_input)
    tier = _tier(event_input, member, real_tier)
    if event.about is not None and event.refund_of is None:
        return SimulatedOutcome([], (tier, real_tier), {}, _confirmation(event, event_input, members))
    if event.refund_of is not None:
        pair = _refund(event, event_input, members)
    else:
        pair = _event(event, event_input, members, budgets, tier)
    awards = pair.outcome.awards
    store_real_wallets(member, inputs)
    if inputs.referrer is not None:
        store_real_wallets(members[inputs.referrer], inputs, REFERRERS)
    for payee_id in dict.fromkeys([recorded.owner, *(award.to for award in (*awards, *recorded.awards) if award.to is not None)]):
        simulated, real = (
            [award for award in side if (award.to or recorded.owner) == payee_id] for side in (awards, recorded.awards)
        )
        update_wallets(members[payee_id], inputs, simulated, real, pair.sources)
        update_usages(members[payee_id].used, inputs, simulated, real, f"{payee_id}:")
        members[payee_id].used = newest_periods(members[payee_id].used)
    update_usages(budgets, inputs, awards, recorded.awards, BUDGETS)
    update_qualifying(member, inputs, pair.simulated_gains, pair.real_gains, calendar_of(inputs.zone))
    for campaign, progress in pair.outcome.achieved.items():
        if pair.real_achieved.get(campaign) == progress:
            member.achieved.pop(campaign, None)
        else:
            member.achieved[campaign] = progress
    return SimulatedOutcome(awards, (tier, real_tier), pair.clawback_differences)


def _real_tier(event_input: SimulationInput) -> str | None:
    """Return the real tier at the time of the event. Refunds are recorded without it, because no campaign evaluates them."""
    recorded, inputs = event_input.recorded, event_input.inputs
    if recorded.refund_of is None:
        return inputs.tier
    return tier_at(event_input.tiers, inputs.qualifying, recorded.occurred_at, calendar_of(inputs.zone))


def _tier(event_input: SimulationInput, member: SimulatedMember, real_tier: str | None) -> str | None:
    """Return the simulated tier at the time of the event: the real one, unless qualifying points differ."""
    inputs = event_input.inputs
    if not any(tiers.asset in member.qualifying for tiers in event_input.tiers):
        return real_tier
    qualifying = simulated_qualifying(member, inputs)
    return tier_at(event_input.tiers, qualifying, event_input.recorded.occurred_at, calendar_of(inputs.zone))


def _event(
    event: ShopEvent, event_input: SimulationInput, members: Mapping[str, SimulatedMember], budgets: Usages, tier: str | None
) -> _OutcomePair:
    """Evaluate an event that neither refunds nor confirms a purchase."""
    recorded, inputs = event_input.recorded, event_input.inputs
    owner, calendar, member = recorded.owner, calendar_of(inputs.zone), members[recorded.owner]
    simulated_inputs = msgspec.structs.replace(inputs, tier=tier, achieved={**inputs.achieved, **member.achieved})
    evaluations = evaluate(event, event_input.subject, event_input.campaigns, simulated_inputs, calendar)
    awarded = [each.campaign for each in evaluations if each.outcome == "awarded"]
    simulated_inputs = msgspec.structs.replace(
        simulated_inputs,
        wallets={
            wallet_name(each): simulated_wallet(members[payee(each, owner, inputs.referrer)], each.asset, wallet_name(each), inputs)
            for each in awarded
        },
        used=_simulated_usages(awarded, event_input, members, budgets),
    )
    outcome = event_outcome(event, owner, evaluations, simulated_inputs, calendar)
    simulated_gains = gains_of(event, outcome, simulated_inputs)
    sources = outcome.awards, recorded.awards
    refunded_early = event.type == PURCHASE and inputs.before is not None
    if refunded_early or any(live.campaign.achievement is not None for live in event_input.campaigns):
        # The stored event has neither the clawback amounts of early refunds nor the progress of achievements: compute them again.
        real_evaluations = evaluate(event, event_input.subject, event_input.real_campaigns, inputs, calendar)
        real_outcome = event_outcome(event, owner, real_evaluations, inputs, calendar)
        differences = _difference(_clawbacks(outcome, inputs.before), _clawbacks(real_outcome, inputs.before))
        real_gains = gains_of(event, real_outcome, inputs)
        return _OutcomePair(outcome, simulated_gains, real_gains, sources, differences, real_outcome.achieved)
    real_gains = [
        QualifyingGain(award.asset, award.amount, event.occurred_at, inputs.decided_at)
        for award in recorded.awards
        if award.to is None
    ]
    return _OutcomePair(outcome, simulated_gains, real_gains, sources)


def _simulated_usages(
    awarded: Sequence[Campaign], event_input: SimulationInput, members: Mapping[str, SimulatedMember], budgets: Usages
) -> dict[str, int]:
    """Return the simulated usage of the caps and budgets of the campaigns, by account."""
    recorded, inputs = event_input.recorded, event_input.inputs
    read_campaigns = {each.campaign for each in recorded.decisions if each.outcome != "not_matched"}
    used: dict[str, int] = {}
    for campaign in awarded:
        payee_id = payee(campaign, recorded.owner, inputs.referrer)
        for counter in cap_accounts(campaign, payee_id, recorded.occurred_at, calendar_of(inputs.zone)):
            usages = budgets if counter.kind == BUDGET else members[payee_id].used
            used[counter.account] = simulated_usage(usages, counter.account, inputs, was_read=campaign.id in read_campaigns)
    return used


def _confirmation(event: ShopEvent, event_input: SimulationInput, members: Mapping[str, SimulatedMember]) -> list[Award] | None:
    """Apply the simulated and the real releases of a confirmation.

    Return the simulated awards of the purchase with their new dates, or None if they do not differ from the real ones.
    """
    recorded, inputs = event_input.recorded, event_input.inputs
    original, purchase = event_input.original, event_input.purchase
    store_real_wallets(members[recorded.owner], inputs)
    if inputs.awaits or original is None:
        return None
    awards, simulated_inputs = original.awards, inputs
    if purchase is not None:
        awards = purchase.awards
        before = _refunded_before(event, recorded.owner, inputs, purchase)
        simulated_inputs = msgspec.structs.replace(inputs, before=before, waiting=None)
    simulated_inputs = msgspec.structs.replace(simulated_inputs, wallets=_award_wallets(awards, recorded.owner, inputs, members))
    outcome = confirmation_outcome(event, recorded.owner, awards, simulated_inputs, calendar_of(inputs.zone))
    for sign, releases, pending_awards in ((1, outcome.releases, awards), (-1, recorded.releases, original.awards)):
        pending = {award.campaign: award for award in pending_awards}
        for release in releases:
            recipient = members[release.to or recorded.owner]
            update_released(recipient, inputs, release, pending[release.campaign], sign)
    if purchase is None:
        return None
    released = {each.campaign: Released(event=event.id, expires_at=each.expires_at) for each in outcome.releases}
    refunds = PurchaseRefunds(id="", owner="", released=released)
    return [current_award(award, refunds) for award in awards]


def _award_wallets(
    awards: Iterable[Award], owner: str, inputs: EvaluationInputs, members: Mapping[str, SimulatedMember]
) -> dict[str, AwardWallet]:
    """Return the simulated wallets that the awards were paid into, by their keys in `inputs.wallets`."""
    return {
        award_wallet_name(award): simulated_wallet(members[award.to or owner], award.asset, award_wallet_name(award), inputs)
        for award in awards
    }


def _refunded_before(event: ShopEvent, owner: str, inputs: EvaluationInputs, purchase: SimulatedPurchase) -> PurchaseRefunds:
    """Return the simulated earlier refunds of a purchase whose awards differ. The awards already have their dates after the release."""
    before = inputs.before or PurchaseRefunds(id=f"{owner}/{event.about}", owner=owner)
    taken = {name: before.taken.get(name, 0) + purchase.due.get(name, 0) for name in {*before.taken, *purchase.due}}
    return msgspec.structs.replace(before, taken=taken, released={})


def _refund(event: ShopEvent, event_input: SimulationInput, members: Mapping[str, SimulatedMember]) -> _OutcomePair:
    """Evaluate a linked refund."""
    inputs, original, purchase = event_input.inputs, event_input.original, event_input.purchase
    owner = event_input.recorded.owner
    if inputs.awaits or original is None:
        return _OutcomePair(refund_outcome(event, owner, None, inputs), (), (), ((), ()))
    awards = original.awards
    simulated_inputs = msgspec.structs.replace(inputs, achieved={**inputs.achieved, **members[owner].achieved})
    if purchase is not None:
        awards = purchase.awards
        simulated_inputs = msgspec.structs.replace(simulated_inputs, before=_refunded_before(event, owner, inputs, purchase))
    reached = [each.award for progress in simulated_inputs.achieved.values() for each in progress.reached if each.award is not None]
    wallets = _award_wallets((*awards, *reached), owner, inputs, members)
    simulated_inputs = msgspec.structs.replace(simulated_inputs, wallets=wallets)
    outcome = refund_outcome(event, owner, Refundable(original.amount, awards, original.items), simulated_inputs)
    real_outcome = refund_outcome(event, owner, Refundable(original.amount, original.awards, original.items), inputs)
    return _OutcomePair(
        outcome,
        gains_of(event, outcome, simulated_inputs, msgspec.structs.replace(original, awards=awards)),
        gains_of(event, real_outcome, inputs, original),
        ([*awards, *_broken_awards(outcome)], [*original.awards, *_broken_awards(real_outcome)]),
        _difference(_clawbacks(outcome, simulated_inputs.before), _clawbacks(real_outcome, inputs.before)),
        real_outcome.achieved,
    )


def _broken_awards(outcome: EventOutcome) -> list[Award]:
    """Return the awards of the achievements that a refund breaks."""
    return [each.award for each in outcome.broken if each.award is not None]


def _clawbacks(outcome: EventOutcome, before: PurchaseRefunds | None) -> dict[str, int]:
    """Return by campaign the amount by which a refund reduces the award of a purchase, independent of what the wallet could pay."""
    earlier = {} if before is None else before.taken
    total = {} if outcome.refunded is None else outcome.refunded.taken
    return {campaign: amount - earlier.get(campaign, 0) for campaign, amount in total.items()}


def _difference(simulated: Mapping[str, int], real: Mapping[str, int]) -> dict[str, int]:
    differences = {name: simulated.get(name, 0) - real.get(name, 0) for name in {*simulated, *real}}
    return {name: amount for name, amount in sorted(differences.items()) if amount}
