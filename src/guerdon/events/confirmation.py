"""A confirmation of a purchase as a ledger command: awards that wait for it are released. Pure, like `record.py`.

A confirmation is about one purchase, like a linked refund. Campaigns do not evaluate it.
"""

import msgspec

from guerdon.campaigns.domain import Award
from guerdon.campaigns.outcome import confirmation_outcome
from guerdon.campaigns.refunds import lot_name, wallet_of
from guerdon.events.linked import award_wallets, find_linked_replay, linked_command, linked_decision, waiting_changes
from guerdon.events.record import (
    AWARD_BYTES,
    EventCodec,
    OpenWallet,
    PostingBuilder,
    RecordRequest,
    RecordResult,
    inputs_of,
    recorded_event,
    refunded_change,
    refunded_of,
)
from guerdon.ledger.models import AWAITING_CONFIRMATION, Account, Command, Decision, View
from guerdon.tiers.member_state import member_state_of


class ConfirmationRecorder:
    """Makes the command that records a confirmation of one purchase."""

    def __init__(self, request: RecordRequest, open_wallet: OpenWallet, codec: EventCodec) -> None:
        self._request = request
        self._open_wallet = open_wallet
        self._codec = codec
        original = request.original
        self._waiting = [award for award in (original.awards if original is not None else ()) if award.waits is not None]

    def command(self) -> Command[RecordResult]:
        """Return the command with every account and document that the decision may touch."""
        accounts = {wallet_of(award, self._request.owner) for award in self._waiting}
        return linked_command(self._request, self._decide, accounts=accounts, award_bytes=2 * AWARD_BYTES * len(self._waiting))

    def _decide(self, view: View) -> Decision[RecordResult]:
        request, event, owner = self._request, self._request.event, self._request.owner
        replay = find_linked_replay(request, view, self._codec)
        if replay is not None:
            return replay
        inputs = msgspec.structs.replace(
            inputs_of(request, view),
            before=refunded_of(owner, event.about or "", view),
            wallets=award_wallets(self._waiting, owner, view),
            waiting={
                lot_name(award): _amount_waiting(award, view.accounts.get(wallet_of(award, owner))) for award in self._waiting
            },
            awaits=request.original is None,
        )
        awards = None if request.original is None else request.original.awards
        outcome = confirmation_outcome(event, owner, awards, inputs, request.calendar)
        postings = PostingBuilder(request, view, self._open_wallet)
        waiting: dict[str, Award] = {award.campaign: award for award in self._waiting}
        releases = [postings.release(release, waiting[release.campaign]) for release in outcome.releases]
        recorded = recorded_event(request, [], outcome, inputs, releases=releases)
        if request.original is None:
            changes = waiting_changes(outcome, inputs, member_state_of(owner, view))
        else:
            changes = refunded_change(outcome, inputs)
        return linked_decision(recorded, postings, changes, self._codec)


def _amount_waiting(award: Award, wallet: Account | None) -> int:
    """Return the amount of the lot in which the award waits. Awards with the same dates share the lot."""
    lots = () if wallet is None else wallet.lots or ()
    return sum(lot.amount for lot in lots if (lot.available_at, lot.expires_at) == (AWAITING_CONFIRMATION, award.expires_at))
