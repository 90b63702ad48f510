"""A linked refund as a ledger command. Pure, like `record.py`."""

from collections.abc import Mapping

import msgspec

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.domain import AchievementProgress, Award, PurchaseRefunds, RecordedEvent, Refundable, ShopEvent
from guerdon.campaigns.outcome import refund_outcome
from guerdon.campaigns.refunds import current_award, wallet_of
from guerdon.errors import Retry, Validation
from guerdon.events.expired import expired_amounts, expired_changes, expired_refs
from guerdon.events.linked import award_wallets, find_linked_replay, linked_command, linked_decision, waiting_changes
from guerdon.events.record import (
    AWARD_BYTES,
    EventCodec,
    OpenWallet,
    PostingBuilder,
    RecordRequest,
    RecordResult,
    inputs_of,
    member_state_changes,
    recorded_event,
    refunded_change,
    refunded_of,
    with_tiers,
)
from guerdon.ledger.models import Command, Decision, View
from guerdon.tiers.member_state import TIERS_REF, member_state_of, tier_step, tiers_of
from guerdon.tiers.rules import advance, gains_of

EARLY_CURRENCIES_MAX = 5
"""Maximum number of currencies of the refunds that wait for one purchase."""


class RefundRecorder:
    """Makes the command that records a refund of one purchase."""

    def __init__(self, request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._codec = codec

    def command(self) -> Command[RecordResult]:
        """Return the command with every account and document that the decision may touch."""
        request, original = self._request, self._request.original
        awards = [*(original.awards if original is not None else ()), *achievement_awards(request.achieved)]
        accounts = {wallet_of(award, request.owner) for award in awards} | {name for award in awards for name in award.counted}
        return linked_command(
            request,
            self._decide,
            accounts=accounts,
            award_bytes=AWARD_BYTES * len(awards),
            further_documents=(TIERS_REF, *expired_refs(awards, request.owner, request.expired)),
        )

    def _decide(self, view: View) -> Decision[RecordResult]:
        request, event, original = self._request, self._request.event, self._request.original
        assert event.refund_of is not None
        replay = find_linked_replay(request, view, self._codec)
        if replay is not None:
            return replay
        _require_currency(event, original, refunded_of(request.owner, event.refund_of, view))
        state, sets = member_state_of(request.owner, view), tiers_of(view)
        inputs = with_tiers(inputs_of(request, view), sets, state)
        inputs = msgspec.structs.replace(inputs, before=refunded_of(request.owner, event.refund_of, view))
        postings = PostingBuilder(request, view, self._open_wallet)
        if original is None:
            inputs = msgspec.structs.replace(inputs, awaits=True)
            outcome = refund_outcome(event, request.owner, None, inputs)
            recorded = recorded_event(request, [], outcome, inputs)
            return linked_decision(recorded, postings, waiting_changes(outcome, inputs, state), self._codec)
        achieved = touching(state.achieved, event.refund_of)
        for_goals = achievement_awards(achieved)
        if for_goals != achievement_awards(request.achieved):
            raise Retry
        wallets = award_wallets([*original.awards, *for_goals], request.owner, view)
        known = inputs.before or PurchaseRefunds(id="", owner=request.owner)
        present = [*(current_award(award, known) for award in original.awards), *for_goals]
        expired = expired_amounts(present, request.owner, request.expired, view)
        inputs = msgspec.structs.replace(inputs, wallets=wallets, achieved=achieved, expired=expired)
        outcome = refund_outcome(event, request.owner, Refundable(original.amount, original.awards, original.items), inputs)
        awards = [postings.take_back(taken) for taken in outcome.taken]
        losses = gains_of(event, outcome, inputs, original)
        progress = advance(sets, state, losses, event.id, now_ms=view.now_ms, calendar=request.calendar)
        recorded = recorded_event(request, awards, outcome, inputs, tier_change=tier_step(progress, event.id))
        changes = refunded_change(outcome, inputs)
        changes += expired_changes(present, request.owner, (expired, outcome.expired), view)
        changes += member_state_changes(event, state, progress, outcome, moved=bool(losses))
        return linked_decision(recorded, postings, changes, self._codec, progress)


def _require_currency(event: ShopEvent, original: RecordedEvent | None, known: PurchaseRefunds | None) -> None:
    """Check that the refund has the currency of its purchase.

    Raises:
        Validation: it has another one, or too many currencies wait for the purchase.
    """
    if original is not None and event.currency != original.currency:
        raise Validation.at("/currency", f"the purchase is in {original.currency}; refund it in the same currency")
    if original is None and known is not None and len({*known.early, event.currency}) > EARLY_CURRENCIES_MAX:
        raise Validation.at("/currency", f"refunds in {EARLY_CURRENCIES_MAX} other currencies already wait for the purchase")


def achievement_awards(achieved: Mapping[str, AchievementProgress]) -> list[Award]:
    """Return the awards that were paid for achievements."""
    return [reached.award for progress in achieved.values() for reached in progress.reached if reached.award is not None]
