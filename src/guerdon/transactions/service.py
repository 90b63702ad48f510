"""Commands of transactions of several postings, and the reading of their entries."""

from collections.abc import Iterable

from guerdon.clock import Clock
from guerdon.errors import DatabaseUnavailable
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.models import CommandOutcome, Entry, Idempotency, Posting, Transaction
from guerdon.ledger.service import Ledger
from guerdon.transactions.models import TransactionCreate
from guerdon.transactions.rules import pair
from guerdon.wallets.rules import Movement, command_of
from guerdon.wallets.service import Wallets, effective_ms, parse_wallet_id


class Transactions:
    """Transactions of several postings."""

    def __init__(self, ledger: Ledger, wallets: Wallets, clock: Clock) -> None:
        self._ledger = ledger
        self._wallets = wallets
        self._clock = clock

    async def post(self, request: KeyedRequest, body: TransactionCreate) -> CommandOutcome:
        """Apply all postings or none, and return all entries. The first value that a wallet receives opens it.

        Raises:
            NotFound: A debited wallet, or the member or asset of a credited one, does not exist.
            Validation: A posting is invalid, or an asset does not balance.
            InsufficientFunds, BalanceLimit, LimitReached, WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See
                `ledger.decide`.
        """
        paired = pair(body)
        accounts = _accounts_of(paired.postings)
        for account in accounts:
            parse_wallet_id(account)
        owner = accounts[0].partition(":")[0]
        idempotency = Idempotency(owner, request.actor.id, request.key, request.fingerprint, body.reference)
        transaction = Transaction(
            kind=body.kind,
            postings=paired.postings,
            actor=request.actor.id,
            idempotency=idempotency,
            reason=body.reason,
            metadata=body.metadata,
            effective_at=effective_ms(body.effective_at, self._clock.now_ms()),
            lists_sides=True,
        )
        opens = await self._wallets.accounts_to_open(paired.credited)
        movement = Movement(transaction, idempotency, accounts, tuple(opens.values()), paired.totals)
        owners = tuple(dict.fromkeys(account.partition(":")[0] for account in accounts))
        return await self.complete(await self._ledger.submit(command_of(movement, owners), dry_run=request.dry_run))

    async def complete(self, outcome: CommandOutcome) -> CommandOutcome:
        """Return the outcome with all entries of its transaction. A replay finds only the first one."""
        first = outcome.entries[0]
        if not outcome.replayed or first.sides is None:
            return outcome
        return CommandOutcome(tuple(await self._with_sides(first)), replayed=True)

    async def _with_sides(self, first: Entry) -> list[Entry]:
        """Return the entries of a transaction of several postings. They never change, so any read is sufficient.

        Raises:
            DatabaseUnavailable: An entry that must exist cannot be read now.
        """
        sides = await self._ledger.find_entries(first.sides) if first.sides else {}
        if len(sides) != len(first.sides or ()):
            raise DatabaseUnavailable("a part of the transaction cannot be read now; try again", retry_after_seconds=1)
        return [first, *(sides[each] for each in first.sides or ())]


def _accounts_of(postings: Iterable[Posting]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(posting.account for posting in postings))
