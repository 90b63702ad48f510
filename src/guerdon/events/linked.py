"""Refunds and confirmations of one purchase: the parts that their commands share. Pure, like `record.py`."""

from collections.abc import Callable, Iterable

from guerdon.campaigns.allocation import wallet_state
from guerdon.campaigns.domain import EVENTS, REFUNDS, Award, AwardWallet, EvaluationInputs, MemberState, RecordedEvent
from guerdon.campaigns.outcome import EventOutcome
from guerdon.campaigns.refunds import award_wallet_name, wallet_of
from guerdon.errors import Retry
from guerdon.events.record import (
    EVENT_BYTES,
    ITEM_BYTES,
    EventCodec,
    PostingBuilder,
    RecordRequest,
    RecordResult,
    find_replay,
    refunded_change,
)
from guerdon.ledger.models import Command, Decision, DocumentChange, DocumentRef, View
from guerdon.tiers.member_state import history_of, member_state_change, member_state_lock, member_state_ref
from guerdon.tiers.rules import TierProgress


def linked_command(
    request: RecordRequest,
    decide: Callable[[View], Decision[RecordResult]],
    *,
    accounts: set[str],
    award_bytes: int,
    further_documents: Iterable[DocumentRef] = (),
) -> Command[RecordResult]:
    """Return the command of an event about one purchase.

    It reads the event, the refunds and confirmations of the purchase, the member state and `further_documents`; and the purchase itself if it
    was not recorded when the request was made.
    """
    event, owner, purchase = request.event, request.owner, request.event.about
    assert purchase is not None
    documents = [DocumentRef(EVENTS, event.id, owner), DocumentRef(REFUNDS, f"{owner}/{purchase}", owner), member_state_ref(owner)]
    documents += further_documents
    if request.original is None:
        documents.append(DocumentRef(EVENTS, purchase, owner))
    return Command(
        owners=tuple({owner, *(account.rpartition(":")[0] for account in accounts)}),
        accounts=(*sorted(accounts), member_state_lock(owner)),
        decide=decide,
        documents=tuple(documents),
        size_bytes=EVENT_BYTES + ITEM_BYTES * len(event.items) + award_bytes,
    )


def find_linked_replay(request: RecordRequest, view: View, codec: EventCodec) -> Decision[RecordResult] | None:
    """Return the decision of an earlier run, or None when the event is new.

    Raises:
        EventReused: the id belongs to another event.
        Retry: the purchase was recorded after the request was made.
    """
    replay = find_replay(request, view, codec.decode)
    if replay is None and request.original is None and (EVENTS, request.event.about) in view.documents:
        raise Retry
    return replay


def award_wallets(awards: Iterable[Award], owner: str, view: View) -> dict[str, AwardWallet]:
    """Return the wallets that the awards were paid into, by their keys in `EvaluationInputs.wallets`."""
    return {award_wallet_name(award): wallet_state(view.accounts.get(wallet_of(award, owner))) for award in awards}


def waiting_changes(outcome: EventOutcome, inputs: EvaluationInputs, state: MemberState) -> list[DocumentChange]:
    """Return the writes of an event whose purchase is not recorded yet.

    The member state is written as it was read. A command that records the purchase meanwhile writes it too, so one of the two has to retry.
    """
    return [*refunded_change(outcome, inputs), member_state_change(state, state)]


def linked_decision(
    recorded: RecordedEvent,
    postings: PostingBuilder,
    changes: Iterable[DocumentChange],
    codec: EventCodec,
    progress: TierProgress | None = None,
) -> Decision[RecordResult]:
    """Return the decision that books the postings and stores the event. It opens no account: the purchase has opened the wallets."""
    history = () if progress is None else history_of(progress)
    return Decision(
        tuple(postings.transactions),
        (),
        ((EVENTS, codec.encode(recorded)), *history),
        tuple(changes),
        value=RecordResult(recorded, replayed=False),
    )
