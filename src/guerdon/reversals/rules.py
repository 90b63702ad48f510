"""Reversals as ledger commands. Pure: time and the original transaction are arguments.

Value that left a wallet returns to the lots that it came from, in reverse order. Value that came into a wallet is taken from the lots that
it created, then from other available value; if that is not enough, the reversal is refused.
"""

from collections.abc import Sequence

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.errors import NotReversible, ReversalLimit
from guerdon.ledger import lots
from guerdon.ledger import spending_limits as limits
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import Command, Decision, DocumentChange, DocumentRef, Entry, Idempotency, Posting, Transaction, View
from guerdon.ledger.store import REVERSALS
from guerdon.money import AmountText
from guerdon.wallets.rules import COMMAND_BYTES

VOUCHER_KINDS = frozenset({"redeem", "issue", "reserve", "release", "use", "unuse", "load", "cancel"})
"""Kinds of transactions of vouchers. A reversal of one of them alone would leave an unpaid voucher."""
AWARD = "award"


class Reversal(Struct, frozen=True):
    """A requested reversal. `sides` are the entries of the original transaction, its first entry first."""

    sides: Sequence[Entry]
    amount: int | None
    idempotency: Idempotency
    reason: str | None = None
    metadata: dict[str, str] = {}


def require_reversible(original: Entry) -> None:
    """Check that a transaction can be reversed.

    Raises:
        NotReversible: The transaction moved no value, is an award, or belongs to a voucher.
    """
    if original.kind in VOUCHER_KINDS:
        raise NotReversible("the transaction belongs to a voucher; cancel the voucher or undo its use")
    if original.kind == AWARD:
        # A refund of the purchase would take the same value again, and caps, budgets and qualifying points would stay counted.
        raise NotReversible("the transaction is an award of an event; void the event or refund its purchase, or debit the wallet")
    if original.amount == 0:
        raise NotReversible(f"the transaction ({original.kind}) moved no value")


def require_whole(original: Entry, amount: int | None) -> None:
    """Check that a transaction of several postings is reversed whole.

    Raises:
        NotReversible: An amount is given.
    """
    if original.sides is not None and amount is not None:
        raise NotReversible("a transaction of several postings is reversed whole; send the request without an amount")


def reversal_command(request: Reversal, calendar: Calendar) -> Command:
    """Return the command that reverses `request.amount` (None: all that is left). All reversals together never exceed the original."""
    original = request.sides[0]
    name, whole, lists_sides = original.transaction_id, abs(original.amount), original.sides is not None
    reference = DocumentRef(REVERSALS, name, original.owner)

    def decide(view: View) -> Decision:
        earlier = find_replay(view, request.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document = view.documents.get((REVERSALS, name))
        done: int = document["reversed"] if document else 0
        amount = whole - done if request.amount is None else request.amount
        if amount == 0 or amount > whole - done:
            left, requested = whole - done, request.amount or whole
            wording = AmountText("{left} left to reverse, {requested} requested", original.asset, left=left, requested=requested)
            raise ReversalLimit(wording, left=left, amount=whole)
        transaction = Transaction(
            kind="reversal",
            postings=tuple(
                reversal_posting(side, done, abs(side.amount) if lists_sides else amount, calendar, view.now_ms)
                for side in request.sides
            ),
            actor=request.idempotency.actor,
            idempotency=request.idempotency,
            reason=request.reason,
            metadata=request.metadata,
            reverses=name,
            lists_sides=lists_sides,
        )
        document_change = DocumentChange(REVERSALS, name, original.owner, {"reversed": done + amount, "at": view.now_ms})
        return Decision((transaction,), changes=(document_change,))

    return Command(
        owners=tuple({side.owner for side in request.sides}),
        accounts=tuple({side.account for side in request.sides}),
        decide=decide,
        unique_keys=request.idempotency.unique_keys,
        documents=(reference,),
        idempotency=request.idempotency,
        size_bytes=COMMAND_BYTES * (len(request.sides) + 1) // 2,
    )


def reversal_posting(side: Entry, done: int, amount: int, calendar: Calendar, now_ms: int) -> Posting:
    """Return the posting that reverses `amount` of one entry, of which `done` is already reversed."""
    whole = abs(side.amount)
    moved = side.lots or ()
    if side.amount < 0:
        parts = lots.last_of(lots.negated(moved), whole, done, amount)
        counted_at = side.hold.counted_at if side.hold is not None else side.at if side.spent is not None else None
        restored = (0, 0) if counted_at is None else limits.restored_by(amount, counted_at, calendar, now_ms)
        return Posting(side.account, amount, side.counterparty, lots=parts, restores_spending=restored)
    # Value that repaid a debt on arrival, and undated value, is in no lot.
    return Posting(side.account, -amount, side.counterparty, lots=lots.last_of(moved, whole, done, whole - done))
