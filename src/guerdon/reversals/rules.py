"""Reversing a transaction, as a command for the ledger. Pure: time and the original are arguments.

What has left a wallet returns to the very lots it came from, what was taken last first. What has come into a wallet is taken out of the
lots that it made, then out of whatever may be spent; when that is not enough the reversal is refused, never an overdraft.
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
from guerdon.wallets.rules import COMMAND_BYTES

VOUCHER_KINDS = frozenset({"redeem", "issue", "reserve", "release", "use", "unuse", "load", "cancel"})
"""What vouchers make of wallets: taken back alone, there would be a voucher that nobody has paid for."""


class Reversal(Struct, frozen=True):
    """What is asked for. `sides` are the original's entries, the one that names it first; they never change."""

    sides: Sequence[Entry]
    amount: int | None
    idempotency: Idempotency
    reason: str | None = None
    metadata: dict[str, str] = {}


def require_reversible(original: Entry) -> None:
    """
    Raises:
        NotReversible: it has moved no value, or something was got for it that only another room takes back.
    """
    if original.kind in VOUCHER_KINDS:
        raise NotReversible("this belongs to a voucher: cancel the voucher, or undo its use")
    if original.amount == 0:
        raise NotReversible(f"a {original.kind} has moved no value")


def reversal_command(wanted: Reversal, calendar: Calendar) -> Command:
    """Move `wanted.amount` back (None: all that is left), together at most the original's amount."""
    original = wanted.sides[0]
    name, whole = original.transaction_id, abs(original.amount)
    reference = DocumentRef(REVERSALS, name, original.owner)

    def decide(view: View) -> Decision:
        earlier = find_replay(view, wanted.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        document = view.documents.get((REVERSALS, name))
        done: int = document["reversed"] if document else 0
        amount = whole - done if wanted.amount is None else wanted.amount
        if amount == 0 or amount > whole - done:
            raise ReversalLimit(f"{wanted.amount or whole} to reverse, {whole - done} are left", left=whole - done, amount=whole)
        transaction = Transaction(
            kind="reversal",
            postings=tuple(back(side, done, amount, calendar, view.now_ms) for side in wanted.sides),
            actor=wanted.idempotency.actor,
            idempotency=wanted.idempotency,
            reason=wanted.reason,
            metadata=wanted.metadata,
            reverses=name,
        )
        counted = DocumentChange(REVERSALS, name, original.owner, {"reversed": done + amount, "at": view.now_ms})
        return Decision((transaction,), changes=(counted,))

    return Command(
        owners=tuple({side.owner for side in wanted.sides}),
        accounts=tuple(side.account for side in wanted.sides),
        decide=decide,
        unique_keys=wanted.idempotency.unique_keys,
        documents=(reference,),
        idempotency=wanted.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def back(side: Entry, done: int, amount: int, calendar: Calendar, now_ms: int) -> Posting:
    """The posting that undoes `amount` of one entry, of which `done` is undone already."""
    whole = abs(side.amount)
    moved = side.lots or ()
    if side.amount < 0:
        parts = lots.last_of(lots.negated(moved), whole, done, amount)
        counted_at = side.hold.counted_at if side.hold is not None else side.at if side.spent is not None else None
        unspends = (0, 0) if counted_at is None else limits.restored_by(amount, counted_at, calendar, now_ms)
        return Posting(side.account, amount, side.counterparty, lots=parts, restores_spending=unspends)
    # A part of what arrived may have paid a debt at once: it is in no lot, and neither is what was undated.
    return Posting(side.account, -amount, side.counterparty, lots=lots.last_of(moved, whole, done, whole - done))
