"""What a credit, a debit and a transfer mean, as commands for the ledger. Pure: ids and time are arguments."""

from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from msgspec import Struct

from guerdon.errors import GuerdonError, IdempotencyKeyReused, NotFound, Validation
from guerdon.ledger.decide import find_replay
from guerdon.ledger.models import (
    ISSUER,
    MERCHANT,
    Account,
    Command,
    Decision,
    Entry,
    EntryKind,
    Idempotency,
    Lot,
    Posting,
    Transaction,
    View,
)

COMMAND_BYTES = 1024


class Movement(Struct, frozen=True):
    """One credit, debit or transfer, ready to be decided."""

    transaction: Transaction
    idempotency: Idempotency
    accounts: tuple[str, ...]
    """The wallets that the transaction touches."""
    opens: tuple[Account, ...] = ()


def postings_of(kind: EntryKind, wallet: str, amount: int, to: str | None, lot: Lot | None = None) -> tuple[Posting, ...]:
    """The guarded sides of a movement; the primary one, whose entry carries the key, comes first.

    `lot` is the dates of a credit. What a transfer takes arrives with its own dates, or it would be a way around them.
    """
    if kind == "credit":
        return (Posting(wallet, amount, ISSUER, lots=() if lot is None else (lot,)),)
    if to is None:
        return (Posting(wallet, -amount, MERCHANT, spends=True),)
    return (Posting(wallet, -amount, to, spends=True), Posting(to, amount, wallet, keeps_dates=True))


def command_of(movement: Movement, owners: tuple[str, ...]) -> Command:
    """One movement with its own outcome."""

    def decide(view: View) -> Decision:
        earlier = find_replay(view, movement.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        _require_accounts(view, movement)
        require_future(movement.transaction, view.now_ms)
        return Decision((movement.transaction,), movement.opens)

    return Command(
        owners=owners,
        accounts=movement.accounts,
        decide=decide,
        unique_keys=movement.idempotency.unique_keys,
        idempotency=movement.idempotency,
        size_bytes=COMMAND_BYTES,
    )


def atomic_command_of(movements: Sequence[Movement], owners: tuple[str, ...]) -> Command:
    """Many movements, applied together or not at all.

    When every key is known already the first answers are recalled; a mixture of known and new keys is a reuse.
    """

    def decide(view: View) -> Decision:
        earlier: list[Entry] = []
        opened: set[str] = set()
        for movement in movements:
            try:
                entry = find_replay(view, movement.idempotency)
                if entry is None:
                    _require_accounts(view, movement, opened)
                    require_future(movement.transaction, view.now_ms)
                    opened.update(account.id for account in movement.opens)
            except GuerdonError as error:
                error.subject = movement.transaction
                raise
            if entry is not None:
                earlier.append(entry)
        if len(earlier) == len(movements):
            return Decision(replayed=tuple(earlier))
        if earlier:
            reused = IdempotencyKeyReused("this key was applied by another request, which was not atomic with the rest")
            reused.subject = next(m.transaction for m in movements if m.idempotency.key == earlier[0].key)
            raise reused
        opens = tuple({account.id: account for movement in movements for account in movement.opens}.values())
        return Decision(tuple(movement.transaction for movement in movements), opens)

    return Command(
        owners=owners,
        accounts=tuple({account for movement in movements for account in movement.accounts}),
        decide=decide,
        unique_keys=tuple(mark for movement in movements for mark in movement.idempotency.unique_keys),
        size_bytes=COMMAND_BYTES * len(movements),
    )


def primary_entries(entries: Sequence[Entry]) -> list[Entry]:
    """Of all entries of an outcome, the ones that stand for their transaction: those that carry the key."""
    return [entry for entry in entries if entry.key is not None]


def _require_accounts(view: View, movement: Movement, opened: AbstractSet[str] = frozenset()) -> None:
    opens = opened | {account.id for account in movement.opens}
    for account_id in movement.accounts:
        if account_id not in view.accounts and account_id not in opens:
            raise missing_wallet(account_id)


def require_future(transaction: Transaction, now_ms: int) -> None:
    """
    Raises:
        Validation: a credit would have lapsed before it exists.
    """
    for lot in transaction.postings[0].lots:
        if lot.expires_at is not None and lot.expires_at <= now_ms:
            raise Validation.at("/expires_at", "the value would have lapsed already; expires_at must lie in the future")


def missing_wallet(wallet_id: str) -> GuerdonError:
    return NotFound("there is no such wallet", wallet=wallet_id)
