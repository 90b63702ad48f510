"""What time does to an account: holds end and lots lapse at their millisecond, whether or not anybody has booked it. Pure.

An account is brought up to the present before it is judged. What that takes, entries that release or write off, is booked together with
the next movement of the account, or by the sweeper.
"""

from collections.abc import Sequence

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.ledger import lots
from guerdon.ledger import spending_limits as limits
from guerdon.ledger.models import (
    BREAKAGE,
    HOLDS,
    Account,
    AccountRules,
    DocumentChange,
    Entry,
    EntryKind,
    Hold,
    HoldChange,
    Idempotency,
    Lot,
    Posting,
    entry_hash,
    entry_id,
    hold_id,
)

ACTOR = "system:ledger"
HOLD_DOCUMENTS = "holds"
_ZERO_HASH = bytes(32)


class AccountNow(Struct, frozen=True):
    """An account in the present, and what has to be written to get it there."""

    account: Account
    entries: tuple[Entry, ...] = ()
    changes: tuple[DocumentChange, ...] = ()


def bring_up_to(account: Account, now_ms: int, calendar: Calendar) -> AccountNow:
    """Release holds that have ended and let dated value pay a debt, in the order of their moments; then write off what has lapsed.

    The order is time's, not the booking's: swept at every moment or only now, the account ends the same.
    """
    if account.lots is None:
        return AccountNow(account)
    now_ms = max(now_ms, account.at)
    if account.due_at is None or account.due_at > now_ms:
        return AccountNow(msgspec.structs.replace(account, lots=lots.mature(account.lots, now_ms)))
    entries: list[Entry] = []
    changes: list[DocumentChange] = []
    for moment in _moments(account, now_ms):
        account = msgspec.structs.replace(account, lots=lots.mature(account.lots or (), moment))
        for hold in account.holds:
            if hold.expires_at <= moment:
                account, entry = release(account, hold, EntryDetails("hold_expiry", ACTOR), now_ms=now_ms, calendar=calendar)
                entries.append(entry)
                ended = {"status": "expired", "left": 0, "ended_at": hold.expires_at}
                changes.append(DocumentChange(HOLD_DOCUMENTS, hold_id(account.id, hold.seq), account.owner, ended))
        if owed := _debt_repayment(account):
            marks = EntryDetails("settlement", ACTOR, lots=lots.negated(owed))
            account, entry = append(account, Posting(account.id, 0, BREAKAGE), marks, now_ms)
            entries.append(entry)
    # What is spendable and a debt never lie beside each other after a moment, so that all that has lapsed can go at once.
    account = msgspec.structs.replace(account, lots=lots.mature(account.lots or (), now_ms))
    if gone := tuple(lot for lot in account.lots or () if lot.expires_at is not None and lot.expires_at <= now_ms):
        lapse = Posting(account.id, -lots.total(gone), BREAKAGE)
        account, entry = append(account, lapse, EntryDetails("expiry", ACTOR, lots=lots.negated(gone)), now_ms)
        entries.append(entry)
    return AccountNow(account, tuple(entries), tuple(changes))


def _moments(account: Account, now_ms: int) -> list[int]:
    """When holds have ended and, while there is a debt, when value has become available."""
    moments = {hold.expires_at for hold in account.holds}
    if account.undated_balance < 0:
        moments |= {lot.available_at for lot in account.lots or () if lot.available_at is not None}
    return sorted(moment for moment in moments if moment <= now_ms)


def _debt_repayment(account: Account) -> tuple[Lot, ...]:
    """A debt is paid by the first dated value that has become available, even if that has lapsed since."""
    if account.undated_balance >= 0:
        return ()
    there = [lot for lot in account.lots or () if lot.available_at is None]
    return lots.take(there, 0, min(-account.undated_balance, lots.total(there)))


def next_expiry_at(account: Account) -> int | None:
    """The next millisecond at which something on the account lapses or has to be settled."""
    moments = [hold.expires_at for hold in account.holds]
    moments += [lot.expires_at for lot in account.lots or () if lot.expires_at is not None]
    settles = debt_repaid_at(account.lots or (), account.undated_balance)
    return min(moments if settles is None else [*moments, settles], default=None)


def debt_repaid_at(own: Sequence[Lot], plain: int) -> int | None:
    """The next millisecond at which a dated lot becomes available and pays a debt.

    Undated value pays it without an entry, by becoming a part of the rest; when that is enough, nothing is left to settle.
    """
    waiting = sorted((lot for lot in own if lot.available_at is not None), key=lambda lot: lot.available_at or 0)
    for moment in dict.fromkeys(lot.available_at for lot in waiting):
        arrived = [lot for lot in waiting if lot.available_at == moment]
        undated = [lot for lot in arrived if lots.is_undated(msgspec.structs.replace(lot, available_at=None))]
        plain += lots.total(undated)
        if plain >= 0:
            return None
        if len(undated) < len(arrived):
            return moment
    return None


class EntryDetails(Struct, frozen=True):
    """What an entry says besides its amount and its place."""

    kind: EntryKind
    actor: str
    transaction: str | None = None
    idempotency: Idempotency | None = None
    """Only on the first entry of its transaction."""
    reference: str | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}
    pair: int | None = None
    lots: tuple[Lot, ...] = ()
    hold: HoldChange | None = None
    reverses: str | None = None
    terms: AccountRules | None = None
    spent: tuple[int, int] | None = None


def release(account: Account, hold: Hold, marks: EntryDetails, *, now_ms: int, calendar: Calendar) -> tuple[Account, Entry]:
    """End a hold: what is left of it returns to the very lots it came from."""
    back = lots.give(hold.lots, account.undated_balance, hold.left, now_ms, back_at_ms=min(now_ms, hold.expires_at))
    spent = None
    if account.limits is not None and hold.counted_at is not None:
        in_day, in_month = limits.restored_by(hold.left, hold.counted_at, calendar, now_ms)
        spent = (-in_day, -in_month)
    account = msgspec.structs.replace(
        account,
        holds=tuple(other for other in account.holds if other.seq != hold.seq),
        spent=account.spent if spent is None else limits.counted(account, spent, calendar, now_ms),
    )
    change = HoldChange(hold.seq, -hold.left, hold.size, 0, hold.expires_at, hold.captured, hold.counted_at)
    marks = msgspec.structs.replace(marks, lots=back, hold=change, spent=spent)
    return append(account, Posting(account.id, 0, HOLDS), marks, now_ms)


def append(account: Account, posting: Posting, marks: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    """Move the account on by one entry; its lots and its sum of held value follow from `marks`, the list of holds does not."""
    now_ms = max(now_ms, account.at)
    balance, held, own = account.balance + posting.amount, account.held, account.lots
    spendable_after = None
    if marks.hold is not None:
        held += marks.hold.change
    if own is not None or marks.lots or marks.hold is not None or marks.terms is not None:
        # What is captured comes out of the hold, not out of the lots that are still free.
        captured = marks.hold is not None and posting.amount != 0
        own = own or () if captured else lots.merge([*(own or ()), *marks.lots])
        pending = sum(lot.amount for lot in own if lot.available_at is not None and lot.available_at > now_ms)
        spendable_after = balance - held - pending - account.minimum_balance if pending or account.minimum_balance else None
    idempotency = marks.idempotency
    entry = Entry(
        id=entry_id(account.id, account.seq + 1),
        owner=account.owner,
        asset=account.asset,
        kind=marks.kind,
        amount=posting.amount,
        balance_after=balance,
        held_after=held,
        counterparty=posting.counterparty,
        actor=marks.actor,
        at=now_ms,
        prev=account.head,
        hash=_ZERO_HASH,
        transaction=marks.transaction,
        reason=marks.reason,
        reference=marks.reference,
        key=idempotency.key if idempotency else None,
        fingerprint=idempotency.fingerprint if idempotency else None,
        metadata=marks.metadata,
        unique_keys=list(idempotency.unique_keys) if idempotency else None,
        pair=marks.pair,
        lots=marks.lots or None,
        hold=marks.hold,
        reverses=marks.reverses,
        terms=marks.terms,
        spent=marks.spent,
        spendable_after=spendable_after,
    )
    # The entry is not published yet; this is cheaper than building it twice.
    msgspec.structs.force_setattr(entry, "hash", entry_hash(entry))
    moved = msgspec.structs.replace(account, balance=balance, held=held, seq=account.seq + 1, head=entry.hash, at=now_ms, lots=own)
    return (moved if own is None else msgspec.structs.replace(moved, due_at=next_expiry_at(moved))), entry
