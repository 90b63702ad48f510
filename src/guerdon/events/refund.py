"""A linked refund as a command for the ledger. Pure, like `rules.py`."""

from collections.abc import Mapping

import msgspec

from guerdon.campaigns.achievements import touching
from guerdon.campaigns.allocation import state_of
from guerdon.campaigns.domain import EVENTS, REFUNDS, Achieved, Award, RecordedEvent
from guerdon.campaigns.outcome import settle_refund
from guerdon.campaigns.refunds import Refundable, place_of_award, wallet_of
from guerdon.events.record import (
    AWARD_BYTES,
    EVENT_BYTES,
    ITEM_BYTES,
    REREAD,
    Books,
    OpenWallet,
    Recording,
    Stored,
    Written,
    inputs_of,
    owner_of,
    recall,
    recorded_event,
    refunded_change,
    refunded_of,
    standing_changes,
    with_tiers,
)
from guerdon.ledger.models import Change, Command, Decision, DocumentRef, View
from guerdon.tiers.member_state import (
    TIERS_REF,
    history_of,
    standing_change,
    standing_lock,
    standing_of,
    standing_ref,
    tier_step,
    tiers_of,
)
from guerdon.tiers.rules import Progress, advance, gains_of


class RefundRule:
    """A refund of one purchase."""

    def __init__(self, recording: Recording, open_wallet: OpenWallet, stored: Stored) -> None:
        self._recording = recording
        self._open_wallet = open_wallet
        self._stored = stored

    def command(self) -> Command:
        recording, event, original = self._recording, self._recording.event, self._recording.original
        owner = recording.owner
        assert event.refund_of is not None
        documents = [DocumentRef(EVENTS, event.id, owner), DocumentRef(REFUNDS, f"{owner}/{event.refund_of}", owner)]
        documents += [TIERS_REF, standing_ref(owner)]
        awards = [*(original.awards if original is not None else []), *_rest_on(recording.achieved)]
        if original is None:
            documents.append(DocumentRef(EVENTS, event.refund_of, owner))
        counted = {name for award in awards for name in award.counted}
        wallets = {wallet_of(award, owner) for award in awards}
        return Command(
            owners=tuple({owner, *map(owner_of, counted | wallets)}),
            accounts=(*sorted(wallets | counted), standing_lock(owner)),
            decide=self._decide,
            documents=tuple(documents),
            size_bytes=EVENT_BYTES + ITEM_BYTES * len(event.items) + AWARD_BYTES * len(awards),
        )

    def _decide(self, view: View) -> Decision:
        recording, event, original = self._recording, self._recording.event, self._recording.original
        assert event.refund_of is not None
        recalled = recall(recording, view, self._stored.decode)
        if recalled is not None:
            return recalled
        if original is None and (EVENTS, event.refund_of) in view.documents:
            return Decision(value=REREAD)
        standing, sets = standing_of(recording.owner, view), tiers_of(view)
        inputs = with_tiers(inputs_of(recording, view), sets, standing)
        inputs = msgspec.structs.replace(inputs, before=refunded_of(recording.owner, event.refund_of, view))
        books = Books(recording, view, self._open_wallet)
        if original is None:
            inputs = msgspec.structs.replace(inputs, awaits=True)
            settled = settle_refund(event, recording.owner, None, inputs)
            # Whoever records the purchase meanwhile moves the same standing on, so that one of the two has to look again.
            changes = [*refunded_change(settled, inputs), standing_change(standing, standing)]
            return self._write(recorded_event(recording, [], settled, inputs), books, changes)
        achieved = touching(standing.achieved, event.refund_of)
        resting = _rest_on(achieved)
        if resting != _rest_on(recording.achieved):
            return Decision(value=REREAD)
        accounts = {
            place_of_award(award): view.accounts.get(wallet_of(award, recording.owner)) for award in [*original.awards, *resting]
        }
        wallets = {place: state_of(account) for place, account in accounts.items()}
        inputs = msgspec.structs.replace(inputs, wallets=wallets, achieved=achieved)
        settled = settle_refund(event, recording.owner, Refundable(original.amount, original.awards, original.items), inputs)
        awards = [books.take_back(taken) for taken in settled.taken]
        losses = gains_of(event, settled, inputs, original)
        progress = advance(sets, standing, losses, event.id, now_ms=view.now_ms, calendar=recording.calendar)
        recorded = recorded_event(recording, awards, settled, inputs, tier_change=tier_step(progress, event.id))
        changes = refunded_change(settled, inputs) + standing_changes(event, standing, progress, settled, moved=bool(losses))
        return self._write(recorded, books, changes, progress)

    def _write(self, recorded: RecordedEvent, books: Books, changes: list[Change], progress: Progress | None = None) -> Decision:
        return Decision(
            tuple(books.transactions),
            (),
            ((EVENTS, self._stored.encode(recorded)), *(() if progress is None else history_of(progress))),
            tuple(changes),
            value=Written(recorded, before=False),
        )


def _rest_on(achieved: Mapping[str, Achieved]) -> list[Award]:
    """What was paid for achievements."""
    return [reached.award for state in achieved.values() for reached in state.reached if reached.award is not None]
