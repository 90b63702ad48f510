"""An event that confirms a purchase as a command for the ledger: what waited for it can be spent. Pure, like `rules.py`.

Like a linked refund it is about one purchase, and no campaign is asked.
"""

import msgspec

from guerdon.campaigns.allocation import wallet_state
from guerdon.campaigns.domain import EVENTS, REFUNDS, Award
from guerdon.campaigns.outcome import confirmation_outcome
from guerdon.campaigns.refunds import award_wallet_name, wallet_of
from guerdon.campaigns.releases import lot_of
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
    owner_of,
    recorded_event,
    refunded_change,
    refunded_of,
)
from guerdon.ledger.models import AWAITING_CONFIRMATION, Account, Command, Decision, DocumentRef, View
from guerdon.tiers.member_state import member_state_change, member_state_lock, member_state_of, member_state_ref


class ConfirmationRule:
    """A confirmation of one purchase."""

    def __init__(self, recording: RecordRequest, open_wallet: OpenWallet, stored: EventCodec) -> None:
        self._recording = recording
        self._open_wallet = open_wallet
        self._stored = stored
        original = recording.original
        self._waiting = [award for award in (original.awards if original is not None else ()) if award.waits is not None]

    def command(self) -> Command[RecordResult]:
        recording, event, owner = self._recording, self._recording.event, self._recording.owner
        purchase = event.about or ""
        documents = [
            DocumentRef(EVENTS, event.id, owner),
            DocumentRef(REFUNDS, f"{owner}/{purchase}", owner),
            member_state_ref(owner),
        ]
        if recording.original is None:
            documents.append(DocumentRef(EVENTS, purchase, owner))
        wallets = {wallet_of(award, owner) for award in self._waiting}
        return Command(
            owners=tuple({owner, *map(owner_of, wallets)}),
            accounts=(*sorted(wallets), member_state_lock(owner)),
            decide=self._decide,
            documents=tuple(documents),
            size_bytes=EVENT_BYTES + ITEM_BYTES * len(event.items) + 2 * AWARD_BYTES * len(self._waiting),
        )

    def _decide(self, view: View) -> Decision[RecordResult]:
        recording, event, owner = self._recording, self._recording.event, self._recording.owner
        purchase = event.about or ""
        recalled = find_replay(recording, view, self._stored.decode)
        if recalled is not None:
            return recalled
        if recording.original is None and (EVENTS, purchase) in view.documents:
            raise Retry
        accounts = {award_wallet_name(award): view.accounts.get(wallet_of(award, owner)) for award in self._waiting}
        inputs = msgspec.structs.replace(
            inputs_of(recording, view),
            before=refunded_of(owner, purchase, view),
            wallets={place: wallet_state(account) for place, account in accounts.items()},
            waiting={lot_of(award): _there(award, accounts[award_wallet_name(award)]) for award in self._waiting},
            awaits=recording.original is None,
        )
        awards = None if recording.original is None else recording.original.awards
        settled = confirmation_outcome(event, owner, awards, inputs, recording.calendar)
        books = PostingBuilder(recording, view, self._open_wallet)
        waiting: dict[str, Award] = {award.campaign: award for award in self._waiting}
        releases = [books.release(release, waiting[release.campaign]) for release in settled.releases]
        changes = refunded_change(settled, inputs)
        if recording.original is None:
            # Whoever records the purchase meanwhile moves the same standing on, so that one of the two has to look again.
            standing = member_state_of(owner, view)
            changes.append(member_state_change(standing, standing))
        recorded = recorded_event(recording, [], settled, inputs, releases=releases)
        return Decision(
            tuple(books.transactions),
            (),
            ((EVENTS, self._stored.encode(recorded)),),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )


def _there(award: Award, wallet: Account | None) -> int:
    """What lies in the lot in which the award waits; others of the same dates wait there too."""
    own = () if wallet is None else wallet.lots or ()
    return sum(lot.amount for lot in own if (lot.available_at, lot.expires_at) == (AWAITING_CONFIRMATION, award.expires_at))
