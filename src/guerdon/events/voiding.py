"""Voids of recorded events: corrections of events that should not have been recorded as they were."""

import heapq

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.domain import (
    EVENTS,
    MEMBER_STATES,
    PURCHASE,
    REFUND,
    REFUNDS,
    MemberState,
    PurchaseRefunds,
    RecordedEvent,
    ShopEvent,
)
from guerdon.campaigns.evaluation import Subject
from guerdon.campaigns.purchase_history import PURCHASES_KEPT, knows_other_purchases
from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import InvalidState, NotFound, Overloaded, Retry
from guerdon.events.expired import first_expiries
from guerdon.events.record import RecordRequest
from guerdon.events.refund import achievement_awards
from guerdon.events.void import VoidRecorder, VoidRequest, VoidResult
from guerdon.ledger.service import Ledger
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.proofs import digest_of
from guerdon.wallets.service import new_account

ATTEMPTS_MAX = 5
"""Number of commands that are made for one void while what they read keeps changing."""
PAGE = 100


class EventVoids:
    """Voids events."""

    def __init__(self, ledger: Ledger, *, database: Database, clock: Clock) -> None:
        self._ledger = ledger
        self._events = database.collection(EVENTS, RecordedEvent)
        self._refunds = database.collection(REFUNDS, PurchaseRefunds)
        self._member_states = database.collection(MEMBER_STATES, MemberState)
        self._clock = clock

    async def void(self, actor: Actor, event_id: str, reason: str, *, dry_run: bool = False) -> tuple[RecordedEvent, VoidResult]:
        """Take back what an event paid, as a full refund would, and everything that it counted for. A second void changes nothing.

        A dry run answers what a void would do, and writes nothing.

        Raises:
            NotFound: the event does not exist.
            InvalidState: the event is a refund or a confirmation.
            Overloaded: the member's other events keep changing what was read.
        """
        document = await self._events.raw.find_one({"_id": event_id})
        if document is None:
            raise NotFound(MISSING_OR_FOREIGN)
        original, original_digest = self._events.decode(document), digest_of(document)
        if original.type == REFUND or original.about is not None:
            kind = "a refund" if original.type == REFUND else "a confirmation"
            raise InvalidState(f"{kind} cannot be voided; credit the wallet instead", status_now="recorded")
        for attempt in range(ATTEMPTS_MAX):
            request = await self._request(actor, original, original_digest, reason, everything=attempt > 0, dry_run=dry_run)
            try:
                outcome = await self._ledger.submit(VoidRecorder(request, new_account).command(), dry_run=dry_run)
            except Retry:
                continue
            return original, outcome.value
        raise Overloaded("other events of the member are being recorded; nothing was done", retry_after_seconds=1)

    async def _request(
        self, actor: Actor, original: RecordedEvent, original_digest: str, reason: str, *, everything: bool, dry_run: bool
    ) -> VoidRequest:
        """Return the request with what the commit depends on; `everything`: of all that can have expired."""
        owner = original.owner
        state = await self._member_states.find_one({"_id": owner, "owner": owner}) or MemberState(id=owner, owner=owner)
        achieved = touching(state.achieved, original.id)
        awards = [*original.awards, *achievement_awards(achieved)]
        now_ms = self._clock.now_ms()
        since = first_expiries(awards, owner, original.recorded_at, None if everything else now_ms)
        known = original.type != PURCHASE or knows_other_purchases(state, original.occurred_at)
        event = ShopEvent(
            id=original.id,
            type=REFUND,
            occurred_at=original.occurred_at,
            amount=original.amount,
            currency=original.currency,
            refund_of=original.id,
            member_id=owner,
        )
        record = RecordRequest(
            event=event,
            owner=owner,
            subject=Subject(owner),
            actor=actor.id,
            fingerprint=b"",
            campaigns=(),
            judged_at=now_ms,
            calendar=self._ledger.calendar,
            original=original,
            achieved=achieved,
            preview=dry_run,
            expired={wallet: await self._ledger.find_expired(wallet, since_ms) for wallet, since_ms in sorted(since.items())},
        )
        times_left = None if known else await self._other_purchases(original)
        return VoidRequest(record, original, original_digest, reason, state.count, times_left)

    async def _other_purchases(self, original: RecordedEvent) -> list[int]:
        """Return the times of the member's newest other purchases, oldest first. Reads all events of the member, for an old member state."""
        owner, voided = original.owner, {original.id}
        after, last = f"{owner}/", f"{owner}0"
        while refunds := await self._refunds.find(
            {"_id": {"$gt": after, "$lt": last}, "owner": owner}, sort=[("_id", 1)], limit=PAGE
        ):
            voided |= {each.id.removeprefix(f"{owner}/") for each in refunds if each.voided is not None}
            after = refunds[-1].id
        newest: list[int] = []
        after = ""
        while events := await self._events.find({"owner": owner, "_id": {"$gt": after}}, sort=[("_id", 1)], limit=PAGE):
            times = (each.occurred_at for each in events if each.type == PURCHASE and each.amount >= 0 and each.id not in voided)
            newest = heapq.nlargest(PURCHASES_KEPT, [*newest, *times])
            after = events[-1].id
        return sorted(newest)
