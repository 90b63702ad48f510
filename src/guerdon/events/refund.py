"""A linked refund as a command for the ledger. Pure, like `rules.py`."""

from collections.abc import Mapping

import msgspec

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.allocation import wallet_state
from guerdon.campaigns.domain import EVENTS, REFUNDS, AchievementProgress, Award, RecordedEvent
from guerdon.campaigns.outcome import refund_outcome
from guerdon.campaigns.refunds import Refundable, award_wallet_name, wallet_of
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
    """A refund of one purchase."""

    def __init__(self, recording: RecordRequest, open_wallet: OpenWallet, stored: EventCodec) -> None:
        self._recording = recording
        self._open_wallet = open_wallet
        self._stored = stored

    def command(self) -> Command[RecordResult]:
        recording, event, original = self._recording, self._recording.event, self._recording.original
        owner = recording.owner
        assert event.refund_of is not None
        documents = [DocumentRef(EVENTS, event.id, owner), DocumentRef(REFUNDS, f"{owner}/{event.refund_of}", owner)]
        documents += [TIERS_REF, member_state_ref(owner)]
        awards = [*(original.awards if original is not None else []), *_rest_on(recording.achieved)]
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
        recording, event, original = self._recording, self._recording.event, self._recording.original
        assert event.refund_of is not None
        recalled = find_replay(recording, view, self._stored.decode)
        if recalled is not None:
            return recalled
        if original is None and (EVENTS, event.refund_of) in view.documents:
            raise Retry
        standing, sets = member_state_of(recording.owner, view), tiers_of(view)
        inputs = with_tiers(inputs_of(recording, view), sets, standing)
        inputs = msgspec.structs.replace(inputs, before=refunded_of(recording.owner, event.refund_of, view))
        books = PostingBuilder(recording, view, self._open_wallet)
        if original is None:
            inputs = msgspec.structs.replace(inputs, awaits=True)
            settled = refund_outcome(event, recording.owner, None, inputs)
            # Whoever records the purchase meanwhile moves the same standing on, so that one of the two has to look again.
            changes = [*refunded_change(settled, inputs), member_state_change(standing, standing)]
            return self._write(recorded_event(recording, [], settled, inputs), books, changes)
        achieved = touching(standing.achieved, event.refund_of)
        resting = _rest_on(achieved)
        if resting != _rest_on(recording.achieved):
            raise Retry
        accounts = {
            award_wallet_name(award): view.accounts.get(wallet_of(award, recording.owner)) for award in [*original.awards, *resting]
        }
        wallets = {place: wallet_state(account) for place, account in accounts.items()}
        inputs = msgspec.structs.replace(inputs, wallets=wallets, achieved=achieved)
        settled = refund_outcome(event, recording.owner, Refundable(original.amount, original.awards, original.items), inputs)
        awards = [books.take_back(taken) for taken in settled.taken]
        losses = gains_of(event, settled, inputs, original)
        progress = advance(sets, standing, losses, event.id, now_ms=view.now_ms, calendar=recording.calendar)
        recorded = recorded_event(recording, awards, settled, inputs, tier_change=tier_step(progress, event.id))
        changes = refunded_change(settled, inputs) + member_state_changes(event, standing, progress, settled, moved=bool(losses))
        return self._write(recorded, books, changes, progress)

    def _write(
        self, recorded: RecordedEvent, books: PostingBuilder, changes: list[DocumentChange], progress: TierProgress | None = None
    ) -> Decision[RecordResult]:
        return Decision(
            tuple(books.transactions),
            (),
            ((EVENTS, self._stored.encode(recorded)), *(() if progress is None else history_of(progress))),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )


def _rest_on(achieved: Mapping[str, AchievementProgress]) -> list[Award]:
    """What was paid for achievements."""
    return [reached.award for state in achieved.values() for reached in state.reached if reached.award is not None]
