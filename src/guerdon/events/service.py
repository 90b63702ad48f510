"""Events: each is recorded once, evaluated by every active campaign, and paid in the same commit."""

import asyncio
from collections.abc import Mapping, Sequence

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
from guerdon.clock import Clock, rfc3339, utc_ms
from guerdon.database import Database
from guerdon.errors import GuerdonError, NotFound, Overloaded, Retry, Validation
from guerdon.events.confirmation import ConfirmationRecorder
from guerdon.events.expired import first_expiries
from guerdon.events.models import EventCreate
from guerdon.events.proofs import proving
from guerdon.events.record import EventCodec, EventRecorder, OpenWallet, RecordRequest, RecordResult, already_recorded
from guerdon.events.refund import RefundRecorder, achievement_awards
from guerdon.ids import digest
from guerdon.ledger.expiry import ExpiredLots
from guerdon.ledger.models import Command
from guerdon.ledger.rehearsal import Rehearsal
from guerdon.ledger.service import Ledger
from guerdon.members.service import Members
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.proofs import digest_of
from guerdon.quantities import stored
from guerdon.wallets.service import new_account

Result = tuple[RecordedEvent, bool] | GuerdonError
"""A recorded event with true if it was recorded before, or the error that refused it."""
_canonical = msgspec.json.Encoder(order="sorted")
YIELD_EVERY = 16
"""Number of events of a bulk request that are evaluated before other tasks run."""
_PLACEHOLDER = "mem_" + "0" * 20
NOTHING_EXPIRED: Mapping[str, ExpiredLots] = {}
ATTEMPTS_MAX = 5
"""Number of commands that are made for one event while what they read keeps changing."""


class Events:
    """Shop events and what they earn."""

    def __init__(
        self,
        ledger: Ledger,
        members: Members,
        campaigns: Campaigns,
        *,
        profiles: Profiles,
        database: Database,
        clock: Clock,
        ahead_hours_max: int,
    ) -> None:
        self._ledger = ledger
        self._members = members
        self._profiles = profiles
        self._campaigns = campaigns
        self._collection = database.collection(EVENTS, RecordedEvent)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._codec = EventCodec(self._collection.encode, self._collection.decode)
        self._clock = clock
        self._ahead_ms_max = ahead_hours_max * 3_600_000

    async def record(self, actor: Actor, body: EventCreate, *, dry_run: bool = False) -> tuple[RecordedEvent, bool]:
        """Record an event and pay its awards in one commit. Return the event, and true if it was recorded before.

        A dry run evaluates the event on the present balances and writes nothing, not even a new member.

        Raises:
            NotFound: the event names a member id that does not exist.
            Validation: the body contradicts itself, its time is too far ahead, or the event that it refunds or confirms is no purchase or
                belongs to another member.
            EventReused: the id belongs to another event.
        """
        event = shop_event(body, self._latest_ms())
        campaigns = await self._campaigns.list_live()
        subject = await self._subject(event, campaigns, create=not dry_run)
        rehearsal = self._ledger.rehearsal() if dry_run else None
        return await self._record(actor, event, subject, campaigns, rehearsal)

    async def record_bulk(self, actor: Actor, bodies: Sequence[EventCreate], *, dry_run: bool = False) -> list[Result]:
        """Record the events of a bulk request, each on its own. Events of one member are recorded in the order given."""
        results: list[Result | None] = []
        events: list[ShopEvent] = []
        latest_ms = self._latest_ms()
        for body in bodies:
            try:
                events.append(shop_event(body, latest_ms))
                results.append(None)
            except Validation as error:
                results.append(error)
        recorded = iter(await self.record_all(actor, events, await self._campaigns.list_live(), dry_run=dry_run))
        return [next(recorded) if result is None else result for result in results]

    async def record_all(
        self, actor: Actor, events: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign], *, dry_run: bool = False
    ) -> list[Result]:
        """Record many events, at most 500, as evaluated by the given campaigns; an import of history names its own.

        Refunds of a purchase and confirmations are recorded after all other events. In a dry run each event sees the effects of those before it.
        """
        rehearsal = self._ledger.rehearsal() if dry_run else None
        results: dict[int, Result] = {}
        subjects = await self._subjects(events, campaigns, create=not dry_run)
        batch: list[tuple[int, Subject, Command[RecordResult]]] = []
        states = await self._referred(events, subjects, campaigns)
        for index, (event, subject) in enumerate(zip(events, subjects, strict=True)):
            if isinstance(subject, GuerdonError):
                results[index] = subject
            elif event.about is None:
                if index % YIELD_EVERY == YIELD_EVERY - 1:
                    await asyncio.sleep(0)
                state = states.get(subject.id or "")
                command = await self._command(actor, event, subject, campaigns, state=state, preview=dry_run)
                batch.append((index, subject, command))
        answers = await (rehearsal or self._ledger).submit_all([command for _, _, command in batch])
        for (index, subject, _), answer in zip(batch, answers, strict=True):
            if isinstance(answer, Retry):
                continue
            if isinstance(answer, GuerdonError):
                results[index] = answer
                continue
            results[index] = (answer.value.event, answer.value.replayed)
            self._remember(subject)
        for index, (event, subject) in enumerate(zip(events, subjects, strict=True)):
            if index not in results and isinstance(subject, Subject):
                try:
                    results[index] = await self._record(actor, event, subject, campaigns, rehearsal)
                except GuerdonError as error:
                    results[index] = error
        return [_without_placeholder(results[index]) for index in range(len(events))]

    async def preview(self, actor: Actor, body: EventCreate) -> RecordedEvent:
        """Return the event of a dry run.

        Raises:
            NotFound, Validation, EventReused: see `record`.
        """
        recorded, _ = await self.record(actor, body, dry_run=True)
        return recorded

    async def get_event(self, actor: Actor, event_id: str) -> RecordedEvent:
        """
        Raises:
            NotFound: the event does not exist, or the caller is another member.
        """
        event = await self._collection.get(event_id)
        if event is None:
            raise NotFound(MISSING_OR_FOREIGN)
        actor.require_reach(event.owner)
        return event

    async def get_event_and_since(self, actor: Actor, event_id: str) -> tuple[RecordedEvent, PurchaseRefunds | None]:
        """Return an event, and its refunds, confirmations and void since; None if there are none.

        Raises:
            NotFound: the event does not exist, or the caller is another member.
        """
        event = await self.get_event(actor, event_id)
        return event, await self._refunds.find_one({"_id": f"{event.owner}/{event_id}", "owner": event.owner})

    def _latest_ms(self) -> int:
        """Return the latest acceptable time of an event.

        A later one would use caps of its own, and every purchase after it would seem to come too soon after it.
        """
        return self._clock.now_ms() + self._ahead_ms_max

    async def _record(
        self,
        actor: Actor,
        event: ShopEvent,
        subject: Subject,
        campaigns: Sequence[LiveCampaign],
        rehearsal: Rehearsal | None,
    ) -> tuple[RecordedEvent, bool]:
        for attempt in range(ATTEMPTS_MAX):
            original, original_digest = (
                (None, None) if event.about is None else await self._original(event, event.about, subject, rehearsal)
            )
            state = await self._member_state(event, subject, campaigns, original, rehearsal)
            expired = await self._expired(event, original, state, everything=attempt > 0)
            command = await self._command(
                actor,
                event,
                subject,
                campaigns,
                original=original,
                original_digest=original_digest,
                state=state,
                expired=expired,
                preview=rehearsal is not None,
            )
            try:
                outcome = await (rehearsal or self._ledger).submit(command)
            except Retry:
                continue
            if subject.unproven:
                self._remember(subject)
            return outcome.value.event, outcome.value.replayed
        raise Overloaded("the purchase is being recorded; nothing was done", retry_after_seconds=1)

    def _remember(self, subject: Subject) -> None:
        if subject.unproven and subject.id is not None:
            self._members.remember(subject.id)

    async def _member_state(
        self,
        event: ShopEvent,
        subject: Subject,
        campaigns: Sequence[LiveCampaign],
        original: RecordedEvent | None,
        rehearsal: Rehearsal | None,
    ) -> MemberState | None:
        """Return the member state if it names further accounts that the event may move. The rest of it is read in the commit."""
        if (
            subject.id is None
            or event.confirms is not UNSET
            or (original is None and not reads_referrer(event, campaigns, self._ledger.calendar))
        ):
            return None
        known = None if rehearsal is None else rehearsal.document(MEMBER_STATES, subject.id)
        if known is not None:
            return self._member_states.decode(known)
        return await self._member_states.find_one({"_id": subject.id, "owner": subject.id})

    async def _expired(
        self, event: ShopEvent, original: RecordedEvent | None, state: MemberState | None, *, everything: bool
    ) -> dict[str, ExpiredLots]:
        """Return, by wallet, what has expired of the awards that a refund takes back; `everything`: of all that can have expired."""
        if original is None or event.refund_of is None:
            return {}
        achieved = {} if state is None else touching(state.achieved, original.id)
        awards = [*original.awards, *achievement_awards(achieved)]
        since = first_expiries(awards, original.owner, original.recorded_at, None if everything else self._clock.now_ms())
        return {wallet: await self._ledger.find_expired(wallet, since_ms) for wallet, since_ms in sorted(since.items())}

    async def _referred(
        self, events: Sequence[ShopEvent], subjects: Sequence[Subject | GuerdonError], campaigns: Sequence[LiveCampaign]
    ) -> dict[str, MemberState]:
        """Return, by member, the member states that name further accounts which the events may move."""
        wanted = {
            subject.id
            for event, subject in zip(events, subjects, strict=True)
            if isinstance(subject, Subject) and subject.id and reads_referrer(event, campaigns, self._ledger.calendar)
        }
        found = await self._member_states.find({"_id": {"$in": sorted(wanted)}}, limit=len(wanted)) if wanted else []
        return {state.id: state for state in found}

    async def _original(
        self, event: ShopEvent, purchase: str, subject: Subject, rehearsal: Rehearsal | None
    ) -> tuple[RecordedEvent, str] | tuple[None, None]:
        """Return the purchase of a linked event and the digest of the stored document, if it is recorded."""
        known = None if rehearsal is None else rehearsal.document(EVENTS, purchase)
        document = await self._collection.raw.find_one({"_id": purchase}) if known is None else known
        if document is None:
            return None, None
        original = self._collection.decode(document)
        pointer, done = ("/refund_of", "refunded") if event.refund_of is not None else ("/confirms", "confirmed")
        if original.owner != subject.id:
            raise _foreign_purchase(event)
        if original.type != PURCHASE:
            raise Validation.at(pointer, f"the event is a {original.type}; only a purchase can be {done}")
        return original, digest_of(document)

    async def _command(
        self,
        actor: Actor,
        event: ShopEvent,
        subject: Subject,
        campaigns: Sequence[LiveCampaign],
        *,
        original: RecordedEvent | None = None,
        original_digest: str | None = None,
        state: MemberState | None = None,
        expired: Mapping[str, ExpiredLots] = NOTHING_EXPIRED,
        preview: bool = False,
    ) -> Command[RecordResult]:
        owner = subject.id or ""
        request = RecordRequest(
            event=event,
            owner=owner,
            subject=subject,
            actor=actor.id,
            fingerprint=_fingerprint(owner, event),
            campaigns=campaigns,
            judged_at=self._clock.now_ms(),
            calendar=self._ledger.calendar,
            original=original,
            original_digest=original_digest,
            referrer=None if state is None else state.referrer,
            achieved={} if state is None or original is None else touching(state.achieved, original.id),
            expired=expired,
            preview=preview,
        )
        if len(event.items) > ITEMS_SURE and event.about is None:
            request = msgspec.structs.replace(request, evaluated_before=await self._evaluate_early(request))
        return event_command(request, new_account, self._codec)

    @staticmethod
    async def _evaluate_early(request: RecordRequest) -> dict[str, Evaluation]:
        """Evaluate the campaigns that do not read the member state, and let other tasks run after each."""
        evaluator = Evaluator(request.event, request.subject, EvaluationInputs(judged_at=request.judged_at), request.calendar)
        early: dict[str, Evaluation] = {}
        for live in request.campaigns:
            if not live.reads_member_state:
                early[live.campaign.id] = evaluator.evaluate(live)
                await asyncio.sleep(0)
        return early

    async def _subjects(
        self, events: Sequence[ShopEvent], campaigns: Sequence[LiveCampaign], *, create: bool
    ) -> list[Subject | GuerdonError]:
        """Return the member of each event. `create` creates members that are new; otherwise they get placeholders for ids.

        An event that is recorded already, or about a purchase that is, creates no member.
        """
        wanted = {name for event in events for name in (event.id, event.about) if name is not None}
        cursor = self._collection.raw.find({"_id": {"$in": sorted(wanted)}}, {"_id": 1})
        recorded = {str(row["_id"]) async for row in cursor}
        new = {
            event.external_id
            for event in events
            if event.external_id is not None and recorded.isdisjoint((event.id, event.about or event.id))
        }
        member_ids: dict[str, str | None] = dict(await self._members.ensure_members(new)) if new and create else {}
        if not create:
            for number, external_id in enumerate(sorted(new), start=1):
                member_ids[external_id] = await self._members.find_member_id(external_id) or _placeholder(number)
        old = {event.external_id for event in events if event.external_id is not None} - member_ids.keys()
        for external_id in old:
            member_ids[external_id] = await self._members.find_member_id(external_id)
        subjects: list[Subject | GuerdonError] = []
        for event in events:
            member_id = event.member_id if event.external_id is None else member_ids[event.external_id]
            if member_id is None:
                subjects.append(already_recorded(event.id) if event.id in recorded else _foreign_purchase(event))
            elif event.external_id is not None and (
                _is_placeholder(member_id) or not reads_member(event, campaigns, self._ledger.calendar)
            ):
                subjects.append(Subject(member_id, event.external_id))
            else:
                try:
                    subjects.append(await self._read(member_id, event, campaigns))
                except NotFound as error:
                    subjects.append(error)
        return subjects

    async def _subject(self, event: ShopEvent, campaigns: Sequence[LiveCampaign], *, create: bool) -> Subject:
        """Return the member of an event; `create` creates a member that is new. The profile is read only if a campaign reads it."""
        member_id = event.member_id
        if event.external_id is not None:
            member_id = await self._members.find_member_id(event.external_id)
            if member_id is None and create:
                # A refused event must not create a member: an event that is recorded already belongs to a known member.
                if await self._collection.get(event.id) is not None:
                    raise already_recorded(event.id)
                if event.about is not None and await self._collection.get(event.about) is not None:
                    raise _foreign_purchase(event)
                member_id = await self._members.ensure_member(event.external_id)
            if member_id is None or not reads_member(event, campaigns, self._ledger.calendar):
                return Subject(member_id, event.external_id)
        return await self._read(member_id, event, campaigns)

    async def _read(self, member_id: str | None, event: ShopEvent, campaigns: Sequence[LiveCampaign]) -> Subject:
        if member_id is None or reads_member(event, campaigns, self._ledger.calendar):
            return await self._profiles.read(member_id, seal_for=event.id)
        if event.about is not None:
            await self._members.require_member(member_id)
        return Subject(member_id, unproven=not self._members.remembers(member_id))


def _placeholder(number: int) -> str:
    """Return an id for a member that a dry run does not create. No member has it, because the ids of members begin with a time."""
    return f"{_PLACEHOLDER}{number:012x}"


def _is_placeholder(member_id: str) -> bool:
    return member_id.startswith(_PLACEHOLDER)


def _without_placeholder(result: Result) -> Result:
    """Return the result with no member in place of a placeholder, as in the preview of a single event."""
    if isinstance(result, GuerdonError) or not _is_placeholder(result[0].owner):
        return result
    return msgspec.structs.replace(result[0], owner=""), result[1]


def event_command(request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> Command[RecordResult]:
    """Return the command that records the event and pays its awards in one commit. The same event again returns the first answer.

    `decide` raises EventReused when the id belongs to another event.
    """
    event = request.event
    recorder = EventRecorder if event.about is None else ConfirmationRecorder if event.refund_of is None else RefundRecorder
    command = recorder(request, open_wallet, codec).command()
    return msgspec.structs.replace(command, decide=proving(command.decide, request))


def _foreign_purchase(event: ShopEvent) -> Validation:
    pointer = "/refund_of" if event.refund_of is not None else "/confirms"
    return Validation.at(pointer, "the purchase belongs to another member")


def shop_event(body: EventCreate, latest_ms: int) -> ShopEvent:
    """Return the event that a request describes. It must not occur after `latest_ms`.

    Raises:
        Validation: the body names no member or two, a time without an offset or after `latest_ms`, a purchase or refund without an amount,
            or `refund_of` or `confirms` on an event that cannot have it.
    """
    faults = _contradictions_of(body)
    occurred_at = 0
    try:
        occurred_at = utc_ms(body.occurred_at, "/occurred_at")
        if occurred_at > latest_ms:
            faults.append(
                Validation.at(
                    "/occurred_at", f"an event can occur until {rfc3339(latest_ms)} at the latest; check the sender's clock"
                )
            )
    except Validation as fault:
        faults.append(fault)
    if faults:
        raise Validation.all_of(faults)
    external_id = None if body.member.external_id is UNSET else body.member.external_id
    member_id = None if body.member.id is UNSET else body.member.id
    return ShopEvent(
        id=body.id,
        type=body.type,
        occurred_at=occurred_at,
        amount=0 if body.amount is UNSET else body.amount,
        currency=body.currency or "",
        refund_of=body.refund_of,
        external_id=external_id,
        member_id=member_id,
        items=tuple(
            Item(
                sku=item.sku,
                quantity=stored(item.quantity),
                unit_price=0 if item.unit_price is UNSET else item.unit_price,
                category=item.category,
            )
            for item in body.items
        ),
        attributes=body.attributes,
        confirms=UNSET if body.confirms is None else body.confirms,
    )


def _contradictions_of(body: EventCreate) -> list[Validation]:
    """Return the faults of fields that do not fit together."""
    faults: list[Validation] = []
    if (body.member.external_id is UNSET) == (body.member.id is UNSET):
        faults.append(Validation.at("/member", "identify the member by exactly one of external_id and id"))
    monetary = body.type in MONETARY
    if monetary and body.amount is UNSET:
        faults.append(Validation.at("/amount", f"a {body.type} needs an amount; it is 0 if vouchers or gift cards have paid it"))
    if body.type == REFUND and body.amount == 0 and body.refund_of is None:
        faults.append(Validation.at("/amount", "a refund without refund_of needs an amount of at least 1 minor unit"))
    if body.currency is None and (monetary or body.amount):
        faults.append(Validation.at("/currency", "an amount needs its currency"))
    if body.refund_of is not None and body.type != REFUND:
        faults.append(Validation.at("/refund_of", f"only a refund can have refund_of; this is a {body.type}"))
    elif body.refund_of == body.id:
        faults.append(Validation.at("/refund_of", "an event cannot refund itself"))
    if body.confirms is not None and monetary:
        faults.append(Validation.at("/confirms", f"a {body.type} cannot confirm a purchase; send an event of another type"))
    elif body.confirms == body.id:
        faults.append(Validation.at("/confirms", "an event cannot confirm itself"))
    return faults


def _fingerprint(owner: str, event: ShopEvent) -> bytes:
    """Return the digest by which a repeated event is recognised.

    It covers our own id of the member and not the shop's: a stored digest of the shop's id could be used to guess it after an erasure.
    """
    return digest(owner, _canonical.encode(msgspec.structs.replace(event, external_id=None, member_id=None)))[:16]
