"""Replay of decisions: a recorded event is evaluated again on its stored inputs and campaign versions, and compared byte for byte.

The replay uses the same pure functions that recorded the event (`evaluation.py`, `outcome.py`). Transaction ids are no part of a decision.
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

ERASED = "the profile fields that the campaigns read, which were erased with the member"
_canonical = msgspec.json.Encoder(order="sorted")


class Answer(Struct, frozen=True):
    """Decisions on an event."""

    awards: list[AwardView]
    """Awards and clawbacks."""
    releases: list[ReleaseView]
    """Releases of waiting awards."""
    decisions: list[DecisionView]
    """Decision of each campaign."""
    note: str | None
    """A remark on the event as a whole. Null: none."""


class Replay(Struct, frozen=True):
    """Comparison of recorded decisions with a new evaluation."""

    event_id: str
    """Id of the event."""
    outcome: Literal["equal", "different", "missing"]
    """`equal` or `different`, or `missing` if the event cannot be evaluated again."""
    missing: list[str]
    """Data that is missing for an evaluation."""
    recorded_engine: str | None
    """Version of the engine that recorded the event. Null for events of early versions."""
    engine: str
    """Version of the engine that evaluated the event again."""
    recorded: Answer
    """Recorded decisions."""
    judged: Answer | None
    """Decisions of the new evaluation. Null if something is missing."""


class ReplayMaterial(Struct, frozen=True):
    """Inputs of a decision besides the event."""

    campaigns: Sequence[LiveCampaign]
    subject: Subject
    original: RecordedEvent | None = None
    """Purchase that the event refunds or confirms."""
    missing: tuple[str, ...] = ()


def event_of(recorded: RecordedEvent) -> ShopEvent:
    """Return the event as it was sent, except for the shop's id of the member."""
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
    """Return (campaign, version) of each campaign that evaluated the event, in order. An early refund names a campaign twice."""
    return list(dict.fromkeys((each.campaign, each.version) for each in recorded.decisions))


def decide_again(recorded: RecordedEvent, inputs: EvaluationInputs, material: ReplayMaterial) -> EventOutcome:
    """Return the outcome of a recorded event on its inputs."""
    event, calendar = event_of(recorded), Calendar(inputs.zone)
    if event.about is not None:
        original = None if inputs.awaits else material.original
        if event.refund_of is None:
            return confirmation_outcome(event, recorded.owner, None if original is None else original.awards, inputs, calendar)
        purchase = None if original is None else Refundable(original.amount, original.awards, original.items)
        return refund_outcome(event, recorded.owner, purchase, inputs)
    evaluations = evaluate(event, material.subject, material.campaigns, inputs, calendar)
    return event_outcome(event, recorded.owner, evaluations, inputs, calendar)


def canonical(decided: RecordedEvent | EventOutcome) -> bytes:
    """Return a decision as bytes to compare."""
    unnamed, released = (
        [msgspec.structs.replace(each, transaction_id=None) for each in group] for group in (decided.awards, decided.releases)
    )
    return _canonical.encode({"awards": unnamed, "releases": released, "decisions": decided.decisions, "note": decided.note})


class EventReplays:
    """Replays recorded events."""

    def __init__(self, campaigns: Campaigns, profiles: Profiles, database: Database) -> None:
        self._campaigns = campaigns
        self._profiles = profiles
        self._events = database.collection(EVENTS, RecordedEvent)

    async def replay(self, recorded: RecordedEvent) -> Replay:
        """Evaluate an event again and compare the bytes.

        An outcome that differs under another version of the engine counts as missing that version, and not as different.
        """
        inputs = recorded.inputs
        if inputs is None or not inputs.engine:
            return _replay(recorded, ["the inputs, which the version that recorded the event did not store"], None)
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
        subject = await self._profiles.read_sealed(recorded)
        if subject is None:
            missing.append(ERASED)
        return ReplayMaterial(campaigns, subject or Subject(recorded.owner), None, tuple(missing))


def _replay(recorded: RecordedEvent, missing: list[str], decided: EventOutcome | None) -> Replay:
    engine = None if recorded.inputs is None else recorded.inputs.engine or None
    outcome: Literal["equal", "different", "missing"] = "missing"
    judged = None
    if decided is not None:
        judged = _answer(decided)
        outcome = "equal" if canonical(decided) == canonical(recorded) else "different"
        if outcome == "different" and engine != ENGINE:
            outcome, missing = "missing", [f"the engine {engine}; {ENGINE} decides differently"]
    return Replay(recorded.id, outcome, missing, engine, ENGINE, _answer(recorded), judged)


def _answer(decided: RecordedEvent | EventOutcome) -> Answer:
    releases = [view_release(each) for each in decided.releases]
    return Answer([view_award(award) for award in decided.awards], releases, decided.decisions, decided.note)
