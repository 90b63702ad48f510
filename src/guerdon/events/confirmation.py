"""A confirmation of a purchase as a ledger command: awards that wait for it are released. Pure, like `record.py`.

A confirmation is about one purchase, like a linked refund. Campaigns do not evaluate it.
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
    """Command of a confirmation of one purchase."""

    def __init__(self, request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._codec = codec
        original = request.original
        self._waiting = [award for award in (original.awards if original is not None else ()) if award.waits is not None]

    def command(self) -> Command[RecordResult]:
        """Return the command with every account and document that the decision may touch."""
        request, event, owner = self._request, self._request.event, self._request.owner
        purchase = event.about or ""
        documents = [
            DocumentRef(EVENTS, event.id, owner),
            DocumentRef(REFUNDS, f"{owner}/{purchase}", owner),
            member_state_ref(owner),
        ]
        if request.original is None:
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
        request, event, owner = self._request, self._request.event, self._request.owner
        purchase = event.about or ""
        replay = find_replay(request, view, self._codec.decode)
        if replay is not None:
            return replay
        if request.original is None and (EVENTS, purchase) in view.documents:
            raise Retry
        accounts = {award_wallet_name(award): view.accounts.get(wallet_of(award, owner)) for award in self._waiting}
        inputs = msgspec.structs.replace(
            inputs_of(request, view),
            before=refunded_of(owner, purchase, view),
            wallets={name: wallet_state(account) for name, account in accounts.items()},
            waiting={lot_of(award): _amount_waiting(award, accounts[award_wallet_name(award)]) for award in self._waiting},
            awaits=request.original is None,
        )
        awards = None if request.original is None else request.original.awards
        outcome = confirmation_outcome(event, owner, awards, inputs, request.calendar)
        postings = PostingBuilder(request, view, self._open_wallet)
        waiting: dict[str, Award] = {award.campaign: award for award in self._waiting}
        releases = [postings.release(release, waiting[release.campaign]) for release in outcome.releases]
        changes = refunded_change(outcome, inputs)
        if request.original is None:
            # A command that records the purchase meanwhile changes the same member state, so that one of the two has to retry.
            state = member_state_of(owner, view)
            changes.append(member_state_change(state, state))
        recorded = recorded_event(request, [], outcome, inputs, releases=releases)
        return Decision(
            tuple(postings.transactions),
            (),
            ((EVENTS, self._codec.encode(recorded)),),
            tuple(changes),
            value=RecordResult(recorded, replayed=False),
        )


def _amount_waiting(award: Award, wallet: Account | None) -> int:
    """Return the amount of the lot in which the award waits. Awards with the same dates share the lot."""
    lots = () if wallet is None else wallet.lots or ()
    return sum(lot.amount for lot in lots if (lot.available_at, lot.expires_at) == (AWAITING_CONFIRMATION, award.expires_at))
