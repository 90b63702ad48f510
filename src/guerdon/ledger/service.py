"""The ledger: commands go in and outcomes come out; balances and histories are read here too."""

import asyncio
from collections.abc import Collection, Sequence

from pymongo.errors import PyMongoError

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.errors import DatabaseUnavailable, GuerdonError
from guerdon.ledger.committer import Committer
from guerdon.ledger.decide import decide_batch
from guerdon.ledger.models import Account, Command, CommandOutcome, CommandResult, Entry, T, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry


class Ledger:
    """Decides and commits commands; the only writer of `accounts` and `entries`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        calendar: Calendar,
        *,
        queue_max: int,
        batch_max: int,
        in_flight_max: int,
        deadline_ms: int,
    ) -> None:
        self.calendar = calendar
        self._database = database
        self._clock = clock
        self._accounts = database.raw[ACCOUNTS]
        self._committer = Committer(
            database,
            clock,
            calendar,
            queue_max=queue_max,
            batch_max=batch_max,
            in_flight_max=in_flight_max,
            deadline_ms=deadline_ms,
        )
        self.stats = self._committer.stats

    # --- commands ---------------------------------------------------------------------------------------------------

    async def submit(self, command: Command[T]) -> CommandOutcome[T]:
        """Commit one command and return what it did.

        Raises:
            GuerdonError: the refusal that `decide` raised.
            Retry: the state that the command was made from has changed; nothing was done.
            Overloaded: the queue is full, or the deadline passed before the command was begun; nothing was done.
            OutcomeUnknown: the deadline passed in the middle; repeat with the same key to learn the outcome.
            DatabaseUnavailable: no primary within the deadline; nothing was done.
        """
        return await self._committer.enqueue((command,))[0]

    async def submit_all(self, commands: Sequence[Command[T]]) -> list[CommandResult[T]]:
        """Commit many independent commands, in order where they share an account; each has its own verdict.

        Raises:
            Overloaded: they do not all fit into the queue; nothing was done.
        """
        results = await asyncio.gather(*self._committer.enqueue(commands), return_exceptions=True)
        verdicts: list[CommandResult[T]] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, GuerdonError):
                raise result
            verdicts.append(result)
        return verdicts

    async def preview(self, command: Command[T]) -> CommandOutcome[T]:
        """Read and decide like `submit`, and write nothing.

        Raises:
            GuerdonError: the refusal that `decide` raised.
            Retry: the state that the command was made from has changed.
        """
        try:
            found = await self._committer.store.read([command])
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=1) from error
        [result] = decide_batch([command], found, self._clock.now_ms(), self.calendar).results
        if isinstance(result, GuerdonError):
            try:
                raise result
            finally:
                del result  # The traceback of the error holds this frame: they would keep each other until a collection.
        return result

    async def close(self) -> None:
        """Finish what is in flight or queued, then refuse."""
        await self._committer.close()

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_account(self, account_id: str, owner: str) -> Account | None:
        document = await self._accounts.find_one({"_id": account_id, "owner": owner})
        return None if document is None else decode_account(document)

    async def find_accounts(self, account_ids: Collection[str]) -> dict[str, Account]:
        """Fetch accounts as they are booked, as far as they exist."""
        owners = sorted({account_id.rpartition(":")[0] for account_id in account_ids})
        cursor = self._accounts.find({"_id": {"$in": sorted(account_ids)}, "owner": {"$in": owners}})
        return {account.id: account async for document in cursor if (account := decode_account(document))}

    async def find_existing_ids(self, account_ids: Collection[str]) -> set[str]:
        """Return which of these accounts exist."""
        owners = sorted({account_id.rpartition(":")[0] for account_id in account_ids})
        cursor = self._accounts.find({"_id": {"$in": sorted(account_ids)}, "owner": {"$in": owners}}, {"_id": 1})
        return {str(document["_id"]) async for document in cursor}

    async def list_accounts(self, owner: str, *, limit: int = 100) -> list[Account]:
        """A member's wallets, in the order of their assets."""
        # Their ids begin with the owner's: they lie together, in this order, and need no index of their own. An asset begins with a
        # capital letter; what only counts does not.
        where = {"_id": {"$gte": f"{owner}:A", "$lt": f"{owner}:["}, "owner": owner}
        cursor = self._accounts.find(where, limit=limit).sort("_id")
        return [decode_account(document) async for document in cursor]

    async def get_entry(self, account_id: str, seq: int, owner: str) -> Entry | None:
        document = await self._database.raw[ENTRIES].find_one({"_id": entry_id(account_id, seq), "owner": owner})
        return None if document is None else decode_entry(document)

    async def list_entries(self, where: Document, *, limit: int) -> list[Entry]:
        """Newest first. `where` is built by the calling service from typed values; it bounds `_id` to one account."""
        cursor = self._database.raw[ENTRIES].find(where, limit=limit).sort("_id", -1)
        return [decode_entry(document) async for document in cursor]
