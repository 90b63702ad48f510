"""Queries on single transactions, and their reversal."""

from guerdon.database import Database
from guerdon.errors import NotFound
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.models import SYSTEM, CommandOutcome, Entry, Idempotency, parse_location
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import REVERSALS
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.reversals.models import ReversalCreate, TransactionState
from guerdon.reversals.rules import Reversal, require_reversible, require_whole, reversal_command
from guerdon.transactions.models import view_details
from guerdon.transactions.service import Transactions
from guerdon.wallets.service import parse_wallet_id


class Reversals:
    """Queries and reversals of transactions."""

    def __init__(self, ledger: Ledger, transactions: Transactions, *, database: Database) -> None:
        self._ledger = ledger
        self._transactions = transactions
        self._reversals = database.raw[REVERSALS]

    async def reverse(self, request: KeyedRequest, transaction_id: str, body: ReversalCreate) -> CommandOutcome:
        """Reverse a transaction in part or whole.

        Raises:
            NotFound: The transaction does not exist.
            NotReversible: The transaction moved no value, belongs to a voucher, or has several postings and an amount is given.
            ReversalLimit: The amount exceeds what is left to reverse.
            InsufficientFunds: The value to take back has been spent.
            BalanceLimit, WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        sides = await self._sides(transaction_id)
        require_reversible(sides[0])
        require_whole(sides[0], body.amount)
        idempotency = Idempotency(sides[0].owner, request.actor.id, request.key, request.fingerprint, body.reference)
        reversal = Reversal(sides, body.amount, idempotency, body.reason, body.metadata)
        outcome = await self._ledger.submit(reversal_command(reversal, self._ledger.calendar))
        return await self._transactions.complete(outcome)

    async def get_transaction(self, actor: Actor, transaction_id: str) -> TransactionState:
        """Return a transaction and its reversed amount.

        Raises:
            NotFound: The transaction does not exist or changes no wallet of the caller.
        """
        sides = await self._sides(transaction_id)
        if actor.id not in {side.owner for side in sides}:
            actor.require_reach(sides[0].owner)
        document = await self._reversals.find_one({"_id": transaction_id, "owner": sides[0].owner})
        done: int = document["reversed"] if document else 0
        # A member sees the balances of their own wallets only.
        seen = [side for side in sides if side.owner == actor.id] if actor.kind == "member" else sides
        view = view_details(seen, several=sides[0].sides is not None)
        return TransactionState(view, done, abs(sides[0].amount) - done)

    async def _sides(self, transaction_id: str) -> list[Entry]:
        """Return the entries of a transaction on guarded accounts. They never change, so any read is sufficient.

        Raises:
            NotFound: The transaction does not exist.
        """
        location = parse_location(transaction_id) if transaction_id.startswith("txn_") else None
        if location is None:
            raise NotFound(MISSING_OR_FOREIGN)
        first = await self._entry(*location)
        if first.transaction is not None:
            raise NotFound(MISSING_OR_FOREIGN)
        if first.sides is not None:
            return await self._transactions.with_sides(first)
        if first.counterparty.startswith(SYSTEM) or first.pair is None:
            return [first]
        return [first, await self._entry(first.counterparty, first.pair)]

    async def _entry(self, account: str, seq: int) -> Entry:
        owner, _ = parse_wallet_id(account)
        entry = await self._ledger.get_entry(account, seq, owner)
        if entry is None:
            raise NotFound(MISSING_OR_FOREIGN)
        return entry
