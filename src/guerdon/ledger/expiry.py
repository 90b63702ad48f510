"""Expiry: holds and lots end at their millisecond, whether or not that is booked yet. Pure.

Every decision is made on an account that is brought up to the present. The entries that this takes (releases and write-offs) are booked
with the next movement of the account, or by the sweeper.
"""

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.ledger import lots
from guerdon.ledger import spending_limits as limits
from guerdon.ledger.entry_hash import entry_hash
from guerdon.ledger.models import (
    BREAKAGE,
    HOLDS,
    Account,
    AccountRules,
    DocumentChange,
    Entry,
    Hold,
    HoldChange,
    Idempotency,
    Lot,
    Posting,
    entry_id,
    hold_id,
    reference_key,
)

ACTOR = "system:ledger"
HOLD_DOCUMENTS, REVERSALS = "holds", "reversals"
_ZERO_HASH = bytes(32)


class AccountNow(Struct, frozen=True):
    """An account at the present time, and the entries and document changes that book the difference."""

    account: Account
    entries: tuple[Entry, ...] = ()
    changes: tuple[DocumentChange, ...] = ()


def bring_up_to(account: Account, now_ms: int, calendar: Calendar) -> AccountNow:
    """Release expired holds and repay a debt from dated value, in order of time; then write off expired lots.

    The result does not depend on the times of earlier calls.
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
        if repayment := _debt_repayment(account):
            details = EntryDetails("settlement", ACTOR, lots=lots.negated(repayment))
            account, entry = append(account, Posting(account.id, 0, BREAKAGE), details, now_ms)
            entries.append(entry)
    # After each of these times there is no debt beside spendable value, so all expired lots can be written off in one entry.
    account = msgspec.structs.replace(account, lots=lots.mature(account.lots or (), now_ms))
    if expired := tuple(lot for lot in account.lots or () if lot.expires_at is not None and lot.expires_at <= now_ms):
        write_off = Posting(account.id, -lots.total(expired), BREAKAGE)
        account, entry = append(account, write_off, EntryDetails("expiry", ACTOR, lots=lots.negated(expired)), now_ms)
        entries.append(entry)
    return AccountNow(account, tuple(entries), tuple(changes))


class ExpiredLots(Struct, frozen=True):
    """Value of one account that had expired at a time, by the expiry date that it was granted with."""

    at: int
    """The time in milliseconds."""
    amounts: dict[int, int] = {}
    """By expiry date in milliseconds: promotional value that was granted with it and has expired, also after a return."""
    next_at: int | None = None
    """Next time at which returned value expires. Until then the amounts of dates up to `at` do not change."""


def expired_lots(account: Account, booked: Iterable[Lot], now_ms: int, calendar: Calendar) -> ExpiredLots:
    """Return what has expired up to now. `booked` are the lots of the account's expiry entries, and those that returned by their reversals."""
    present = bring_up_to(account, now_ms, calendar)
    amounts: dict[int, int] = {}
    for lot in (*booked, *(lot for entry in present.entries if entry.kind == "expiry" for lot in entry.lots or ())):
        if lot.source == "promotional" and lot.granted_until is not None:
            amounts[lot.granted_until] = amounts.get(lot.granted_until, 0) - lot.amount
    returned = [
        lot.expires_at for lot in present.account.lots or () if lot.first_expires_at is not None and lot.expires_at is not None
    ]
    return ExpiredLots(now_ms, amounts, min(returned, default=None))


def _moments(account: Account, now_ms: int) -> list[int]:
    """Return the times up to now at which holds ended and, while there is a debt, value became available, in order."""
    moments = {hold.expires_at for hold in account.holds}
    if account.undated_balance < 0:
        moments |= {lot.available_at for lot in account.lots or () if lot.available_at is not None}
    return sorted(moment for moment in moments if moment <= now_ms)


def _debt_repayment(account: Account) -> tuple[Lot, ...]:
    """Return the available lots that repay the debt; a lot may have expired since it became available."""
    if account.undated_balance >= 0:
        return ()
    available = [lot for lot in account.lots or () if lot.available_at is None]
    return lots.take(available, 0, min(-account.undated_balance, lots.total(available)))


def next_expiry_at(account: Account) -> int | None:
    """Return the next time at which a hold or lot of the account expires or a debt is repaid, in milliseconds, or None."""
    moments = [hold.expires_at for hold in account.holds]
    moments += [lot.expires_at for lot in account.lots or () if lot.expires_at is not None]
    undated_balance = account.undated_balance
    repaid_at = debt_repaid_at(account.lots or (), undated_balance) if undated_balance < 0 else None
    return min(moments if repaid_at is None else [*moments, repaid_at], default=None)


def debt_repaid_at(account_lots: Sequence[Lot], undated_balance: int) -> int | None:
    """Return the next time at which a dated lot becomes available and repays a debt, in milliseconds, or None.

    Undated value repays it without an entry, because it becomes part of the undated balance.
    """
    waiting = sorted((lot for lot in account_lots if lot.available_at is not None), key=lambda lot: lot.available_at or 0)
    for moment in dict.fromkeys(lot.available_at for lot in waiting):
        arrived = [lot for lot in waiting if lot.available_at == moment]
        undated = [lot for lot in arrived if lots.is_undated(msgspec.structs.replace(lot, available_at=None))]
        undated_balance += lots.total(undated)
        if undated_balance >= 0:
            return None
        if len(undated) < len(arrived):
            return moment
    return None


class EntryDetails(Struct, frozen=True):
    """Fields of an entry that do not follow from its account and its posting."""

    kind: str
    actor: str
    transaction: str | None = None
    idempotency: Idempotency | None = None
    """Set on the first entry of a transaction only."""
    reference: str | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}
    pair: int | None = None
    lots: tuple[Lot, ...] = ()
    hold: HoldChange | None = None
    reverses: str | None = None
    terms: AccountRules | None = None
    spent: tuple[int, int] | None = None
    attempt: int | None = None
    """Number of the transaction among those with its reference, from 2; it belongs to `idempotency`."""
    evidence: str | None = None
    """Set on the first entry of a transaction only."""
    effective_at: int | None = None
    sides: tuple[str, ...] | None = None
    """Set on the first entry of a transaction that lists its sides."""
    rate: str | None = None


def release(account: Account, hold: Hold, details: EntryDetails, *, now_ms: int, calendar: Calendar) -> tuple[Account, Entry]:
    """End a hold: the rest of it returns to the lots that it was taken from."""
    returned = lots.give(hold.lots, account.undated_balance, hold.left, now_ms, back_at_ms=min(now_ms, hold.expires_at))
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
    details = msgspec.structs.replace(details, lots=returned, hold=change, spent=spent)
    return append(account, Posting(account.id, 0, HOLDS), details, now_ms)


def append(account: Account, posting: Posting, details: EntryDetails, now_ms: int) -> tuple[Account, Entry]:
    """Return the account after one new entry, and the entry.

    Lots and held value follow from `details`. The caller has already updated the list of holds.
    """
    now_ms = max(now_ms, account.at)
    balance, held, account_lots = account.balance + posting.amount, account.held, account.lots
    spendable_after = None
    if details.hold is not None:
        held += details.hold.change
    if account_lots is not None or details.lots or details.hold is not None or details.terms is not None:
        # Captured value leaves the hold, not the free lots.
        captured = details.hold is not None and posting.amount != 0
        account_lots = account_lots or () if captured else lots.merge([*(account_lots or ()), *details.lots])
        pending = sum(lot.amount for lot in account_lots if lot.available_at is not None and lot.available_at > now_ms)
        spendable_after = balance - held - pending - account.minimum_balance if pending or account.minimum_balance else None
    idempotency = details.idempotency
    entry = Entry(
        id=entry_id(account.id, account.seq + 1),
        owner=account.owner,
        asset=account.asset,
        kind=details.kind,
        amount=posting.amount,
        balance_after=balance,
        held_after=held,
        counterparty=posting.counterparty,
        actor=details.actor,
        at=now_ms,
        prev=account.head,
        hash=_ZERO_HASH,
        transaction=details.transaction,
        reason=details.reason,
        reference=details.reference,
        key=idempotency.key if idempotency else None,
        fingerprint=idempotency.fingerprint if idempotency else None,
        metadata=details.metadata,
        unique_keys=_unique_keys(idempotency, details.attempt) if idempotency else None,
        pair=details.pair,
        lots=details.lots or None,
        hold=details.hold,
        reverses=details.reverses,
        terms=details.terms,
        spent=details.spent,
        spendable_after=spendable_after,
        attempt=details.attempt if idempotency else None,
        evidence=details.evidence,
        effective_at=details.effective_at,
        sides=details.sides,
        rate=details.rate,
    )
    # The entry is not shared yet, and this is cheaper than a second instance.
    msgspec.structs.force_setattr(entry, "hash", entry_hash(entry))
    moved = msgspec.structs.replace(
        account, balance=balance, held=held, seq=account.seq + 1, head=entry.hash, at=now_ms, lots=account_lots
    )
    return (moved if account_lots is None else msgspec.structs.replace(moved, due_at=next_expiry_at(moved))), entry


def _unique_keys(idempotency: Idempotency, attempt: int | None) -> list[bytes]:
    if attempt is None or idempotency.reference is None:
        return list(idempotency.unique_keys)
    return [idempotency.key_digest, reference_key(idempotency.owner, idempotency.reference, attempt)]
