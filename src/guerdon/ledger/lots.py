"""The arithmetic of lots: in which order value is spent, where it comes from, and where it returns to. Pure.

The spend order is total: what expires first, then promotional before paid, then what was available first. Undated paid value is the rest
of the balance and comes last. Two lots with the same source and dates are one, and a date that has passed is forgotten, so that the
number of lots is that of different dates; an expiry is never moved.
"""

from collections.abc import Iterable, Sequence

import msgspec

from guerdon.ledger.models import LOTS_MAX, Account, Lot

NEVER = 1 << 62
GRACE_MS = 7 * 86_400_000
"""Value that comes back (a refund, a released hold) after its date has passed lives so much longer."""


def spend_order(lot: Lot) -> tuple[int, bool, int]:
    return (NEVER if lot.expires_at is None else lot.expires_at, lot.source == "paid", lot.available_at or 0)


def mature(lots: Sequence[Lot], now_ms: int) -> tuple[Lot, ...]:
    """Forget the available dates that have passed."""
    if all(lot.available_at is None or lot.available_at > now_ms for lot in lots):
        return tuple(lots)
    return merge(as_of(lots, now_ms))


def as_of(lots: Iterable[Lot], now_ms: int) -> tuple[Lot, ...]:
    """The same lots in the same order, without the available dates that have passed; some may be undated paid value by now."""
    return tuple(
        msgspec.structs.replace(lot, available_at=None) if lot.available_at is not None and lot.available_at <= now_ms else lot
        for lot in lots
    )


def merge(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    """Add up what has the same source and dates, drop what is empty, and put the rest into spend order."""
    sums: dict[tuple[object, ...], Lot] = {}
    for lot in lots:
        known = sums.get(lot.dates)
        sums[lot.dates] = lot if known is None else msgspec.structs.replace(lot, amount=lot.amount + known.amount)
    return tuple(sorted((lot for lot in sums.values() if lot.amount and not is_undated(lot)), key=spend_order))


def is_undated(lot: Lot) -> bool:
    return lot.dates == ("paid", None, None)


def fits(account: Account, lot: Lot) -> bool:
    """Whether a lot may arrive: it is one that the account has, or there is room for another."""
    own = account.lots or ()
    return len(own) < LOTS_MAX or is_undated(lot) or any(lot.dates == other.dates for other in own)


def total(lots: Iterable[Lot]) -> int:
    return sum(lot.amount for lot in lots)


def negated(lots: Iterable[Lot]) -> tuple[Lot, ...]:
    return tuple(msgspec.structs.replace(lot, amount=-lot.amount) for lot in lots)


def take(lots: Sequence[Lot], plain: int, amount: int, first: Sequence[Lot] = ()) -> tuple[Lot, ...]:
    """Return which lots `amount` is taken from; what they do not cover is undated paid value, which may fall below zero.

    `first` names lots to take from before all others, at most so much of each; they may be pending. Undated paid value among them is
    taken only as far as there is any.
    """
    left = {lot.dates: lot.amount for lot in lots}
    taken: list[Lot] = []
    for wish in first:
        there = max(plain, 0) if is_undated(wish) else left.get(wish.dates, 0)
        part = min(there, wish.amount, amount)
        if part <= 0:
            continue
        amount -= part
        if is_undated(wish):
            plain -= part
        else:
            left[wish.dates] -= part
            taken.append(msgspec.structs.replace(wish, amount=part))
    for lot in lots:
        part = min(left[lot.dates], amount)
        if part > 0 and lot.available_at is None:
            amount -= part
            taken.append(msgspec.structs.replace(lot, amount=part))
    return merge(taken)


def give(parts: Iterable[Lot], plain: int, amount: int, now_ms: int, *, back_at_ms: int | None = None) -> tuple[Lot, ...]:
    """Return the lots that arrive when `amount` comes in, of which `parts` are dated; a debt is paid out of it first.

    A part that had lapsed when it came back gets `GRACE_MS` from then on. It came back now, or at `back_at_ms`, when a hold ended that is
    only booked now: what becomes of it must not depend on when somebody gets round to booking.
    """
    back_at_ms = now_ms if back_at_ms is None else back_at_ms
    arriving: list[Lot] = []
    for part in parts:
        if is_undated(part):
            continue
        lapsed = part.expires_at is not None and part.expires_at <= back_at_ms
        arrived = part.available_at is not None and part.available_at <= now_ms
        arriving.append(
            msgspec.structs.replace(
                part,
                expires_at=back_at_ms + GRACE_MS if lapsed else part.expires_at,
                available_at=None if arrived else part.available_at,
            )
        )
    debt = max(0, -plain - (amount - total(arriving)))
    owed = take(merge(arriving), 0, min(debt, total(lot for lot in arriving if lot.available_at is None))) if debt else ()
    return merge([*arriving, *negated(owed)])


def last_of(lots: Sequence[Lot], whole: int, skip: int, amount: int) -> tuple[Lot, ...]:
    """Return the lots of a part of a movement of `whole`, counted from its end: after the last `skip`, the `amount` before them.

    What was taken last returns first, so that a partial refund gives back the value that lives longest.
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
    """Return the lots of the first `amount` of a hold of `whole`, in spend order."""
    chosen: list[Lot] = []
    for lot in [*lots, Lot(whole - total(lots))]:
        part = min(lot.amount, amount)
        amount -= part
        if part:
            chosen.append(msgspec.structs.replace(lot, amount=part))
    return tuple(lot for lot in chosen if not is_undated(lot))
