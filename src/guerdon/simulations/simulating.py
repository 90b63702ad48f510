"""One recorded event in the simulated world: judged again by the functions that judged it, on what differs by then. Pure."""

from collections.abc import Mapping, Sequence
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
    Uses,
    move_qualifying,
    move_release,
    move_uses,
    move_wallets,
    newest,
    see_wallets,
    simulated_qualifying,
    simulated_use,
    simulated_wallet,
)
from guerdon.simulations.models import SimulatedMember, SimulatedPurchase
from guerdon.tiers.models import TierSet
from guerdon.tiers.rules import QualifyingGain, gains_of, tier_at

BUDGETS = "cmp_"
"""Budgets' accounts are named after campaigns, caps' after members."""


class SimulationMaterial(Struct, frozen=True):
    """What an event was made of, and what it meets in the simulated world."""

    recorded: RecordedEvent
    inputs: EvaluationInputs
    campaigns: Sequence[LiveCampaign]
    """Those that are asked in the simulation, in their order."""
    asked: Sequence[LiveCampaign]
    """Those that were really asked."""
    subject: Subject
    tiers: Sequence[TierSet] = ()
    """The versions of the tiers by which it was judged."""
    original: RecordedEvent | None = None
    purchase: SimulatedPurchase | None = None
    """What the purchase that it refunds has earned in the simulation, where that is known to be otherwise."""


class SimulatedOutcome(Struct, frozen=True):
    """What an event comes to in the simulated world."""

    awards: list[Award]
    tier: str | None
    due: dict[str, int]
    """By campaign: what goes back of a purchase's awards in the simulation more than really, or less."""
    confirmed: list[Award] | None = None
    """What the purchase has earned in the simulation, with the dates that it has since it was confirmed."""


class _Both(Struct, frozen=True):
    """What an event brings in both worlds."""

    settled: EventOutcome
    simulated: Sequence[QualifyingGain]
    real: Sequence[QualifyingGain]
    sources: tuple[Sequence[Award], Sequence[Award]]
    """The awards that take-backs are about."""
    due: dict[str, int] = {}
    achieved: dict[str, AchievementProgress] = {}
    """What has really become of achievements."""


@lru_cache(maxsize=16)
def calendar_of(zone: str) -> Calendar:
    return Calendar(zone)


def simulate(material: SimulationMaterial, members: Mapping[str, SimulatedMember], budgets: Uses) -> SimulatedOutcome:
    """Judge an event in the simulated world, and move that world on by what comes of it. `members` has the event's and their referrer."""
    recorded, inputs = material.recorded, material.inputs
    event, member = event_of(recorded), members[recorded.owner]
    tier = _tier(material, member)
    if event.about is not None and event.refund_of is None:
        return SimulatedOutcome([], tier, {}, _confirmation(event, material, members))
    both = (_refund if event.refund_of is not None else _event)(event, material, members, budgets, tier)
    awards = both.settled.awards
    see_wallets(member, inputs)
    if inputs.referrer is not None:
        see_wallets(members[inputs.referrer], inputs, REFERRERS)
    for holder in dict.fromkeys([recorded.owner, *(award.to for award in (*awards, *recorded.awards) if award.to is not None)]):
        here, there = ([award for award in side if (award.to or recorded.owner) == holder] for side in (awards, recorded.awards))
        move_wallets(members[holder], inputs, here, there, both.sources)
        move_uses(members[holder].used, inputs, here, there, f"{holder}:")
        members[holder].used = newest(members[holder].used)
    move_uses(budgets, inputs, awards, recorded.awards, BUDGETS)
    move_qualifying(member, inputs, both.simulated, both.real, calendar_of(inputs.zone))
    for campaign, state in both.settled.achieved.items():
        if both.achieved.get(campaign) == state:
            member.achieved.pop(campaign, None)
        else:
            member.achieved[campaign] = state
    return SimulatedOutcome(awards, tier, both.due)


def _tier(material: SimulationMaterial, member: SimulatedMember) -> str | None:
    """The tier when the event occurred; the recorded one, unless the simulation has earned other points."""
    inputs = material.inputs
    if not any(tiers.asset in member.qualifying for tiers in material.tiers):
        return inputs.tier
    qualifying = simulated_qualifying(member, inputs)
    return tier_at(material.tiers, qualifying, material.recorded.occurred_at, calendar_of(inputs.zone))


def _event(
    event: ShopEvent, material: SimulationMaterial, members: Mapping[str, SimulatedMember], budgets: Uses, tier: str | None
) -> _Both:
    recorded, inputs = material.recorded, material.inputs
    owner, calendar, member = recorded.owner, calendar_of(inputs.zone), members[recorded.owner]
    known = msgspec.structs.replace(inputs, tier=tier, achieved={**inputs.achieved, **member.achieved})
    judgements = evaluate(event, material.subject, material.campaigns, known, calendar)
    awarded = [each.campaign for each in judgements if each.outcome == "awarded"]
    known = msgspec.structs.replace(
        known,
        wallets={
            wallet_name(each): simulated_wallet(members[payee(each, owner, inputs.referrer)], each.asset, wallet_name(each), inputs)
            for each in awarded
        },
        used=_used(awarded, material, members, budgets),
    )
    settled = event_outcome(event, owner, judgements, known, calendar)
    sources = settled.awards, recorded.awards
    early = event.type == PURCHASE and inputs.before is not None
    if early or any(live.campaign.achievement is not None for live in material.campaigns):
        really = event_outcome(event, owner, evaluate(event, material.subject, material.asked, inputs, calendar), inputs, calendar)
        due = _difference(_due(settled, inputs.before), _due(really, inputs.before))
        return _Both(settled, gains_of(event, settled, known), gains_of(event, really, inputs), sources, due, really.achieved)
    real = [
        QualifyingGain(award.asset, award.amount, event.occurred_at, inputs.decided_at)
        for award in recorded.awards
        if award.to is None
    ]
    return _Both(settled, gains_of(event, settled, known), real, sources)


def _used(
    awarded: Sequence[Campaign], material: SimulationMaterial, members: Mapping[str, SimulatedMember], budgets: Uses
) -> dict[str, int]:
    """What is counted against the caps and the budgets in question."""
    recorded, inputs = material.recorded, material.inputs
    looked = {each.campaign for each in recorded.decisions if each.outcome != "not_matched"}
    used: dict[str, int] = {}
    for campaign in awarded:
        holder = payee(campaign, recorded.owner, inputs.referrer)
        for counter in cap_accounts(campaign, holder, recorded.occurred_at, calendar_of(inputs.zone)):
            uses = budgets if counter.kind == BUDGET else members[holder].used
            used[counter.account] = simulated_use(uses, counter.account, inputs, looked=campaign.id in looked)
    return used


def _confirmation(event: ShopEvent, material: SimulationMaterial, members: Mapping[str, SimulatedMember]) -> list[Award] | None:
    """Make spendable what has waited in both worlds; return the simulated awards of the purchase, if it has others than really."""
    recorded, inputs, original, purchase = material.recorded, material.inputs, material.original, material.purchase
    see_wallets(members[recorded.owner], inputs)
    if inputs.awaits or original is None:
        return None
    then, known = original.awards, inputs
    if purchase is not None:
        then = purchase.awards
        known = msgspec.structs.replace(inputs, before=_before(event, recorded.owner, inputs, purchase), waiting=None)
    wallets = {
        award_wallet_name(award): simulated_wallet(
            members[award.to or recorded.owner], award.asset, award_wallet_name(award), inputs
        )
        for award in then
    }
    known = msgspec.structs.replace(known, wallets=wallets)
    settled = confirmation_outcome(event, recorded.owner, then, known, calendar_of(inputs.zone))
    for sign, releases, awards in ((1, settled.releases, then), (-1, recorded.releases, original.awards)):
        waiting = {award.campaign: award for award in awards}
        for release in releases:
            holder = members[release.to or recorded.owner]
            move_release(holder, inputs, release, waiting[release.campaign], sign)
    if purchase is None:
        return None
    released = {each.campaign: Released(event=event.id, expires_at=each.expires_at) for each in settled.releases}
    since = PurchaseRefunds(id="", owner="", released=released)
    return [current_award(award, since) for award in then]


def _before(event: ShopEvent, owner: str, inputs: EvaluationInputs, purchase: SimulatedPurchase) -> PurchaseRefunds:
    """What was refunded before of a purchase that has earned something else in the simulation, and has the dates of its release already."""
    before = inputs.before or PurchaseRefunds(id=f"{owner}/{event.about}", owner=owner)
    taken = {name: before.taken.get(name, 0) + purchase.due.get(name, 0) for name in {*before.taken, *purchase.due}}
    return msgspec.structs.replace(before, taken=taken, released={})


def _refund(
    event: ShopEvent, material: SimulationMaterial, members: Mapping[str, SimulatedMember], _budgets: Uses, _tier: str | None
) -> _Both:
    inputs, original, purchase = material.inputs, material.original, material.purchase
    owner = material.recorded.owner
    if inputs.awaits or original is None:
        return _Both(refund_outcome(event, owner, None, inputs), (), (), ((), ()))
    then = original.awards
    known = msgspec.structs.replace(inputs, achieved={**inputs.achieved, **members[owner].achieved})
    if purchase is not None:
        then = purchase.awards
        known = msgspec.structs.replace(known, before=_before(event, owner, inputs, purchase))
    reached = [each.award for state in known.achieved.values() for each in state.reached if each.award is not None]
    wallets = {
        award_wallet_name(award): simulated_wallet(members[award.to or owner], award.asset, award_wallet_name(award), inputs)
        for award in (*then, *reached)
    }
    known = msgspec.structs.replace(known, wallets=wallets)
    settled = refund_outcome(event, owner, Refundable(original.amount, then, original.items), known)
    really = refund_outcome(event, owner, Refundable(original.amount, original.awards, original.items), inputs)
    return _Both(
        settled,
        gains_of(event, settled, known, msgspec.structs.replace(original, awards=then)),
        gains_of(event, really, inputs, original),
        ([*then, *_broken(settled)], [*original.awards, *_broken(really)]),
        _difference(_due(settled, known.before), _due(really, inputs.before)),
        really.achieved,
    )


def _broken(settled: EventOutcome) -> list[Award]:
    return [each.award for each in settled.broken if each.award is not None]


def _due(settled: EventOutcome, before: PurchaseRefunds | None) -> dict[str, int]:
    """By campaign: what a refund makes a purchase's awards smaller by, whatever is really taken."""
    known = {} if before is None else before.taken
    now = {} if settled.refunded is None else settled.refunded.taken
    return {campaign: amount - known.get(campaign, 0) for campaign, amount in now.items()}


def _difference(simulated: Mapping[str, int], real: Mapping[str, int]) -> dict[str, int]:
    changed = {name: simulated.get(name, 0) - real.get(name, 0) for name in {*simulated, *real}}
    return {name: amount for name, amount in sorted(changed.items()) if amount}
