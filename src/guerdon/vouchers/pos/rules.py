"""Steps of a voucher at the point of sale: which step each status allows, and the postings of each step. Pure.

The balance of a voucher's account is what is left on the voucher, and a reservation is a hold on it. A step is therefore a posting like any
other: it is decided on the state that is committed, the history is hash-chained, and expiry is exact to the millisecond.
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
from guerdon.money import AmountText
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
"""Steps that each status of a voucher with one use allows. A reserved one needs its reservation; `unuse` needs the offer's permission too."""
IN_PARTS: Mapping[VoucherStatus, frozenset[Step]] = {
    "issued": frozenset({"reserve", "use", "release", "load", "cancel"}),
    "partly_used": frozenset({"reserve", "use", "release", "load", "unuse", "cancel"}),
    "reserved": frozenset({"use", "release", "unuse"}),
    "used": frozenset({"unuse"}),
    "cancelled": frozenset(),
    "expired": frozenset({"unuse"}),
}
"""The same for gift cards and shared codes, which are used and reserved in parts."""


def steps_of(voucher: Voucher) -> Mapping[VoucherStatus, frozenset[Step]]:
    """Return the steps that each status of the voucher allows."""
    return IN_PARTS if voucher.kind == GIFT_CARD or voucher.uses > 1 else ONE_USE


def status_now(voucher: Voucher, account: Account, now_ms: int) -> VoucherStatus:
    """Return the status at a time. The account includes every expiry up to that time."""
    if voucher.state in {"used", "cancelled"}:
        return voucher.state
    if account.balance == 0 or (voucher.expires_at is not None and voucher.expires_at <= now_ms):
        return "expired"
    return "reserved" if account.balance == account.held else voucher.state


def require_step(voucher: Voucher, status: VoucherStatus, step: Step) -> None:
    """
    Raises:
        InvalidState: the status does not allow the step.
    """
    if step not in steps_of(voucher).get(status, frozenset()):
        raise invalid_state(status, f"the voucher is {status.replace('_', ' ')}; it cannot be {_PARTICIPLES[step]}")


def invalid_state(status: VoucherStatus, detail: str) -> InvalidState:
    return InvalidState(detail, status_now=status)


_PARTICIPLES: dict[Step, str] = {
    "reserve": "reserved",
    "use": "used",
    "release": "released",
    "cancel": "cancelled",
    "unuse": "restored",
    "load": "loaded into a wallet",
}


class VoucherBefore(Struct, frozen=True):
    """A voucher right before a step, from one snapshot."""

    voucher: Voucher
    account: Account
    """Account with every expiry up to `now_ms`."""
    now_ms: int
    status: VoucherStatus

    @property
    def reserved(self) -> list[Reserved]:
        """Members of the active reservations."""
        return [each for each in self.voucher.reserved if any(hold.seq == each.seq for hold in self.account.holds)]

    @property
    def next_transaction(self) -> str:
        return transaction_id(self.account.id, self.account.seq + 1)


class VoucherStep(Struct, frozen=True):
    """Effect of a step: the posting on the voucher's account, further postings, and the documents after it."""

    posting: Posting
    state: VoucherState
    left: int
    """Balance after the step."""
    holds: tuple[Hold, ...]
    """Active holds after the step."""
    extra_postings: tuple[Posting, ...] = ()
    """Further postings of the same transaction."""
    reverses: str | None = None
    fields: dict[str, Any] = {}
    changes: tuple[DocumentChange, ...] = ()
    inserts: tuple[tuple[str, dict[str, Any]], ...] = ()
    metadata: dict[str, str] = {}
    """Metadata of the entry, from which the result is made."""
    ends_at: int | None = None
    """Expiry of the voucher after the step."""

    @property
    def status(self) -> VoucherStatus:
        held = sum(hold.left for hold in self.holds)
        return self.state if self.state in {"used", "cancelled"} or held < self.left else "reserved"

    @property
    def reserved_until(self) -> int | None:
        return min(hold.expires_at for hold in self.holds) if self.status == "reserved" else None


def state_of(voucher: Voucher, left: int) -> VoucherState:
    """Return the state of a voucher that is not cancelled, from what is left on it."""
    return "used" if left == 0 else "issued" if left == voucher.uses else "partly_used"


def counterparty_of(voucher: Voucher) -> str:
    """Return the counterparty of a use: the merchant for money of a gift card, or the system account that counts uses."""
    return MERCHANT if voucher.kind == GIFT_CARD else COUNTED


# --- reserve, release -----------------------------------------------------------------------------------------------


def reserve(before: VoucherBefore, discount: Discount, ttl_ms: int, metadata: dict[str, str], member: str | None) -> VoucherStep:
    """Reserve a part of a voucher. The reservation ends 1 ms before the voucher expires, or earlier.

    Raises:
        InvalidState: the voucher expires now.
    """
    voucher, account, now_ms = before.voucher, before.account, before.now_ms
    expiries = [lot.expires_at - 1 for lot in account.lots or () if lot.expires_at is not None]
    ends_at = min([now_ms + ttl_ms, *expiries])
    if ends_at <= now_ms:
        raise invalid_state("expired", "the voucher expires before a reservation can begin")
    seq = account.seq + 1
    document: dict[str, Any] = {
        "_id": hold_id(account.id, seq),
        "owner": account.owner,
        "account": account.id,
        "asset": account.asset,
        "amount": discount.takes,
        "captured": 0,
        "left": discount.takes,
        "status": "held",
        "expires_at": ends_at,
        "created_at": now_ms,
        "created_by": "",
        "metadata": {},
        "voucher": voucher.id,
    }
    return VoucherStep(
        Posting(account.id, 0, HOLDS, hold=HoldPosting(discount.takes, expires_at=ends_at)),
        state_of(voucher, account.balance),
        account.balance,
        (*account.holds, Hold(seq, discount.takes, discount.takes, ends_at)),
        fields={"reserved": [*before.reserved, Reserved(seq, member)]},
        inserts=((HOLD_DOCUMENTS, document),),
        metadata=metadata,
        ends_at=voucher.expires_at,
    )


def release(before: VoucherBefore, reservation: str | None, metadata: dict[str, str]) -> VoucherStep:
    """Release a reservation.

    Raises:
        InvalidState: the reservation does not exist or has ended, or there are several and none was named.
    """
    voucher, account = before.voucher, before.account
    hold = reservation_of(before, reservation)
    hold_end = DocumentChange(
        HOLD_DOCUMENTS, hold_id(account.id, hold.seq), account.owner, {"left": 0, "status": "voided", "ended_at": before.now_ms}
    )
    return VoucherStep(
        Posting(account.id, 0, HOLDS, hold=HoldPosting(hold.left, hold.seq)),
        state_of(voucher, account.balance),
        account.balance,
        other_holds(account, hold),
        changes=(hold_end,),
        metadata=metadata,
        ends_at=voucher.expires_at,
    )


def reservation_of(before: VoucherBefore, reservation: str | None) -> Hold:
    """Return the active hold of this id, or the only one.

    Raises:
        InvalidState: the reservation does not exist or has ended, or there are several and none was named.
    """
    account = before.account
    if reservation is None and len(account.holds) == 1:
        return account.holds[0]
    for hold in account.holds:
        if reservation == hold_id(account.id, hold.seq):
            return hold
    if reservation is None and account.holds:
        raise invalid_state(before.status, f"the voucher has {len(account.holds)} reservations; name one")
    raise invalid_state(before.status, "the reservation does not exist or has ended")


def other_holds(account: Account, hold: Hold | None) -> tuple[Hold, ...]:
    return tuple(each for each in account.holds if each is not hold)


# --- use, unuse -----------------------------------------------------------------------------------------------------


def use(
    before: VoucherBefore, hold: Hold | None, discount: Discount, postings: tuple[Posting, ...], metadata: dict[str, str]
) -> VoucherStep:
    """Use a voucher or money of a gift card, from a reservation, of which the rest is released, or from what is not reserved."""
    voucher, account = before.voucher, before.account
    left = account.balance - discount.takes
    holding, changes = None, ()
    if hold is not None:
        holding = HoldPosting(discount.takes, hold.seq, final=True)
        hold_end = {"captured": discount.takes, "left": 0, "status": "captured", "ended_at": before.now_ms}
        changes = (DocumentChange(HOLD_DOCUMENTS, hold_id(account.id, hold.seq), account.owner, hold_end),)
    return VoucherStep(
        Posting(account.id, -discount.takes, counterparty_of(voucher), hold=holding),
        state_of(voucher, left),
        left,
        other_holds(account, hold),
        extra_postings=postings,
        fields={"last_use": before.next_transaction},
        changes=changes,
        metadata=metadata,
        ends_at=voucher.expires_at,
    )


def unuse(before: VoucherBefore, entry: Entry, postings: tuple[Posting, ...], metadata: dict[str, str]) -> VoucherStep:
    """Restore what a use has taken, with its expiry. What has expired since stays valid for the grace period."""
    voucher, account, amount = before.voucher, before.account, -entry.amount
    parts = last_of(negated(entry.lots or ()), amount, 0, amount)
    remaining = (*(account.lots or ()), *(lot for hold in account.holds for lot in hold.lots))
    ends = [lot.expires_at for lot in remaining if lot.expires_at is not None]
    ends += [_extended(lot.expires_at, before.now_ms) for lot in parts if lot.expires_at is not None]
    ends_at = max(ends, default=None)
    use_id = entry.transaction_id
    return VoucherStep(
        Posting(account.id, amount, entry.counterparty, lots=parts),
        state_of(voucher, account.balance + amount),
        account.balance + amount,
        account.holds,
        extra_postings=postings,
        reverses=use_id,
        fields={"expires_at": ends_at, "last_use": None if voucher.last_use == use_id else voucher.last_use},
        changes=(DocumentChange(REVERSALS, use_id, account.owner, {"reversed": amount, "at": before.now_ms}),),
        metadata=metadata,
        ends_at=ends_at,
    )


def _extended(expires_at: int, now_ms: int) -> int:
    """Return the expiry of value that is restored now."""
    return expires_at if expires_at > now_ms else now_ms + GRACE_MS


# --- cancel, load ---------------------------------------------------------------------------------------------------


def cancel(before: VoucherBefore, postings: tuple[Posting, ...], metadata: dict[str, str]) -> VoucherStep:
    """Cancel a voucher: take what is left off it.

    Raises:
        InvalidState: a part is reserved, or a part of a paid voucher has been used.
    """
    voucher, account = before.voucher, before.account
    if account.held:
        raise invalid_state(before.status, "a part of the voucher is reserved; release it first")
    if before.status == "partly_used" and voucher.price is not None:
        raise invalid_state(before.status, "a part of the paid voucher has been used; undo that use first")
    counterparty = ISSUER if voucher.kind == GIFT_CARD else COUNTED
    return VoucherStep(
        Posting(account.id, -account.balance, counterparty),
        "cancelled",
        0,
        (),
        extra_postings=postings,
        metadata=metadata,
        ends_at=voucher.expires_at,
    )


def load(before: VoucherBefore, wallet: str, amount: int | None, metadata: dict[str, str]) -> VoucherStep:
    """Move money from a gift card to a wallet. It keeps its expiry, so that a transfer cannot extend it.

    Raises:
        NotApplicable: the voucher is not a gift card. InsufficientFunds: the card has less.
    """
    voucher, account = before.voucher, before.account
    if voucher.kind != GIFT_CARD:
        raise NotApplicable("only a gift card can be loaded into a wallet", reason="kind", kind=voucher.kind)
    moved = account.spendable if amount is None else amount
    if moved > account.spendable:
        raise InsufficientFunds(
            AmountText("the card has {available} left, {needed} needed", account.asset, available=account.spendable, needed=moved),
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
        extra_postings=(Posting(wallet, moved, account.id, keeps_dates=True),),
        metadata=metadata,
        ends_at=voucher.expires_at,
    )
