"""Holding, capturing and voiding, as commands for the ledger. Pure: time is an argument."""

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
    """What a request about a hold asks for, whatever it is."""

    wallet: str
    actor: str
    idempotency: Idempotency
    reason: str | None = None
    metadata: dict[str, str] = {}

    def transaction(self, kind: EntryKind, posting: Posting) -> Transaction:
        return Transaction(kind, (posting,), self.actor, self.idempotency, self.reason, self.metadata)


def hold_command(wish: HoldRequest, amount: int, ttl_ms: int) -> Command:
    """Set `amount` aside for `ttl_ms`."""

    def decide(view: View, account: Account) -> Decision:
        now_ms = max(view.now_ms, account.at)
        posting = Posting(wish.wallet, 0, HOLDS, spends=True, hold=HoldPosting(amount, expires_at=now_ms + ttl_ms))
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
            "created_by": wish.actor,
            "reason": wish.reason,
            "reference": wish.idempotency.reference,
            "metadata": wish.metadata,
        }
        return Decision((wish.transaction("hold", posting),), inserts=((HOLD_DOCUMENTS, document),))

    return _command(wish, decide)


def capture_command(wish: HoldRequest, seq: int, amount: int | None, *, final: bool) -> Command:
    """Take `amount` out of the hold (None: all that is left); with `final` the rest is released."""

    def decide(view: View, account: Account) -> Decision:
        hold = _active(view, account, seq)
        taken = hold.left if amount is None else amount
        ends = final or taken == hold.left
        posting = Posting(wish.wallet, -taken, MERCHANT, hold=HoldPosting(taken, seq, final=final))
        fields: dict[str, Any] = {"captured": hold.captured + taken, "left": 0 if ends else hold.left - taken}
        if ends:
            fields |= {"status": "captured", "ended_at": max(view.now_ms, account.at)}
        return Decision((wish.transaction("capture", posting),), changes=(_change(account, seq, fields),))

    return _command(wish, decide, seq)


def void_command(wish: HoldRequest, seq: int) -> Command:
    """Give the hold up: what is left of it returns to the very lots it came from."""

    def decide(view: View, account: Account) -> Decision:
        hold = _active(view, account, seq)
        posting = Posting(wish.wallet, 0, HOLDS, hold=HoldPosting(hold.left, seq))
        fields = {"left": 0, "status": "voided", "ended_at": max(view.now_ms, account.at)}
        return Decision((wish.transaction("void", posting),), changes=(_change(account, seq, fields),))

    return _command(wish, decide, seq)


def _command(wish: HoldRequest, decide: Callable[[View, Account], Decision], seq: int | None = None) -> Command:
    owner = wish.idempotency.owner

    def recall_or_decide(view: View) -> Decision:
        earlier = find_replay(view, wish.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        account = view.accounts.get(wish.wallet)
        if account is None:
            raise missing_wallet(wish.wallet)
        return decide(view, account)

    return Command(
        owners=(owner,),
        accounts=(wish.wallet,),
        decide=recall_or_decide,
        unique_keys=wish.idempotency.unique_keys,
        documents=() if seq is None else (DocumentRef(HOLD_DOCUMENTS, hold_id(wish.wallet, seq), owner),),
        idempotency=wish.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def _active(view: View, account: Account, seq: int) -> Hold:
    """
    Raises:
        NotFound: there never was such a hold.
        InvalidState: it has ended.
    """
    for hold in account.holds:
        if hold.seq == seq:
            return hold
    document = view.documents.get((HOLD_DOCUMENTS, hold_id(account.id, seq)))
    if document is None:
        raise NotFound("there is no such hold")
    # A hold that its account does not have any more, and whose document does not say so yet, has lapsed and is not booked.
    status = "expired" if document["status"] == "held" else document["status"]
    raise InvalidState(f"the hold is {status}", status_now=status, captured=document["captured"])


def _change(account: Account, seq: int, fields: dict[str, Any]) -> DocumentChange:
    return DocumentChange(HOLD_DOCUMENTS, hold_id(account.id, seq), account.owner, fields)
