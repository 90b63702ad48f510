"""The void of a recorded event as a ledger command: everything that it paid and counted for is taken back. Pure, like `record.py`."""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.domain import (
    EVENT_VOIDS,
    PURCHASE,
    REFUNDS,
    EventVoid,
    MemberState,
    PurchaseRefunds,
    RecordedEvent,
    RecordedVoid,
    Refundable,
    TakenBack,
    VoidedEvent,
)
from guerdon.campaigns.outcome import EventOutcome, void_outcome
from guerdon.campaigns.purchase_history import without_purchase
from guerdon.campaigns.refunds import current_award, wallet_of
from guerdon.errors import Retry
from guerdon.events.expired import expired_amounts, expired_changes, expired_refs
from guerdon.events.linked import award_wallets
from guerdon.events.proofs import prove_void
from guerdon.events.record import (
    AWARD_BYTES,
    EVENT_BYTES,
    OpenWallet,
    PostingBuilder,
    RecordRequest,
    inputs_of,
    refunded_of,
    with_tiers,
)
from guerdon.events.refund import achievement_awards
from guerdon.ledger.models import Command, Decision, DocumentRef, View
from guerdon.tiers.member_state import (
    TIERS_REF,
    counted_change,
    history_of,
    member_state_change,
    member_state_lock,
    member_state_of,
    member_state_ref,
    tiers_of,
)
from guerdon.tiers.rules import advance, gains_of


class VoidRequest(Struct, frozen=True):
    """An event to void, with everything that was read for it before the commit."""

    record: RecordRequest
    """Request of a full refund of the event. No such event is recorded."""
    original: RecordedEvent
    original_digest: str
    """Digest of the stored event."""
    reason: str
    state_count: int
    """Count of the member state that `record` and `times_left` were read from."""
    times_left: Sequence[int] | None = None
    """Times of the newest other purchases, oldest first, if the member state does not have them."""


class VoidResult(Struct, frozen=True):
    """Refunds, confirmations and void of the event. `replayed` is true if an earlier request voided it."""

    since: PurchaseRefunds
    replayed: bool


class VoidRecorder:
    """Makes the command that voids an event."""

    def __init__(self, request: VoidRequest, open_wallet: OpenWallet) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._awards = [*request.original.awards, *achievement_awards(request.record.achieved)]

    def command(self) -> Command[VoidResult]:
        """Return the command with every account and document that the decision may touch."""
        record, owner, original = self._request.record, self._request.original.owner, self._request.original
        accounts = {wallet_of(award, owner) for award in self._awards} | {name for award in self._awards for name in award.counted}
        documents = [DocumentRef(REFUNDS, f"{owner}/{original.id}", owner), member_state_ref(owner), TIERS_REF]
        return Command(
            owners=tuple({owner, *(account.rpartition(":")[0] for account in accounts)}),
            accounts=(*sorted(accounts), member_state_lock(owner)),
            decide=self._decide,
            documents=(*documents, *expired_refs(self._awards, owner, record.expired)),
            size_bytes=EVENT_BYTES + AWARD_BYTES * len(self._awards),
        )

    def _decide(self, view: View) -> Decision[VoidResult]:
        record, original = self._request.record, self._request.original
        owner = original.owner
        before = refunded_of(owner, original.id, view)
        if before is not None and before.voided is not None:
            return Decision(value=VoidResult(before, replayed=True))
        state, sets = member_state_of(owner, view), tiers_of(view)
        if state.count != self._request.state_count:
            raise Retry
        known = before or PurchaseRefunds(id=f"{owner}/{original.id}", owner=owner)
        achieved = touching(state.achieved, original.id)
        present = [*(current_award(award, known) for award in original.awards), *achievement_awards(achieved)]
        expired = expired_amounts(present, owner, record.expired, view)
        inputs = msgspec.structs.replace(
            with_tiers(inputs_of(record, view), sets, state),
            before=before,
            wallets=award_wallets(self._awards, owner, view),
            achieved=achieved,
            expired=expired,
        )
        outcome = void_outcome(original.id, Refundable(original.amount, original.awards, original.items), known, inputs)
        assert outcome.refunded is not None
        postings = PostingBuilder(record, view, self._open_wallet)
        awards = [postings.take_back(taken) for taken in outcome.taken]
        losses = gains_of(record.event, outcome, inputs, original)
        progress = advance(sets, state, losses, original.id, now_ms=view.now_ms, calendar=record.calendar)
        voided = EventVoid(at=view.now_ms, by=record.actor, reason=self._request.reason, awards=awards, decisions=outcome.decisions)
        since = msgspec.structs.replace(outcome.refunded, voided=voided)
        after = self._without_event(msgspec.structs.replace(progress.member_state, achieved={**state.achieved, **outcome.achieved}))
        changes = [counted_change(REFUNDS, since, None if before is None else before.count), member_state_change(state, after)]
        changes += expired_changes(present, owner, (expired, outcome.expired), view)
        decision = Decision(
            tuple(postings.transactions),
            inserts=((EVENT_VOIDS, self._document(view.now_ms, known, outcome)), *history_of(progress)),
            changes=tuple(changes),
            value=VoidResult(since, replayed=False),
        )
        return prove_void(decision, owner, original.id, self._request.original_digest, view)

    def _document(self, now_ms: int, known: PurchaseRefunds, outcome: EventOutcome) -> dict[str, object]:
        original, actor = self._request.original, self._request.record.actor
        taken = [TakenBack(campaign=each.campaign, version=each.version, amount=-each.amount) for each in outcome.decisions]
        document: dict[str, object] = msgspec.to_builtins(
            RecordedVoid(
                id=f"{original.owner}/{original.id}",
                owner=original.owner,
                event=original.id,
                recorded_at=now_ms,
                recorded_by=actor,
                reason=self._request.reason,
                voided=VoidedEvent(
                    type=original.type,
                    occurred_at=original.occurred_at,
                    amount=original.amount,
                    currency=original.currency,
                    refunded=known.amount,
                    taken=tuple(taken),
                ),
            )
        )
        return document

    def _without_event(self, state: MemberState) -> MemberState:
        """Return the state without the purchase, if the event is one that counted."""
        original = self._request.original
        if original.type != PURCHASE or original.amount < 0 or not state.purchases:
            return state
        return without_purchase(state, original.occurred_at, self._request.times_left)
