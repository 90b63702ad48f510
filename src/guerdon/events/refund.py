"""A linked refund as a ledger command. Pure, like `record.py`."""

from collections.abc import Mapping

import msgspec

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.allocation import wallet_state
from guerdon.campaigns.domain import EVENTS, REFUNDS, AchievementProgress, Award, RecordedEvent, Refundable
from guerdon.campaigns.outcome import refund_outcome
from guerdon.campaigns.refunds import award_wallet_name, wallet_of
from guerdon.errors import Retry
from guerdon.events.record import (
    AWARD_BYTES,
    EVENT_BYTES,
    ITEM_BYTES,
    EventCodec,
    OpenWallet,
    PostingBuilder,
    RecordRequest,
    RecordResult,
    find_replay,
    inputs_of,
    member_state_changes,
    owner_of,
    recorded_event,
    refunded_change,
    refunded_of,
    with_tiers,
)
from guerdon.ledger.models import Command, Decision, DocumentChange, DocumentRef, View
from guerdon.tiers.member_state import (
    TIERS_REF,
    history_of,
    member_state_change,
    member_state_lock,
    member_state_of,
    member_state_ref,
    tier_step,
    tiers_of,
)
from guerdon.tiers.rules import TierProgress, advance, gains_of


class RefundRule:
    """Command of a refund of one purchase."""

    def __init__(self, request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._codec = codec

    def command(self) -> Command[RecordResult]:
        """Return the command with every account and document that the decision may touch."""
        request, event, original = self._request, self._request.event, self._request.original
        owner = request.owner
        assert event.refund_of is not None
        documents = [DocumentRef(EVENTS, event.id, owner), DocumentRef(REFUNDS, f"{owner}/{event.refund_of}", owner)]
        documents += [TIERS_REF, member_state_ref(owner)]
        awards = [*(original.awards if original is not None else []), *_achievement_awards(request.achieved)]
        if original is None:
            documents.append(DocumentRef(EVENTS, event.refund_of, owner))
        counted = {name for award in awards for name in award.counted}
        wallets = {wallet_of(award, owner) for award in awards}
        return Command(
            owners=tuple({owner, *map(owner_of, counted | wallets)}),
            accounts=(*sorted(wallets | counted), member_state_lock(owner)),
            decide=self._decide,
            documents=tuple(documents),
            size_bytes=EVENT_BYTES + ITEM_BYTES * len(event.items) + AWARD_BYTES * len(awards),
        )

    def _decide(self, view: View) -> Decision[RecordResult]:
        request, event, original = self._request, self._request.event, self._request.original
        assert event.refund_of is not None
        replay = find_replay(request, view, self._codec.decode)
        if replay is not None:
            return replay
        if original is None and (EVENTS, event.refund_of) in view.documents:
            raise Retry
        state, sets = member_state_of(request.owner, view), tiers_of(view)
        inputs = with_tiers(inputs_of(request, view), sets, state)
        inputs = msgspec.structs.replace(inputs, before=refunded_of(request.owner, event.refund_of, view))
        postings = PostingBuilder(request, view, self._open_wallet)
        if original is None:
            inputs = msgspec.structs.replace(inputs, awaits=True)
            outcome = refund_outcome(event, request.owner, None, inputs)
            # A command that records the purchase meanwhile changes the same member state, so that one of the two has to retry.
            changes = [*refunded_change(outcome, inputs), member_state_change(state, state)]
            return self._write(recorded_event(request, [], outcome, inputs), postings, changes)
        achieved = touching(state.achieved, event.refund_of)
        achievement_awards = _achievement_awards(achieved)
        if achievement_awards != _achievement_awards(request.achieved):
            raise Retry
        accounts = {
            award_wallet_name(award): view.accounts.get(wallet_of(award, request.owner))
            for award in [*original.awards, *achievement_awards]
        }
        wallets = {name: wallet_state(account) for name, account in accounts.items()}
        inputs = msgspec.structs.replace(inputs, wallets=wallets, achieved=achieved)
        outcome = refund_outcome(event, request.owner, Refundable(original.amount, original.awards, original.items), inputs)
        awards = [postings.take_back(taken) for taken in outcome.taken]
        losses = gains_of(event, outcome, inputs, original)
        progress = advance(sets, state, losses, event.id, now_ms=view.now_ms, calendar=request.calendar)
        recorded = recorded_event(request, awards, outcome, inputs, tier_change=tier_step(progress, event.id))
        changes = refunded_change(outcome, inputs) + member_state_changes(event, state, progress, outcome, moved=bool(losses))
        return self._write(recorded, postings, changes, progress)

    def _write(
        self,
        recorded: RecordedEvent,
        postings: PostingBuilder,
        changes: list[DocumentChange],
        progress: TierProgress | None = None,
    ) -> Decision[RecordResult]:
        return Decision(
            tuple(postings.transactions),
            (),
            ((EVENTS, self._codec.encode(recorded)), *(() if progress is None else history_of(progress))),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )


def _achievement_awards(achieved: Mapping[str, AchievementProgress]) -> list[Award]:
    """Return the awards that were paid for achievements."""
    return [reached.award for progress in achieved.values() for reached in progress.reached if reached.award is not None]
