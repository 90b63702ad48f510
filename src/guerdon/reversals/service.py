"""Queries on single transactions, and their reversal."""

from collections.abc import Iterable, Mapping, Sequence

from msgspec import Struct

from guerdon.database import Database
from guerdon.errors import GuerdonError, NotFound
from guerdon.http.idempotency import KeyedRequest
from guerdon.ledger.models import SYSTEM, Command, CommandOutcome, Entry, Idempotency, entry_id, parse_location
from guerdon.ledger.service import Ledger
from guerdon.ledger.store import REVERSALS
from guerdon.permissions import MISSING_OR_FOREIGN, Actor
from guerdon.reversals.models import ReversalCreate, TransactionState
from guerdon.reversals.rules import Reversal, require_reversible, require_whole, reversal_command
from guerdon.transactions.models import view_details
from guerdon.transactions.service import Transactions
from guerdon.wallets.models import WALLET_ID


class RequestedReversal(Struct, frozen=True):
    """A reversal as it was requested."""

    request: KeyedRequest
    transaction_id: str
    body: ReversalCreate


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
            NotReversible: The transaction moved no value, is an award, belongs to a voucher, or has several postings and an amount is
                given.
            ReversalLimit: The amount exceeds what is left to reverse.
            InsufficientFunds: The value to take back has been spent.
            BalanceLimit, WalletFrozen, WalletClosed, IdempotencyKeyReused, ReferenceReused: See `ledger.decide`.
        """
        command = self._command(RequestedReversal(request, transaction_id, body), await self._sides(transaction_id))
        return await self._transactions.complete(await self._ledger.submit(command, dry_run=request.dry_run))

    async def prepare(self, requested: Sequence[RequestedReversal]) -> list[Command | GuerdonError]:
        """Return the command of each reversal of a bulk request, or the error that refuses it."""
        known = await self._find_entries(_first_entry_id(each.transaction_id) for each in requested)
        known |= await self._find_entries([each for entry in known.values() for each in _other_entry_ids(entry)])
        prepared: list[Command | GuerdonError] = []
        for each in requested:
            try:
                prepared.append(self._command(each, _sides_of(each.transaction_id, known)))
            except GuerdonError as error:
                prepared.append(error)
        return prepared

    def _command(self, requested: RequestedReversal, sides: Sequence[Entry]) -> Command:
        """
        Raises:
            NotReversible: The transaction moved no value, is an award, belongs to a voucher, or has several postings and an amount is
                given.
        """
        request, body = requested.request, requested.body
        require_reversible(sides[0])
        require_whole(sides[0], body.amount)
        idempotency = Idempotency(sides[0].owner, request.actor.id, request.key, request.fingerprint, body.reference)
        return reversal_command(Reversal(sides, body.amount, idempotency, body.reason, body.metadata), self._ledger.calendar)

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
        known = await self._find_entries([_first_entry_id(transaction_id)])
        known |= await self._find_entries([each for entry in known.values() for each in _other_entry_ids(entry)])
        return _sides_of(transaction_id, known)

    async def _find_entries(self, entry_ids: Iterable[str | None]) -> dict[str, Entry]:
        wanted = {entry for entry in entry_ids if entry is not None}
        return await self._ledger.find_entries(wanted) if wanted else {}


def _first_entry_id(transaction_id: str) -> str | None:
    """Return the id of the first entry of a transaction, or None if the text is not the id of one."""
    location = parse_location(transaction_id) if transaction_id.startswith("txn_") else None
    return None if location is None or WALLET_ID.match(location[0]) is None else entry_id(*location)


def _other_entry_ids(first: Entry) -> tuple[str, ...]:
    """Return the ids of the other entries of a transaction: those that its first entry lists, or that of the other wallet."""
    if first.sides is not None:
        return first.sides
    return () if first.counterparty.startswith(SYSTEM) or first.pair is None else (entry_id(first.counterparty, first.pair),)


def _sides_of(transaction_id: str, known: Mapping[str, Entry]) -> list[Entry]:
    """Return the entries of a transaction on guarded accounts.

    Raises:
        NotFound: The transaction does not exist.
    """
    first = known.get(_first_entry_id(transaction_id) or "")
    if first is None or first.transaction is not None or not known.keys() >= set(_other_entry_ids(first)):
        raise NotFound(MISSING_OR_FOREIGN)
    return [first, *(known[each] for each in _other_entry_ids(first))]
