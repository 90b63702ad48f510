"""Credits, debits and transfers as ledger commands. Pure: ids and time are arguments."""

from msgspec import Struct

from guerdon.calendar import years_before
from guerdon.errors import GuerdonError, NotFound, Validation
from guerdon.ledger.decide import find_replay, guard
from guerdon.ledger.models import (
    ISSUER,
    MERCHANT,
    Account,
    Command,
    Decision,
    EntryKind,
    Idempotency,
    Lot,
    Posting,
    Transaction,
    View,
)

COMMAND_BYTES = 1024
EFFECTIVE_YEARS_MAX = 10
"""Maximum age of an effective time."""


class Movement(Struct, frozen=True):
    """One credit, debit or transfer to decide."""

    transaction: Transaction
    idempotency: Idempotency
    accounts: tuple[str, ...]
    """Wallets that the transaction changes."""
    opens: tuple[Account, ...] = ()
    """Accounts to open if they do not exist."""
    totals: tuple[Posting, ...] = ()
    """The whole debit of each wallet that several postings debit. It is checked first, so that a refusal states the whole amount."""


def postings_of(kind: EntryKind, wallet: str, amount: int, to: str | None, lot: Lot | None = None) -> tuple[Posting, ...]:
    """Return the postings of a movement; the entry of the first carries the key.

    `lot` has the dates of a credit. Transferred value keeps its dates; otherwise a transfer would remove them.
    """
    if kind == "credit":
        return (Posting(wallet, amount, ISSUER, lots=() if lot is None else (lot,)),)
    if to is None:
        return (Posting(wallet, -amount, MERCHANT, spends=True),)
    return (Posting(wallet, -amount, to, spends=True), Posting(to, amount, wallet, keeps_dates=True))


def command_of(movement: Movement, owners: tuple[str, ...]) -> Command:
    """Return the command of one movement."""

    def decide(view: View) -> Decision:
        earlier = find_replay(view, movement.idempotency)
        if earlier is not None:
            return Decision(replayed=(earlier,))
        _require_accounts(view, movement)
        require_future(movement.transaction, view.now_ms)
        require_effective(movement.transaction.effective_at, view.now_ms)
        for total in movement.totals:
            guard(view.accounts[total.account], total)
        return Decision((movement.transaction,), movement.opens)

    return Command(
        owners=owners,
        accounts=movement.accounts,
        decide=decide,
        unique_keys=movement.idempotency.unique_keys,
        idempotency=movement.idempotency,
        size_bytes=COMMAND_BYTES * (len(movement.transaction.postings) + 1) // 2,
    )


def _require_accounts(view: View, movement: Movement) -> None:
    opens = {account.id for account in movement.opens}
    for account_id in movement.accounts:
        if account_id not in view.accounts and account_id not in opens:
            raise missing_wallet(account_id)


def require_future(transaction: Transaction, now_ms: int) -> None:
    """Check that credited value has not expired yet.

    Raises:
        Validation: `expires_at` is not in the future.
    """
    for lot in transaction.postings[0].lots:
        if lot.expires_at is not None and lot.expires_at <= now_ms:
            raise Validation.at("/expires_at", "expires_at must be in the future")


def require_effective(effective_at: int | None, now_ms: int) -> None:
    """Check that a stated effective time is not in the future and at most `EFFECTIVE_YEARS_MAX` years ago.

    Raises:
        Validation: The time is outside these bounds.
    """
    if effective_at is None:
        return
    if effective_at > now_ms:
        raise Validation.at("/effective_at", "effective_at must not be in the future")
    if effective_at < years_before(now_ms, EFFECTIVE_YEARS_MAX):
        raise Validation.at("/effective_at", f"effective_at must be at most {EFFECTIVE_YEARS_MAX} years ago")


def missing_wallet(wallet_id: str) -> GuerdonError:
    return NotFound("the wallet does not exist", wallet=wallet_id)
