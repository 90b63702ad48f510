"""Events: recorded once, judged by every live campaign, paid in the same commit."""

import asyncio
from collections.abc import Sequence
from typing import cast

import msgspec
from msgspec import UNSET

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.cel_cost import ITEMS_SURE
from guerdon.campaigns.domain import (
    EVENTS,
    MEMBER_STATES,
    PURCHASE,
    REFUND,
    REFUNDS,
    EvaluationInputs,
    Item,
    MemberState,
    PurchaseRefunds,
    RecordedEvent,
    ShopEvent,
)
from guerdon.campaigns.evaluation import MONETARY, Evaluation, Evaluator, LiveCampaign, Subject, reads_member, reads_referrer
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.clock import Clock, utc_ms
from guerdon.database import Database
from guerdon.errors import GuerdonError, NotFound, Overloaded, Retry, Validation
from guerdon.events.commands import event_command
from guerdon.events.models import EventCreate
from guerdon.events.record import EventCodec, RecordRequest, RecordResult, already_recorded
from guerdon.ids import digest
from guerdon.ledger.models import Command, CommandOutcome
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.permissions import NOBODYS, Actor
from guerdon.wallets.service import new_account

Result = tuple[RecordedEvent, bool] | GuerdonError
"""An event and whether it was recorded before, or why it was not recorded."""
_canonical = msgspec.json.Encoder(order="sorted")
BESIDE = 16
"""After so many events of a request others have their turn."""
LOOKS_MAX = 5
"""How often a refund looks for its purchase while that is being recorded."""


class Events:
    """What happened in the shop, and what it earned."""

    def __init__(
        self, ledger: Ledger, identity: Members, campaigns: Campaigns, *, people: Profiles, database: Database, clock: Clock
    ) -> None:
        self._ledger = ledger
        self._identity = identity
        self._people = people
        self._campaigns = campaigns
        self._collection = database.collection(EVENTS, RecordedEvent)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._standings = database.collection(MEMBER_STATES, MemberState)
        self._stored = EventCodec(self._collection.encode, self._collection.decode)
        self._clock = clock

    async def record(self, actor: Actor, event: ShopEvent) -> tuple[RecordedEvent, bool]:
        """Record an event and pay its awards in one commit; return it and whether it was recorded before.

        Raises:
            NotFound: the event names a member id that does not exist.
            Validation: the purchase that it refunds or confirms is none, or another member's.
            EventReused: the id belongs to another event.
        """
        campaigns = await self._campaigns.list_live()
        subject = await self._subject(event, campaigns, create=True)
        return await self._record(actor, event, subject, campaigns)

    async def record_bulk(self, actor: Actor, bodies: Sequence[EventCreate]) -> list[Result]:
        """Record many events of a request; each is recorded or refused by itself, in their order where they are one member's."""
        results: list[Result | None] = []
        events: list[ShopEvent] = []
        for body in bodies:
            try:
                events.append(shop_event(body))
                results.append(None)
            except Validation as error:
                results.append(error)
        recorded = iter(await self.record_all(actor, events, await self._campaigns.list_live()))
        return [next(recorded) if result is None else result for result in results]

    async def record_all(self, actor: Actor, events: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign]) -> list[Result]:
        """Record many events, at most 500, judged by exactly the given campaigns; an import of history names its own.

        Those about a purchase, refunds and confirmations, are recorded after all others.
        """
        results: list[Result | None] = [None] * len(events)
        subjects = await self._subjects(events, campaigns)
        plain: list[tuple[int, Command[RecordResult]]] = []
        standings = await self._referred(events, subjects, campaigns)
        for place, (event, subject) in enumerate(zip(events, subjects, strict=True)):
            if isinstance(subject, GuerdonError):
                results[place] = subject
            elif event.about is None:
                if place % BESIDE == BESIDE - 1:
                    await asyncio.sleep(0)  # Somebody else's turn.
                standing = standings.get(subject.id or "")
                plain.append((place, await self._command(actor, event, subject, campaigns, standing=standing)))
        verdicts = await self._ledger.submit_all([command for _, command in plain])
        for (place, _), verdict in zip(plain, verdicts, strict=True):
            if isinstance(verdict, Retry):
                continue
            if isinstance(verdict, GuerdonError):
                results[place] = verdict
                continue
            results[place] = _answer(verdict)
            if isinstance(subject := subjects[place], Subject):
                self._remember(subject)
        for place, (event, subject) in enumerate(zip(events, subjects, strict=True)):
            if results[place] is None and isinstance(subject, Subject):
                try:
                    results[place] = await self._record(actor, event, subject, campaigns)
                except GuerdonError as error:
                    results[place] = error
        return cast(list[Result], results)

    async def preview(self, actor: Actor, event: ShopEvent) -> RecordedEvent:
        """Judge like `record`, on the balances of this moment, and write nothing, not even a new member.

        Raises:
            NotFound: the event names a member id that does not exist.
            Validation: the purchase that it refunds or confirms is none, or another member's.
            EventReused: the id belongs to another event.
        """
        campaigns = await self._campaigns.list_live()
        subject = await self._subject(event, campaigns, create=False)
        recorded, _ = await self._record(actor, event, subject, campaigns, preview=True)
        return recorded

    async def get_event(self, actor: Actor, event_id: str) -> RecordedEvent:
        """
        Raises:
            NotFound: no such event, or not the caller's.
        """
        event = await self._collection.get(event_id)
        if event is None:
            raise NotFound(NOBODYS)
        actor.require_reach(event.owner)
        return event

    async def get_event_and_since(self, actor: Actor, event_id: str) -> tuple[RecordedEvent, PurchaseRefunds | None]:
        """Return an event and what has happened to it since, as far as one of its awards waits for something.

        Raises:
            NotFound: no such event, or not the caller's.
        """
        event = await self.get_event(actor, event_id)
        waits = any(award.waits is not None for award in event.awards)
        return event, await self._refunds.find_one({"_id": f"{event.owner}/{event_id}", "owner": event.owner}) if waits else None

    async def _record(
        self, actor: Actor, event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], *, preview: bool = False
    ) -> tuple[RecordedEvent, bool]:
        submit = self._ledger.preview if preview else self._ledger.submit
        for _ in range(LOOKS_MAX):
            original = None if event.about is None else await self._original(event, event.about, subject)
            standing = await self._standing(event, subject, campaigns, original)
            command = await self._command(actor, event, subject, campaigns, original=original, standing=standing, preview=preview)
            try:
                outcome = await submit(command)
            except Retry:
                continue
            self._remember(subject)
            return _answer(outcome)
        raise Overloaded("the purchase is being recorded; nothing was done", retry_after_seconds=1)

    def _remember(self, subject: Subject) -> None:
        if subject.unproven and subject.id is not None:
            self._identity.remember(subject.id)

    async def _standing(
        self, event: ShopEvent, subject: Subject, campaigns: Sequence[LiveCampaign], original: RecordedEvent | None
    ) -> MemberState | None:
        """Look up what the member's standing says of other accounts that may move; what it says of the rest is read in the commit."""
        if (
            subject.id is None
            or event.confirms is not UNSET
            or (original is None and not reads_referrer(event, campaigns, self._ledger.calendar))
        ):
            return None
        return await self._standings.find_one({"_id": subject.id, "owner": subject.id})

    async def _referred(
        self, events: Sequence[ShopEvent], subjects: Sequence[Subject | GuerdonError], campaigns: Sequence[LiveCampaign]
    ) -> dict[str, MemberState]:
        """The same for many events."""
        wanted = {
            subject.id
            for event, subject in zip(events, subjects, strict=True)
            if isinstance(subject, Subject) and subject.id and reads_referrer(event, campaigns, self._ledger.calendar)
        }
        found = await self._standings.find({"_id": {"$in": sorted(wanted)}}, limit=len(wanted)) if wanted else []
        return {standing.id: standing for standing in found}

    async def _original(self, event: ShopEvent, purchase: str, subject: Subject) -> RecordedEvent | None:
        original = await self._collection.get(purchase)
        if original is None:
            return None
        pointer, done = ("/refund_of", "refunded") if event.refund_of is not None else ("/confirms", "confirmed")
        if original.owner != subject.id:
            raise Validation.at(pointer, "the purchase is another member's")
        if original.type != PURCHASE:
            raise Validation.at(pointer, f"it is a {original.type}; only a purchase can be {done}")
        return original

    async def _command(
        self,
        actor: Actor,
        event: ShopEvent,
        subject: Subject,
        campaigns: Sequence[LiveCampaign],
        *,
        original: RecordedEvent | None = None,
        standing: MemberState | None = None,
        preview: bool = False,
    ) -> Command[RecordResult]:
        recording = RecordRequest(
            event=event,
            subject=subject,
            actor=actor.id,
            fingerprint=_fingerprint(subject.id or "", event),
            campaigns=campaigns,
            judged_at=self._clock.now_ms(),
            calendar=self._ledger.calendar,
            original=original,
            referrer=None if standing is None else standing.referrer,
            achieved={} if standing is None or original is None else touching(standing.achieved, original.id),
            preview=preview,
        )
        if len(event.items) > ITEMS_SURE and event.about is None:
            recording = msgspec.structs.replace(recording, evaluated_before=await self._judge_early(recording))
        return event_command(recording, new_account, self._stored)

    @staticmethod
    async def _judge_early(recording: RecordRequest) -> dict[str, Evaluation]:
        """Ask the campaigns that need not be asked in the commit, and let others have their turn between one and the next."""
        judging = Evaluator(recording.event, recording.subject, EvaluationInputs(judged_at=recording.judged_at), recording.calendar)
        early: dict[str, Evaluation] = {}
        for live in recording.campaigns:
            if not live.reads_member_state:
                early[live.campaign.id] = judging.evaluate(live)
                await asyncio.sleep(0)
        return early

    async def _subjects(self, events: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign]) -> list[Subject | GuerdonError]:
        """Find the member of each event, and make those that are new; what is recorded already makes nobody."""
        cursor = self._collection.raw.find({"_id": {"$in": [event.id for event in events]}}, {"_id": 1})
        recorded = {str(row["_id"]) async for row in cursor}
        new = {event.external_id for event in events if event.external_id is not None and event.id not in recorded}
        member_ids: dict[str, str | None] = dict(await self._identity.ensure_members(new)) if new else {}
        old = {event.external_id for event in events if event.external_id is not None} - member_ids.keys()
        for external_id in old:
            member_ids[external_id] = await self._identity.find_member_id(external_id)
        subjects: list[Subject | GuerdonError] = []
        for event in events:
            member_id = event.member_id if event.external_id is None else member_ids[event.external_id]
            if member_id is None:
                subjects.append(already_recorded(event.id))
            elif event.external_id is not None and not reads_member(event, campaigns, self._ledger.calendar):
                subjects.append(Subject(member_id, event.external_id))
            else:
                try:
                    subjects.append(await self._read(member_id, event, campaigns))
                except NotFound as error:
                    subjects.append(error)
        return subjects

    async def _subject(self, event: ShopEvent, campaigns: Sequence[LiveCampaign], *, create: bool) -> Subject:
        """Find the member, or make one; what is not needed is not read."""
        member_id = event.member_id
        if event.external_id is not None:
            member_id = await self._identity.find_member_id(event.external_id)
            if member_id is None and create:
                # A refused event must not leave a member behind: what is recorded already cannot be somebody unknown's.
                if await self._collection.get(event.id) is not None:
                    raise already_recorded(event.id)
                member_id = await self._identity.ensure_member(event.external_id)
            if member_id is None or not reads_member(event, campaigns, self._ledger.calendar):
                return Subject(member_id, event.external_id)
        return await self._read(member_id, event, campaigns)

    async def _read(self, member_id: str | None, event: ShopEvent, campaigns: Sequence[LiveCampaign]) -> Subject:
        if member_id is None or reads_member(event, campaigns, self._ledger.calendar):
            return await self._people.read(member_id, seal_for=event.id)
        if event.about is not None:
            await self._identity.require_member(member_id)
        return Subject(member_id, unproven=not self._identity.remembers(member_id))


def shop_event(body: EventCreate) -> ShopEvent:
    """Return the event that a request describes.

    Raises:
        Validation: it names no member or two, a time without an offset, a purchase or refund without an amount, or something else that
            refunds.
    """
    external_id = None if body.member.external_id is UNSET else body.member.external_id
    member_id = None if body.member.id is UNSET else body.member.id
    if (external_id is None) == (member_id is None):
        raise Validation.at("/member", "name the member by exactly one of external_id and id")
    if body.type in MONETARY and body.amount == 0:
        raise Validation.at("/amount", f"a {body.type} needs an amount of at least 1 minor unit")
    if body.currency is None and body.amount:
        raise Validation.at("/currency", "an amount needs its currency")
    if body.refund_of is not None and body.type != REFUND:
        raise Validation.at("/refund_of", f"only a refund has it; this is a {body.type}")
    if body.refund_of == body.id:
        raise Validation.at("/refund_of", "an event cannot refund itself")
    if body.confirms is not None and body.type in MONETARY:
        raise Validation.at("/confirms", f"a {body.type} confirms nothing: send an event of another type")
    if body.confirms == body.id:
        raise Validation.at("/confirms", "an event cannot confirm itself")
    return ShopEvent(
        id=body.id,
        type=body.type,
        occurred_at=utc_ms(body.occurred_at, "/occurred_at"),
        amount=body.amount,
        currency=body.currency or "",
        refund_of=body.refund_of,
        external_id=external_id,
        member_id=member_id,
        items=tuple(
            Item(
                sku=item.sku,
                quantity=item.quantity,
                unit_price=0 if item.unit_price is UNSET else item.unit_price,
                category=item.category,
            )
            for item in body.items
        ),
        attributes=body.attributes,
        confirms=UNSET if body.confirms is None else body.confirms,
    )


def _fingerprint(owner: str, event: ShopEvent) -> bytes:
    """What makes an event the same one. The member counts by our own id: a digest of the shop's would be a way to try names for ever."""
    return digest(owner, _canonical.encode(msgspec.structs.replace(event, external_id=None, member_id=None)))[:16]


def _answer(outcome: CommandOutcome[RecordResult]) -> tuple[RecordedEvent, bool]:
    return outcome.value.event, outcome.value.replayed
