"""Arithmetic of lots: the order in which value is spent, the lots it is taken from, and the lots it returns to. Pure.

The spend order is total: earliest expiry first, then promotional before paid, then earliest availability, then earliest first expiry. Undated
paid value is the rest of the balance and comes last. Lots with the same source and dates are one lot, and an availability date that has passed is removed, so that the
number of lots is the number of different dates. An expiry date never changes.
"""

from collections.abc import Iterable, Sequence

import msgspec

from guerdon.ledger.models import LOTS_MAX, Account, Lot

NEVER = 1 << 62
UNDATED = ("paid", None, None, None)
"""`Lot.dates` of undated paid value."""
GRACE_MS = 7 * 86_400_000
"""Grace for value that returns (by a refund or a released hold) after its expiry date."""


def spend_order(lot: Lot) -> tuple[int, bool, int, int]:
    return (
        NEVER if lot.expires_at is None else lot.expires_at,
        lot.source == "paid",
        lot.available_at or 0,
        lot.first_expires_at or 0,
    )


def mature(lots: Sequence[Lot], now_ms: int) -> tuple[Lot, ...]:
    """Return the lots without availability dates that have passed, merged."""
    for lot in lots:
        if lot.available_at is not None and lot.available_at <= now_ms:
            return merge(as_of(lots, now_ms))
    return tuple(lots)


def as_of(lots: Iterable[Lot], now_ms: int) -> tuple[Lot, ...]:
    """Return the lots in the same order, without availability dates that have passed; a result may be undated paid value."""
    return tuple(
        msgspec.structs.replace(lot, available_at=None) if lot.available_at is not None and lot.available_at <= now_ms else lot
        for lot in lots
    )


def merge(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    """Add up lots with the same source and dates, drop empty and undated ones, and sort the rest in spend order."""
    sums: dict[tuple[object, ...], Lot] = {}
    for lot in lots:
        dates = lot.dates
        same = sums.get(dates)
        sums[dates] = lot if same is None else msgspec.structs.replace(lot, amount=lot.amount + same.amount)
    sums.pop(UNDATED, None)
    merged = [lot for lot in sums.values() if lot.amount]
    if len(merged) > 1:
        merged.sort(key=spend_order)
    return tuple(merged)


def is_undated(lot: Lot) -> bool:
    return lot.dates == UNDATED


def fits(account: Account, lot: Lot) -> bool:
    """Return True if the account can take this lot: it has one with the same dates, or room for another."""
    account_lots = account.lots or ()
    return len(account_lots) < LOTS_MAX or is_undated(lot) or any(lot.dates == other.dates for other in account_lots)


def total(lots: Iterable[Lot]) -> int:
    return sum(lot.amount for lot in lots)


def negated(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    return tuple(msgspec.structs.replace(lot, amount=-lot.amount) for lot in lots)


def take(lots: Sequence[Lot], undated_balance: int, amount: int, first: Sequence[Lot] = ()) -> tuple[Lot, ...]:
    """Return the parts of lots that make up `amount`; the rest of it is undated paid value, which may fall below zero.

    `first` lists lots to take from before all others, each with its maximum; they may be pending. Undated paid value in `first` is
    taken down to zero only.
    """
    left = {lot.dates: lot.amount for lot in lots}
    taken: list[Lot] = []
    for preferred in first:
        available = max(undated_balance, 0) if is_undated(preferred) else left.get(preferred.dates, 0)
        part = min(available, preferred.amount, amount)
        if part <= 0:
            continue
        amount -= part
        if is_undated(preferred):
            undated_balance -= part
        else:
            left[preferred.dates] -= part
            taken.append(msgspec.structs.replace(preferred, amount=part))
    for lot in lots:
        part = min(left[lot.dates], amount)
        if part > 0 and lot.available_at is None:
            amount -= part
            taken.append(msgspec.structs.replace(lot, amount=part))
    return merge(taken)


def give(parts: Iterable[Lot], undated_balance: int, amount: int, now_ms: int, *, back_at_ms: int | None = None) -> tuple[Lot, ...]:
    """Return the lots that are added when `amount` arrives, of which `parts` are dated; a debt is repaid from it first.

    A part that has expired at the time of its return expires `GRACE_MS` after that time, and keeps its first expiry. The return is now, or at `back_at_ms` if a hold
    ended then and is booked now: the result must not depend on the time of booking.
    """
    back_at_ms = now_ms if back_at_ms is None else back_at_ms
    arriving: list[Lot] = []
    for part in parts:
        if is_undated(part):
            continue
        expired = part.expires_at is not None and part.expires_at <= back_at_ms
        arrived = part.available_at is not None and part.available_at <= now_ms
        arriving.append(
            msgspec.structs.replace(
                part,
                expires_at=back_at_ms + GRACE_MS if expired else part.expires_at,
                first_expires_at=part.granted_until if expired else part.first_expires_at,
                available_at=None if arrived else part.available_at,
            )
        )
    debt = max(0, -undated_balance - (amount - total(arriving)))
    repayment = take(merge(arriving), 0, min(debt, total(lot for lot in arriving if lot.available_at is None))) if debt else ()
    return merge([*arriving, *negated(repayment)])


def last_of(lots: Sequence[Lot], whole: int, skip: int, amount: int) -> tuple[Lot, ...]:
    """Return the lots of `amount` of a movement of `whole`, counted from its end after skipping `skip`.

    Value that was taken last returns first, so that a partial refund gives back the value with the latest expiry.
    """
    parts = [*lots, Lot(whole - total(lots))]
    chosen: list[Lot] = []
    for lot in sorted(parts, key=spend_order, reverse=True):
        skipped = min(skip, lot.amount)
        skip -= skipped
        part = min(lot.amount - skipped, amount)
        amount -= part
        if part:
            chosen.append(msgspec.structs.replace(lot, amount=part))
    return tuple(chosen)


def split(lots: Sequence[Lot], whole: int, amount: int) -> tuple[Lot, ...]:
    """Return the dated lots of the first `amount` of a hold of `whole`, in spend order."""
    chosen: list[Lot] = []
    for lot in [*lots, Lot(whole - total(lots))]:
        part = min(lot.amount, amount)
        amount -= part
        if part:
            chosen.append(msgspec.structs.replace(lot, amount=part))
    return tuple(lot for lot in chosen if not is_undated(lot))
