"""Pages of recorded events with the data that their evaluation needs, read in a few queries."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import msgspec

from guerdon.campaigns.domain import EVENTS, REFUNDS, Award, EvaluationInputs, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.evaluation import LiveCampaign, Subject, reads_member, sort_by_priority
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.events.replay import event_of, replay_request
from guerdon.simulations.differences import Usages
from guerdon.simulations.models import SIMULATED_MEMBERS, SIMULATED_PURCHASES, SimulatedMember, SimulatedPurchase, Sums
from guerdon.simulations.reporting import Accumulator, segments_of
from guerdon.simulations.simulating import SimulationInput, calendar_of, simulate
from guerdon.tiers.models import TIER_SET_VERSIONS, VERSIONS_MAX, TierSet, TierSetVersion

MEMBERS_HELD_MAX = 20_000
"""Maximum number of simulated members in memory."""
READS_MAX = 16
"""Maximum number of concurrent reads of profiles."""
CampaignVersions = tuple[tuple[str, int], ...]
"""Id and version of each campaign that was evaluated for an event."""


class CampaignSets(NamedTuple):
    """Campaigns of an event: those of the simulation, and those that were really evaluated."""

    simulated: Sequence[LiveCampaign]
    real: Sequence[LiveCampaign]


class Page:
    """A page of events and the data for them. The caller saves `members` and `changed_purchases`."""

    def __init__(
        self,
        simulation_id: str,
        events: Sequence[RecordedEvent],
        *,
        campaign_sets: dict[CampaignVersions, CampaignSets | None],
        subjects: dict[str, Subject | None],
        tiers: dict[int, TierSet],
        originals: dict[str, RecordedEvent],
        refunded: set[str],
        voided: set[str],
        members: dict[str, SimulatedMember],
        purchases: dict[str, SimulatedPurchase],
    ) -> None:
        self.events = events
        self._simulation_id = simulation_id
        self._campaign_sets = campaign_sets
        self._subjects = subjects
        self._tiers = tiers
        self._originals = originals
        self._refunded = refunded
        self._voided = voided
        self._members = members
        self._purchases = purchases
        self._changed: set[str] = set()

    @property
    def members(self) -> list[SimulatedMember]:
        """Members that the events of the page can pay."""
        return [self._members[member] for member in sorted(payees_of(self.events, self._originals))]

    @property
    def changed_purchases(self) -> list[SimulatedPurchase]:
        """Purchases whose simulated awards the page has changed."""
        return [self._purchases[event_id] for event_id in sorted(self._changed)]

    def evaluate(self, recorded: RecordedEvent, accumulator: Accumulator, sums: Sums, budgets: Usages) -> None:
        """Evaluate one event in the simulation, and add its simulated and real awards to the running totals.

        An event that was voided later, and the refunds and confirmations of one, have no awards on either side.
        """
        original = None if recorded.about is None else self._originals.get(recorded.about)
        segments = segments_of(original or recorded)
        if recorded.id in self._voided or recorded.about in self._voided:
            tier = None if recorded.inputs is None else recorded.inputs.tier
            accumulator.add(msgspec.structs.replace(recorded, awards=[]), [], (tier, tier), self._members, segments)
            return
        event_input = self._input_of(recorded, sums)
        if event_input is None:
            tier = None if recorded.inputs is None else recorded.inputs.tier
            accumulator.add(recorded, recorded.awards, (tier, tier), self._members, segments)
            return
        outcome = simulate(event_input, self._members, budgets)
        differences = outcome.clawback_differences
        if event_input.purchase is not None:
            if outcome.confirmed is not None:
                event_input.purchase.awards = outcome.confirmed
            for campaign, amount in differences.items():
                event_input.purchase.due[campaign] = event_input.purchase.due.get(campaign, 0) + amount
            event_input.purchase.expired = {**event_input.purchase.expired, **outcome.expired_differences}
            self._changed.add(str(recorded.about))
        elif recorded.id in self._refunded and (
            differences or _without_transaction_ids(outcome.awards) != _without_transaction_ids(recorded.awards)
        ):
            purchase_id = f"{self._simulation_id}/{recorded.id}"
            self._purchases[recorded.id] = SimulatedPurchase(id=purchase_id, awards=list(outcome.awards), due=differences)
            self._changed.add(recorded.id)
        accumulator.add(recorded, outcome.awards, outcome.tiers, self._members, segments)

    def _input_of(self, recorded: RecordedEvent, sums: Sums) -> SimulationInput | None:
        """Return the data to evaluate an event again; if some of it is missing, count the reason in `sums` and return None."""
        inputs = recorded.inputs
        if inputs is None or not inputs.engine:
            sums.without_inputs += 1
            return None
        tiers = _tiers_of(inputs, self._tiers)
        if recorded.about is not None:
            original = None if inputs.awaits else self._originals.get(recorded.about)
            if (original is None and not inputs.awaits) or tiers is None:
                sums.version_missing += 1
                return None
            purchase = None if original is None else self._purchases.get(recorded.about)
            return SimulationInput(recorded, inputs, (), (), Subject(recorded.owner), tiers, original, purchase)
        campaigns = self._campaign_sets[tuple(replay_request(recorded))]
        subject = self._subjects.get(recorded.id, Subject(recorded.owner))
        if campaigns is None or tiers is None:
            sums.version_missing += 1
            return None
        if subject is None:
            sums.member_erased += 1
            return None
        return SimulationInput(recorded, inputs, campaigns.simulated, campaigns.real, subject, tiers)


def payees_of(events: Sequence[RecordedEvent], originals: Mapping[str, RecordedEvent]) -> set[str]:
    """Return the ids of all members that the events can pay: their own members, the referrers, and the recipients of their awards."""
    payees = {event.owner for event in events}
    for event in (*events, *originals.values()):
        if event.inputs is not None and event.inputs.referrer is not None:
            payees.add(event.inputs.referrer)
        payees.update(award.to for award in event.awards if award.to is not None)
    return payees


def _without_transaction_ids(awards: Iterable[Award]) -> list[Award]:
    return [msgspec.structs.replace(award, transaction_id=None) for award in awards]


def _tiers_of(inputs: EvaluationInputs, known: dict[int, TierSet]) -> Sequence[TierSet] | None:
    """Return the versions of the tier set that an evaluation used, or None if one is missing."""
    numbers = inputs.tier_versions
    if any(number not in known for number in numbers):
        return None
    versions = [known[number] for number in numbers]
    if len(versions) == VERSIONS_MAX and numbers[0] > 1:
        # Earlier versions were dropped, so the oldest one applied to all earlier times.
        versions[0] = msgspec.structs.replace(versions[0], effective_at=None)
    return versions


class Pages:
    """Reads the data of pages of events."""

    def __init__(self, campaigns: Campaigns, profiles: Profiles, database: Database) -> None:
        self._campaigns = campaigns
        self._profiles = profiles
        self._events = database.collection(EVENTS, RecordedEvent)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._tier_sets = database.collection(TIER_SET_VERSIONS, TierSetVersion)
        self._members = database.collection(SIMULATED_MEMBERS, SimulatedMember)
        self._purchases = database.collection(SIMULATED_PURCHASES, SimulatedPurchase)
        self._live: dict[tuple[str, int], LiveCampaign | None] = {}
        self._tiers: dict[int, TierSet] = {}

    async def load(
        self, simulation_id: str, campaign: LiveCampaign, events: Sequence[RecordedEvent], members: dict[str, SimulatedMember]
    ) -> Page:
        """Return the page of the events. `members` are the members in memory; those missing for the page are added to it."""
        campaign_sets = await self._load_campaigns(campaign, events)
        about = sorted({event.about for event in events if event.about is not None})
        refund_ids = sorted({f"{event.owner}/{event.about or event.id}" for event in events})
        refunds = await self._refunds.raw.find({"_id": {"$in": refund_ids}}, {"voided.at": 1}).to_list() if refund_ids else []
        changed = {str(row["_id"]).partition("/")[2]: "voided" in row for row in refunds}
        originals = await self._events.find({"_id": {"$in": about}}, limit=len(about)) if about else []
        originals_by_id = {each.id: each for each in originals}
        await self._load_members(simulation_id, payees_of(events, originals_by_id), members)
        purchase_ids = [f"{simulation_id}/{event_id}" for event_id in about]
        purchases = await self._purchases.find({"_id": {"$in": purchase_ids}}, limit=len(purchase_ids)) if purchase_ids else []
        return Page(
            simulation_id,
            events,
            campaign_sets=campaign_sets,
            subjects=await self._load_subjects(events, campaign_sets),
            tiers=await self._load_tier_sets(events),
            originals=originals_by_id,
            refunded=set(changed),
            voided={event_id for event_id, voided in changed.items() if voided},
            members=members,
            purchases={each.id.partition("/")[2]: each for each in purchases},
        )

    async def _load_members(self, simulation_id: str, member_ids: set[str], members: dict[str, SimulatedMember]) -> None:
        if len(members) + len(member_ids) > MEMBERS_HELD_MAX:
            members.clear()
        ids = [f"{simulation_id}/{member_id}" for member_id in sorted(member_ids - members.keys())]
        found = await self._members.find({"_id": {"$in": ids}}, limit=len(ids)) if ids else []
        stored = {each.id: each for each in found}
        for each in ids:
            members[each.partition("/")[2]] = stored.get(each) or SimulatedMember(id=each)

    async def _load_campaigns(
        self, campaign: LiveCampaign, events: Sequence[RecordedEvent]
    ) -> dict[CampaignVersions, CampaignSets | None]:
        """Return the campaigns of each event; None if a version that was evaluated cannot be read any more.

        These are the recorded versions, with the simulated campaign in place of all its own versions.
        """
        wanted = {tuple(replay_request(event)) for event in events if event.about is None}
        new = {each for versions in wanted for each in versions if each not in self._live}
        stored = await self._campaigns.get_versions(new)
        for each in new:
            try:
                self._live[each] = LiveCampaign.of(stored[each])
            except (KeyError, Validation):
                self._live[each] = None
        campaign_sets: dict[CampaignVersions, CampaignSets | None] = {}
        for versions in wanted:
            real = [live for each in versions if (live := self._live[each]) is not None]
            others = [live for live in real if live.campaign.id != campaign.campaign.id]
            complete = len(real) == len(versions)
            campaign_sets[versions] = CampaignSets(sort_by_priority([*others, campaign]), real) if complete else None
        return campaign_sets

    async def _load_subjects(
        self, events: Sequence[RecordedEvent], campaign_sets: dict[CampaignVersions, CampaignSets | None]
    ) -> dict[str, Subject | None]:
        """Return by event the members whose profile a campaign reads: as recorded with the event, or else as they are now."""
        semaphore = asyncio.Semaphore(READS_MAX)

        async def read(recorded: RecordedEvent) -> tuple[str, Subject | None]:
            async with semaphore:
                stored = recorded.inputs is not None and recorded.inputs.person is not None
                return recorded.id, await (self._profiles.read_sealed(recorded) if stored else self._profiles.look(recorded.owner))

        return dict(await asyncio.gather(*(read(event) for event in events if _reads_profile(event, campaign_sets))))

    async def _load_tier_sets(self, events: Sequence[RecordedEvent]) -> dict[int, TierSet]:
        wanted = {number for event in events if event.inputs is not None for number in event.inputs.tier_versions}
        new = sorted(wanted - self._tiers.keys())
        found = await self._tier_sets.find({"_id": {"$in": new}}, limit=len(new)) if new else []
        self._tiers.update({each.id: each.tiers for each in found})
        return self._tiers


def _reads_profile(recorded: RecordedEvent, campaign_sets: dict[CampaignVersions, CampaignSets | None]) -> bool:
    """Return True if a campaign of the simulation reads the member's profile for the event."""
    if recorded.about is not None or recorded.inputs is None:
        return False
    campaigns = campaign_sets[tuple(replay_request(recorded))]
    return campaigns is not None and reads_member(event_of(recorded), campaigns.simulated, calendar_of(recorded.inputs.zone))
