"""A page of recorded events with everything that it takes to judge them again, read in a few queries."""

import asyncio
from collections.abc import Iterable, Mapping, Sequence

import msgspec

from guerdon.campaigns.domain import EVENTS, PURCHASE, REFUNDS, EvaluationInputs, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.evaluation import LiveCampaign, Subject, reads_member, sort_by_priority
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.events.replay import event_of, replay_request
from guerdon.simulations.differences import Uses
from guerdon.simulations.models import SIMULATED_MEMBERS, SIMULATED_PURCHASES, SimulatedMember, SimulatedPurchase, Sums
from guerdon.simulations.reporting import Counting
from guerdon.simulations.simulating import SimulationMaterial, calendar_of, simulate
from guerdon.tiers.models import TIER_SET_VERSIONS, VERSIONS_MAX, TierSet, TierSetVersion

MEMBERS_HELD_MAX = 20_000
READ_AT_ONCE = 16
Versions = tuple[tuple[str, int], ...]
Cast = tuple[Sequence[LiveCampaign], Sequence[LiveCampaign]]
"""The campaigns that are asked in the simulation, and those that were really asked."""


class Page:
    """Events and what is known for them. What judging them changes is written by whoever has made the page."""

    def __init__(
        self,
        prefix: str,
        events: Sequence[RecordedEvent],
        *,
        casts: dict[Versions, Cast | None],
        subjects: dict[str, Subject | None],
        tiers: dict[int, TierSet],
        originals: dict[str, RecordedEvent],
        refunded: set[str],
        members: dict[str, SimulatedMember],
        purchases: dict[str, SimulatedPurchase],
    ) -> None:
        self.events = events
        self._prefix = prefix
        self._casts = casts
        self._subjects = subjects
        self._tiers = tiers
        self._originals = originals
        self._refunded = refunded
        self._members = members
        self._purchases = purchases
        self._changed: set[str] = set()

    @property
    def touched(self) -> list[SimulatedMember]:
        return [self._members[member] for member in sorted(holders_of(self.events, self._originals))]

    @property
    def kept(self) -> list[SimulatedPurchase]:
        return [self._purchases[name] for name in sorted(self._changed)]

    def judge(self, recorded: RecordedEvent, counting: Counting, sums: Sums, budgets: Uses) -> None:
        """Judge one event in the simulated world, and count what it pays in both."""
        material = self._material(recorded, sums)
        if material is None:
            tier = None if recorded.inputs is None else recorded.inputs.tier
            counting.add(recorded, recorded.awards, (tier, tier), self._members)
            return
        outcome = simulate(material, self._members, budgets)
        if material.purchase is not None:
            if outcome.confirmed is not None:
                material.purchase.awards = outcome.confirmed
            for campaign, amount in outcome.due.items():
                material.purchase.due[campaign] = material.purchase.due.get(campaign, 0) + amount
            self._changed.add(str(recorded.about))
        elif recorded.id in self._refunded and (outcome.due or _unnamed(outcome.awards) != _unnamed(recorded.awards)):
            name = f"{self._prefix}/{recorded.id}"
            self._purchases[recorded.id] = SimulatedPurchase(id=name, awards=list(outcome.awards), due=outcome.due)
            self._changed.add(recorded.id)
        counting.add(recorded, outcome.awards, (outcome.tier, material.inputs.tier), self._members)

    def _material(self, recorded: RecordedEvent, sums: Sums) -> SimulationMaterial | None:
        """What it takes to judge an event again; None where something is missing, which is counted."""
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
            return SimulationMaterial(recorded, inputs, (), (), Subject(recorded.owner), tiers, original, purchase)
        cast, subject = self._casts[tuple(replay_request(recorded))], self._subjects.get(recorded.id, Subject(recorded.owner))
        if cast is None or tiers is None:
            sums.version_missing += 1
            return None
        if subject is None:
            sums.member_erased += 1
            return None
        return SimulationMaterial(recorded, inputs, *cast, subject, tiers)


def holders_of(events: Sequence[RecordedEvent], originals: Mapping[str, RecordedEvent]) -> set[str]:
    """Everybody whom events can pay: their members, and whoever has referred these."""
    holders = {event.owner for event in events}
    for event in (*events, *originals.values()):
        if event.inputs is not None and event.inputs.referrer is not None:
            holders.add(event.inputs.referrer)
        holders.update(award.to for award in event.awards if award.to is not None)
    return holders


def _unnamed(awards: Iterable[msgspec.Struct]) -> list[msgspec.Struct]:
    return [msgspec.structs.replace(award, transaction_id=None) for award in awards]


def _tiers_of(inputs: EvaluationInputs, known: dict[int, TierSet]) -> Sequence[TierSet] | None:
    """The versions by which an event was judged; None when one of them is missing."""
    numbers = inputs.tier_versions
    if any(number not in known for number in numbers):
        return None
    versions = [known[number] for number in numbers]
    if len(versions) == VERSIONS_MAX and numbers[0] > 1:
        # What was before the oldest is forgotten, and it stands for that.
        versions[0] = msgspec.structs.replace(versions[0], effective_at=None)
    return versions


class Pages:
    """Reads what pages of events need."""

    def __init__(self, campaigns: Campaigns, people: Profiles, database: Database) -> None:
        self._campaigns = campaigns
        self._people = people
        self._events = database.collection(EVENTS, RecordedEvent)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._tier_sets = database.collection(TIER_SET_VERSIONS, TierSetVersion)
        self._members = database.collection(SIMULATED_MEMBERS, SimulatedMember)
        self._purchases = database.collection(SIMULATED_PURCHASES, SimulatedPurchase)
        self._live: dict[tuple[str, int], LiveCampaign | None] = {}
        self._tiers: dict[int, TierSet] = {}

    async def load(
        self, simulation_id: str, tried: LiveCampaign, events: Sequence[RecordedEvent], members: dict[str, SimulatedMember]
    ) -> Page:
        """Return a page; `members` are those who are known already, and it adds those who are not."""
        casts = await self._cast(tried, events)
        about = sorted({event.about for event in events if event.about is not None})
        ids = [f"{event.owner}/{event.id}" for event in events if event.type == PURCHASE]
        found = await self._refunds.raw.find({"_id": {"$in": ids}}, {"_id": 1}).to_list() if ids else []
        originals = await self._events.find({"_id": {"$in": about}}, limit=len(about)) if about else []
        known = {each.id: each for each in originals}
        await self._meet(simulation_id, holders_of(events, known), members)
        names = [f"{simulation_id}/{name}" for name in about]
        purchases = await self._purchases.find({"_id": {"$in": names}}, limit=len(names)) if names else []
        return Page(
            simulation_id,
            events,
            casts=casts,
            subjects=await self._subjects(events, casts),
            tiers=await self._versions(events),
            originals=known,
            refunded={str(row["_id"]).partition("/")[2] for row in found},
            members=members,
            purchases={each.id.partition("/")[2]: each for each in purchases},
        )

    async def _meet(self, simulation_id: str, owners: set[str], members: dict[str, SimulatedMember]) -> None:
        if len(members) + len(owners) > MEMBERS_HELD_MAX:
            members.clear()
        ids = [f"{simulation_id}/{owner}" for owner in sorted(owners - members.keys())]
        found = await self._members.find({"_id": {"$in": ids}}, limit=len(ids)) if ids else []
        known = {each.id: each for each in found}
        for name in ids:
            members[name.partition("/")[2]] = known.get(name) or SimulatedMember(id=name)

    async def _cast(self, tried: LiveCampaign, events: Sequence[RecordedEvent]) -> dict[Versions, Cast | None]:
        """Who is asked about each event: those who were asked then, in their versions of then, and the campaign that is tried."""
        wanted = {tuple(replay_request(event)) for event in events if event.about is None}
        new = {each for versions in wanted for each in versions if each not in self._live}
        known = await self._campaigns.get_versions(new)
        for each in new:
            try:
                self._live[each] = LiveCampaign.of(known[each])
            except (KeyError, Validation):
                self._live[each] = None
        casts: dict[Versions, Cast | None] = {}
        for versions in wanted:
            then = [live for each in versions if (live := self._live[each]) is not None]
            others = [live for live in then if live.campaign.id != tried.campaign.id]
            casts[versions] = (sort_by_priority([*others, tried]), then) if len(then) == len(versions) else None
        return casts

    async def _subjects(self, events: Sequence[RecordedEvent], casts: dict[Versions, Cast | None]) -> dict[str, Subject | None]:
        """The members whose profile a campaign reads, by event, as they were then; where that was not kept, as they are now."""
        gate = asyncio.Semaphore(READ_AT_ONCE)

        async def read(recorded: RecordedEvent) -> tuple[str, Subject | None]:
            async with gate:
                kept = recorded.inputs is not None and recorded.inputs.person is not None
                return recorded.id, await (self._people.recall(recorded) if kept else self._people.look(recorded.owner))

        return dict(await asyncio.gather(*(read(event) for event in events if _is_personal(event, casts))))

    async def _versions(self, events: Sequence[RecordedEvent]) -> dict[int, TierSet]:
        wanted = {number for event in events if event.inputs is not None for number in event.inputs.tier_versions}
        new = sorted(wanted - self._tiers.keys())
        found = await self._tier_sets.find({"_id": {"$in": new}}, limit=len(new)) if new else []
        self._tiers.update({each.id: each.tiers for each in found})
        return self._tiers


def _is_personal(recorded: RecordedEvent, casts: dict[Versions, Cast | None]) -> bool:
    if recorded.about is not None or recorded.inputs is None:
        return False
    cast = casts[tuple(replay_request(recorded))]
    return cast is not None and reads_member(event_of(recorded), cast[0], calendar_of(recorded.inputs.zone))
