"""Holds, captures and voids as ledger commands. Pure: time is an argument."""

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from guerdon.errors import InvalidState, NotFound
from guerdon.ledger.decide import find_replay
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import (
    HOLDS,
    MERCHANT,
    Account,
    Command,
    Decision,
    DocumentChange,
    DocumentRef,
    EntryKind,
    Hold,
    HoldPosting,
    Idempotency,
    Posting,
    Transaction,
    View,
    hold_id,
)
from guerdon.wallets.rules import COMMAND_BYTES, missing_wallet


class HoldRequest(Struct, frozen=True):
    """Common fields of a request about a hold."""

    wallet: str
    actor: str
    idempotency: Idempotency
    reason: str | None = None
    metadata: dict[str, str] = {}

    def transaction(self, kind: EntryKind, posting: Posting) -> Transaction:
        return Transaction(kind, (posting,), self.actor, self.idempotency, self.reason, self.metadata)


def hold_command(request: HoldRequest, amount: int, ttl_ms: int) -> Command:
    """Return the command that sets `amount` minor units aside for `ttl_ms` milliseconds."""

    def decide(view: View, account: Account) -> Decision:
        now_ms = max(view.now_ms, account.at)
        posting = Posting(request.wallet, 0, HOLDS, spends=True, hold=HoldPosting(amount, expires_at=now_ms + ttl_ms))
        document = {
            "_id": hold_id(account.id, account.seq + 1),
            "owner": account.owner,
            "account": account.id,
            "asset": account.asset,
            "amount": amount,
            "captured": 0,
            "left": amount,
            "status": "held",
            "expires_at": now_ms + ttl_ms,
            "created_at": now_ms,
            "created_by": request.actor,
            "reason": request.reason,
            "reference": request.idempotency.reference,
            "metadata": request.metadata,
        }
        return Decision((request.transaction("hold", posting),), inserts=((HOLD_DOCUMENTS, document),))

    return _command(request, decide)


def capture_command(request: HoldRequest, seq: int, amount: int | None, *, final: bool) -> Command:
    """Return the command that captures `amount` of a hold (None: all that is left). `final` releases the rest."""

    def decide(view: View, account: Account) -> Decision:
        hold = _active(view, account, seq)
        taken = hold.left if amount is None else amount
        ends = final or taken == hold.left
        posting = Posting(request.wallet, -taken, MERCHANT, hold=HoldPosting(taken, seq, final=final))
        fields: dict[str, Any] = {"captured": hold.captured + taken, "left": 0 if ends else hold.left - taken}
        if ends:
            fields |= {"status": "captured", "ended_at": max(view.now_ms, account.at)}
        return Decision((request.transaction("capture", posting),), changes=(_document_change(account, seq, fields),))

    return _command(request, decide, seq)


def void_command(request: HoldRequest, seq: int) -> Command:
    """Return the command that voids a hold: the rest of it returns to the lots that it came from."""

    def decide(view: View, account: Account) -> Decision:
        hold = _active(view, account, seq)
        posting = Posting(request.wallet, 0, HOLDS, hold=HoldPosting(hold.left, seq))
        fields = {"left": 0, "status": "voided", "ended_at": max(view.now_ms, account.at)}
        return Decision((request.transaction("void", posting),), changes=(_document_change(account, seq, fields),))

    return _command(request, decide, seq)


def _command(request: HoldRequest, decide: Callable[[View, Account], Decision], seq: int | None = None) -> Command:
    owner = request.idempotency.owner

    def replay_or_decide(view: View) -> Decision:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        account = view.accounts.get(request.wallet)
        if account is None:
            raise missing_wallet(request.wallet)
        return decide(view, account)

    return Command(
        owners=(owner,),
        accounts=(request.wallet,),
        decide=replay_or_decide,
        unique_keys=request.idempotency.unique_keys,
        documents=() if seq is None else (DocumentRef(HOLD_DOCUMENTS, hold_id(request.wallet, seq), owner),),
        idempotency=request.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def _active(view: View, account: Account, seq: int) -> Hold:
    """Return an active hold.

    Raises:
        NotFound: The hold does not exist.
        InvalidState: The hold has ended.
    """
    for hold in account.holds:
        if hold.seq == seq:
            return hold
    document = view.documents.get((HOLD_DOCUMENTS, hold_id(account.id, seq)))
    if document is None:
        raise NotFound("the hold does not exist")
    # The account no longer has the hold, and its document still has the status `held`: it expired and is not booked yet.
    status = "expired" if document["status"] == "held" else document["status"]
    raise InvalidState(f"the hold is {status}", status_now=status, captured=document["captured"])


def _document_change(account: Account, seq: int, fields: dict[str, Any]) -> DocumentChange:
    return DocumentChange(HOLD_DOCUMENTS, hold_id(account.id, seq), account.owner, fields)
