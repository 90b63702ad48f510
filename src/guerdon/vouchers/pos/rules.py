"""A voucher's life at the till: which step is possible when, and what each of them does, as commands for the ledger. Pure.

What is left on a voucher is the balance of its account, and what a reservation sets aside is a hold on it. So a step is a posting like any
other: it is judged on the very state that is committed, its history is chained, and what lapses does so at its millisecond.
"""

from collections.abc import Mapping
from typing import Any, Literal

from msgspec import Struct

from guerdon.errors import InsufficientFunds, InvalidState, NotApplicable
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.lots import GRACE_MS, last_of, negated
from guerdon.ledger.models import (
    COUNTED,
    HOLDS,
    ISSUER,
    MERCHANT,
    Account,
    DocumentChange,
    Entry,
    Hold,
    HoldPosting,
    Posting,
    hold_id,
    transaction_id,
)
from guerdon.ledger.store import REVERSALS
from guerdon.vouchers.models import GIFT_CARD, Reserved, Voucher, VoucherState, VoucherStatus
from guerdon.vouchers.pos.discount import Discount

Step = Literal["reserve", "use", "release", "cancel", "unuse", "load"]
ONE_USE: Mapping[VoucherStatus, frozenset[Step]] = {
    "issued": frozenset({"reserve", "use", "cancel"}),
    "reserved": frozenset({"use", "release"}),
    "used": frozenset({"unuse"}),
    "cancelled": frozenset(),
    "expired": frozenset(),
}
"""What may happen to a voucher that is used once. A reserved one is used with its reservation, and a use is taken back by the offer's rule."""
IN_PARTS: Mapping[VoucherStatus, frozenset[Step]] = {
    "issued": frozenset({"reserve", "use", "release", "load", "cancel"}),
    "partly_used": frozenset({"reserve", "use", "release", "load", "unuse", "cancel"}),
    "reserved": frozenset({"use", "release", "unuse"}),
    "used": frozenset({"unuse"}),
    "cancelled": frozenset(),
    "expired": frozenset({"unuse"}),
}
"""The same for gift cards and shared codes, which are used, and set aside, in parts."""


def steps_of(voucher: Voucher) -> Mapping[VoucherStatus, frozenset[Step]]:
    return IN_PARTS if voucher.kind == GIFT_CARD or voucher.uses > 1 else ONE_USE


def status_now(voucher: Voucher, account: Account, now_ms: int) -> VoucherStatus:
    """What a voucher is at a moment, by an account that has been brought up to it."""
    if voucher.state in {"used", "cancelled"}:
        return voucher.state
    if account.balance == 0 or (voucher.expires_at is not None and voucher.expires_at <= now_ms):
        return "expired"
    return "reserved" if account.balance == account.held else voucher.state


def require_step(voucher: Voucher, status: VoucherStatus, step: Step) -> None:
    """
    Raises:
        InvalidState: a voucher of this status does not take the step.
    """
    if step not in steps_of(voucher).get(status, frozenset()):
        raise refused(status, f"a voucher that is {status.replace('_', ' ')} cannot be {_DONE[step]}")


def refused(status: VoucherStatus, detail: str) -> InvalidState:
    return InvalidState(detail, status_now=status)


_DONE: dict[Step, str] = {
    "reserve": "reserved",
    "use": "used",
    "release": "released",
    "cancel": "cancelled",
    "unuse": "taken back into use",
    "load": "loaded into a wallet",
}


class VoucherBefore(Struct, frozen=True):
    """A voucher right before a step, in one snapshot."""

    voucher: Voucher
    account: Account
    """Brought up to `now_ms`."""
    now_ms: int
    status: VoucherStatus

    @property
    def reserved(self) -> list[Reserved]:
        """Who the active reservations are for."""
        return [each for each in self.voucher.reserved if any(hold.seq == each.seq for hold in self.account.holds)]

    @property
    def next_transaction(self) -> str:
        return transaction_id(self.account.id, self.account.seq + 1)


class VoucherStep(Struct, frozen=True):
    """What a step does: the posting on the voucher's account, what else it moves, and what the documents say afterwards."""

    posting: Posting
    state: VoucherState
    left: int
    """The balance afterwards."""
    holds: tuple[Hold, ...]
    """The active holds afterwards."""
    more: tuple[Posting, ...] = ()
    """In the same transaction."""
    reverses: str | None = None
    fields: dict[str, Any] = {}
    changes: tuple[DocumentChange, ...] = ()
    inserts: tuple[tuple[str, dict[str, Any]], ...] = ()
    told: dict[str, str] = {}
    """What the entry says, so that the answer can be made of it."""
    ends_at: int | None = None

    @property
    def status(self) -> VoucherStatus:
        held = sum(hold.left for hold in self.holds)
        return self.state if self.state in {"used", "cancelled"} or held < self.left else "reserved"

    @property
    def reserved_until(self) -> int | None:
        return min(hold.expires_at for hold in self.holds) if self.status == "reserved" else None


def state_of(voucher: Voucher, left: int) -> VoucherState:
    """What a voucher that lives is, by what is left of it."""
    return "used" if left == 0 else "issued" if left == voucher.uses else "partly_used"


def counter_of(voucher: Voucher) -> str:
    """The other side of what is used: money of a gift card goes to the merchant, uses are only counted."""
    return MERCHANT if voucher.kind == GIFT_CARD else COUNTED


# --- reserve, release -----------------------------------------------------------------------------------------------


def reserve(before: VoucherBefore, worth: Discount, ttl_ms: int, told: dict[str, str], member: str | None) -> VoucherStep:
    """Set a part of a voucher aside, at the longest until right before its end, so that it never outlives it.

    Raises:
        InvalidState: the voucher is in no state for it.
    """
    voucher, account, now_ms = before.voucher, before.account, before.now_ms
    lapses = [lot.expires_at - 1 for lot in account.lots or () if lot.expires_at is not None]
    ends_at = min([now_ms + ttl_ms, *lapses])
    if ends_at <= now_ms:
        raise refused("expired", "the voucher ends before a reservation could begin")
    seq = account.seq + 1
    document: dict[str, Any] = {
        "_id": hold_id(account.id, seq),
        "owner": account.owner,
        "account": account.id,
        "asset": account.asset,
        "amount": worth.takes,
        "captured": 0,
        "left": worth.takes,
        "status": "held",
        "expires_at": ends_at,
        "created_at": now_ms,
        "created_by": "",
        "metadata": {},
        "voucher": voucher.id,
    }
    return VoucherStep(
        Posting(account.id, 0, HOLDS, hold=HoldPosting(worth.takes, expires_at=ends_at)),
        state_of(voucher, account.balance),
        account.balance,
        (*account.holds, Hold(seq, worth.takes, worth.takes, ends_at)),
        fields={"reserved": [*before.reserved, Reserved(seq, member)]},
        inserts=((HOLD_DOCUMENTS, document),),
        told=told,
        ends_at=voucher.expires_at,
    )


def release(before: VoucherBefore, wanted: str | None, told: dict[str, str]) -> VoucherStep:
    """Give a reservation up.

    Raises:
        InvalidState: there is none, or another one, or it has ended.
    """
    voucher, account = before.voucher, before.account
    hold = reservation_of(before, wanted)
    ended = DocumentChange(
        HOLD_DOCUMENTS, hold_id(account.id, hold.seq), account.owner, {"left": 0, "status": "voided", "ended_at": before.now_ms}
    )
    return VoucherStep(
        Posting(account.id, 0, HOLDS, hold=HoldPosting(hold.left, hold.seq)),
        state_of(voucher, account.balance),
        account.balance,
        others(account, hold),
        changes=(ended,),
        told=told,
        ends_at=voucher.expires_at,
    )


def reservation_of(before: VoucherBefore, wanted: str | None) -> Hold:
    """The active hold of this name, or the only one.

    Raises:
        InvalidState: there is none, it has ended, or there are several.
    """
    account = before.account
    if wanted is None and len(account.holds) == 1:
        return account.holds[0]
    for hold in account.holds:
        if wanted == hold_id(account.id, hold.seq):
            return hold
    if wanted is None and account.holds:
        raise refused(before.status, f"there are {len(account.holds)} reservations: say which")
    raise refused(before.status, "there is no such reservation, or it has ended")


def others(account: Account, hold: Hold | None) -> tuple[Hold, ...]:
    return tuple(each for each in account.holds if each is not hold)


# --- use, unuse -----------------------------------------------------------------------------------------------------


def use(before: VoucherBefore, hold: Hold | None, worth: Discount, more: tuple[Posting, ...], told: dict[str, str]) -> VoucherStep:
    """Take a use, or money of a gift card: out of a reservation, of which the rest is released, or out of what is free."""
    voucher, account = before.voucher, before.account
    left = account.balance - worth.takes
    holding, changes = None, ()
    if hold is not None:
        holding = HoldPosting(worth.takes, hold.seq, final=True)
        ended = {"captured": worth.takes, "left": 0, "status": "captured", "ended_at": before.now_ms}
        changes = (DocumentChange(HOLD_DOCUMENTS, hold_id(account.id, hold.seq), account.owner, ended),)
    return VoucherStep(
        Posting(account.id, -worth.takes, counter_of(voucher), hold=holding),
        state_of(voucher, left),
        left,
        others(account, hold),
        more=more,
        fields={"last_use": before.next_transaction},
        changes=changes,
        told=told,
        ends_at=voucher.expires_at,
    )


def unuse(before: VoucherBefore, entry: Entry, more: tuple[Posting, ...], told: dict[str, str]) -> VoucherStep:
    """Put back what a use has taken, with the very dates; what comes back after the voucher's end lives a little longer."""
    voucher, account, amount = before.voucher, before.account, -entry.amount
    parts = last_of(negated(entry.lots or ()), amount, 0, amount)
    there = (*(account.lots or ()), *(lot for hold in account.holds for lot in hold.lots))
    ends = [lot.expires_at for lot in there if lot.expires_at is not None]
    ends += [_revived(lot.expires_at, before.now_ms) for lot in parts if lot.expires_at is not None]
    ends_at = max(ends, default=None)
    name = entry.transaction_id
    return VoucherStep(
        Posting(account.id, amount, entry.counterparty, lots=parts),
        state_of(voucher, account.balance + amount),
        account.balance + amount,
        account.holds,
        more=more,
        reverses=name,
        fields={"expires_at": ends_at, "last_use": None if voucher.last_use == name else voucher.last_use},
        changes=(DocumentChange(REVERSALS, name, account.owner, {"reversed": amount, "at": before.now_ms}),),
        told=told,
        ends_at=ends_at,
    )


def _revived(expires_at: int, now_ms: int) -> int:
    """Until when something lives that comes back now."""
    return expires_at if expires_at > now_ms else now_ms + GRACE_MS


# --- cancel, load ---------------------------------------------------------------------------------------------------


def cancel(before: VoucherBefore, more: tuple[Posting, ...], told: dict[str, str]) -> VoucherStep:
    """Take what is left off the voucher.

    Raises:
        InvalidState: a part is reserved, or has been used and was paid for.
    """
    voucher, account = before.voucher, before.account
    if account.held:
        raise refused(before.status, "a part of the voucher is reserved: release it first")
    if before.status == "partly_used" and voucher.price is not None:
        raise refused(before.status, "a part of what was paid for has been used: take that use back first")
    counter = ISSUER if voucher.kind == GIFT_CARD else COUNTED
    return VoucherStep(
        Posting(account.id, -account.balance, counter), "cancelled", 0, (), more=more, told=told, ends_at=voucher.expires_at
    )


def load(before: VoucherBefore, wallet: str, amount: int | None, told: dict[str, str]) -> VoucherStep:
    """Move money of a gift card into a wallet, with its dates: otherwise it would be a way around them.

    Raises:
        NotApplicable: it is no gift card. InsufficientFunds: less is on it.
    """
    voucher, account = before.voucher, before.account
    if voucher.kind != GIFT_CARD:
        raise NotApplicable("only a gift card can be loaded into a wallet", reason="kind", kind=voucher.kind)
    moved = account.spendable if amount is None else amount
    if moved > account.spendable:
        raise InsufficientFunds(
            f"{moved} {account.asset} are needed, {account.spendable} are on the card",
            asset=account.asset,
            available=account.spendable,
            needed=moved,
        )
    left = account.balance - moved
    return VoucherStep(
        Posting(account.id, -moved, wallet),
        state_of(voucher, left),
        left,
        account.holds,
        more=(Posting(wallet, moved, account.id, keeps_dates=True),),
        told=told,
        ends_at=voucher.expires_at,
    )
