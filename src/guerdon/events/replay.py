"""A decision, made again: a stored event is judged with its stored inputs and versions, and the answer compared byte for byte.

The same pure functions that recorded it (`judging.py`, `settling.py`). What the ledger has named (transactions) is no part of a decision.
"""

from collections.abc import Sequence
from typing import Literal

import msgspec
from msgspec import UNSET, Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS, DecisionView, EvaluationInputs, RecordedEvent, Refundable, ShopEvent
from guerdon.campaigns.engine import ENGINE
from guerdon.campaigns.evaluation import LiveCampaign, Subject, evaluate
from guerdon.campaigns.outcome import EventOutcome, confirmation_outcome, event_outcome, refund_outcome
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.events.views import AwardView, ReleaseView, view_award, view_release

ERASED = "what the campaigns read of the member, who was erased"
_canonical = msgspec.json.Encoder(order="sorted")


class Answer(Struct, frozen=True):
    """What was decided about an event."""

    awards: list[AwardView]
    releases: list[ReleaseView]
    decisions: list[DecisionView]
    note: str | None


class Replay(Struct, frozen=True):
    """Whether a decision comes out again. `missing` says what it would take, where that cannot be told."""

    event_id: str
    outcome: Literal["equal", "different", "missing"]
    missing: list[str]
    recorded_engine: str | None
    engine: str
    """What has judged it now."""
    recorded: Answer
    judged: Answer | None
    """None when something is missing without which it cannot be judged."""


class ReplayMaterial(Struct, frozen=True):
    """What a decision was made of, besides what stands on the event itself."""

    campaigns: Sequence[LiveCampaign]
    subject: Subject
    original: RecordedEvent | None = None
    missing: tuple[str, ...] = ()


def event_of(recorded: RecordedEvent) -> ShopEvent:
    """The event as it was sent, but for the shop's name of the member."""
    return ShopEvent(
        id=recorded.id,
        type=recorded.type,
        occurred_at=recorded.occurred_at,
        amount=recorded.amount,
        currency=recorded.currency,
        refund_of=recorded.refund_of,
        member_id=recorded.owner,
        items=tuple(recorded.items),
        attributes=recorded.attributes,
        confirms=UNSET if recorded.confirms is None else recorded.confirms,
    )


def replay_request(recorded: RecordedEvent) -> list[tuple[str, int]]:
    """(campaign, version) of every campaign that was asked, in their order; an early refund names them a second time."""
    return list(dict.fromkeys((each.campaign, each.version) for each in recorded.decisions))


def decide_again(recorded: RecordedEvent, inputs: EvaluationInputs, material: ReplayMaterial) -> EventOutcome:
    """Decide once more what is recorded."""
    event, calendar = event_of(recorded), Calendar(inputs.zone)
    if event.about is not None:
        original = None if inputs.awaits else material.original
        if event.refund_of is None:
            return confirmation_outcome(event, recorded.owner, None if original is None else original.awards, inputs, calendar)
        purchase = None if original is None else Refundable(original.amount, original.awards, original.items)
        return refund_outcome(event, recorded.owner, purchase, inputs)
    judgements = evaluate(event, material.subject, material.campaigns, inputs, calendar)
    return event_outcome(event, recorded.owner, judgements, inputs, calendar)


def canonical(decided: RecordedEvent | EventOutcome) -> bytes:
    """The bytes of a decision."""
    unnamed, released = (
        [msgspec.structs.replace(each, transaction_id=None) for each in group] for group in (decided.awards, decided.releases)
    )
    return _canonical.encode({"awards": unnamed, "releases": released, "decisions": decided.decisions, "note": decided.note})


class EventReplays:
    """Judges recorded events again."""

    def __init__(self, campaigns: Campaigns, people: Profiles, database: Database) -> None:
        self._campaigns = campaigns
        self._people = people
        self._events = database.collection(EVENTS, RecordedEvent)

    async def replay(self, recorded: RecordedEvent) -> Replay:
        """Judge an event once more and compare the bytes. Another engine that says the same says it; one that does not is named."""
        inputs = recorded.inputs
        if inputs is None or not inputs.engine:
            return _replay(recorded, ["what it was judged on: it was recorded by an earlier version, which did not keep it"], None)
        material = await self._material(recorded, inputs)
        if material.missing:
            return _replay(recorded, list(material.missing), None)
        return _replay(recorded, [], decide_again(recorded, inputs, material))

    async def _material(self, recorded: RecordedEvent, inputs: EvaluationInputs) -> ReplayMaterial:
        missing: list[str] = []
        if recorded.about is not None:
            original = None if inputs.awaits else await self._events.get(recorded.about)
            if original is None and not inputs.awaits:
                done = "refunds" if recorded.refund_of is not None else "confirms"
                missing.append(f"the purchase that it {done}, {recorded.about}")
            return ReplayMaterial((), Subject(recorded.owner), original, tuple(missing))
        wanted = replay_request(recorded)
        versions = await self._campaigns.get_versions(wanted)
        campaigns: list[LiveCampaign] = []
        for campaign_id, number in wanted:
            campaign = versions.get((campaign_id, number))
            if campaign is None:
                missing.append(f"version {number} of campaign {campaign_id}")
                continue
            try:
                campaigns.append(LiveCampaign.of(campaign))
            except Validation as error:
                missing.append(f"an engine that reads version {number} of campaign {campaign_id}: {error.detail}")
        subject = await self._people.recall(recorded)
        if subject is None:
            missing.append(ERASED)
        return ReplayMaterial(campaigns, subject or Subject(recorded.owner), None, tuple(missing))


def _replay(recorded: RecordedEvent, missing: list[str], settled: EventOutcome | None) -> Replay:
    engine = None if recorded.inputs is None else recorded.inputs.engine or None
    outcome: Literal["equal", "different", "missing"] = "missing"
    judged = None
    if settled is not None:
        judged = _answer(settled)
        outcome = "equal" if canonical(settled) == canonical(recorded) else "different"
        if outcome == "different" and engine != ENGINE:
            outcome, missing = "missing", [f"the engine {engine}; {ENGINE} judges otherwise"]
    return Replay(recorded.id, outcome, missing, engine, ENGINE, _answer(recorded), judged)


def _answer(decided: RecordedEvent | EventOutcome) -> Answer:
    releases = [view_release(each) for each in decided.releases]
    return Answer([view_award(award) for award in decided.awards], releases, decided.decisions, decided.note)
