"""The ledger service: commits commands, and reads accounts and entries."""

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
from guerdon.money import ScaleOf, scale_unknown


class Ledger:
    """The only writer of `accounts` and `entries`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        calendar: Calendar,
        *,
        scale_of: ScaleOf = scale_unknown,
        queue_max: int,
        batch_max: int,
        in_flight_max: int,
        deadline_ms: int,
    ) -> None:
        self.calendar = calendar
        self._scale_of = scale_of
        self._database = database
        self._clock = clock
        self._accounts = database.raw[ACCOUNTS]
        self._committer = Committer(
            database,
            clock,
            calendar,
            scale_of=scale_of,
            queue_max=queue_max,
            batch_max=batch_max,
            in_flight_max=in_flight_max,
            deadline_ms=deadline_ms,
        )
        self.stats = self._committer.stats

    # --- commands ---------------------------------------------------------------------------------------------------

    async def submit(self, command: Command[T]) -> CommandOutcome[T]:
        """Commit one command and return its outcome.

        Raises:
            GuerdonError: The refusal that `decide` raised.
            Retry: The state that the command was made from has changed; nothing was written.
            Overloaded: The queue is full, or the deadline passed before the command started; nothing was written.
            OutcomeUnknown: The deadline passed during the commit; repeat with the same key to learn the outcome.
            DatabaseUnavailable: No primary answered before the deadline; nothing was written.
        """
        return await self._committer.enqueue(command)

    async def submit_all(self, commands: Sequence[Command[T]]) -> list[CommandResult[T]]:
        """Commit independent commands, in order where they share an account, and return the result of each.

        Raises:
            Overloaded: The queue has no room for all of them; nothing was written.
        """
        results = await asyncio.gather(*self._committer.enqueue_all(commands), return_exceptions=True)
        outcomes: list[CommandResult[T]] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, GuerdonError):
                raise result
            outcomes.append(result)
        return outcomes

    async def preview(self, command: Command[T]) -> CommandOutcome[T]:
        """Return the outcome that `submit` would have, and write nothing.

        Raises:
            GuerdonError: The refusal that `decide` raised.
            Retry: The state that the command was made from has changed.
            DatabaseUnavailable: The database did not answer.
        """
        try:
            found = await self._committer.store.read([command])
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=1) from error
        [result] = decide_batch([command], found, self._clock.now_ms(), self.calendar, scale_of=self._scale_of).results
        if isinstance(result, GuerdonError):
            try:
                raise result
            finally:
                del result  # The traceback of the error refers to this frame: a reference cycle until a collection.
        return result

    async def close(self) -> None:
        """Refuse new commands and wait for those that are queued or in flight."""
        await self._committer.close()

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_account(self, account_id: str, owner: str) -> Account | None:
        document = await self._accounts.find_one({"_id": account_id, "owner": owner})
        return None if document is None else decode_account(document)

    async def find_accounts(self, account_ids: Collection[str]) -> dict[str, Account]:
        """Return the stored accounts with these ids, by id; ids without an account are left out."""
        owners = sorted({account_id.rpartition(":")[0] for account_id in account_ids})
        cursor = self._accounts.find({"_id": {"$in": sorted(account_ids)}, "owner": {"$in": owners}})
        return {account.id: account async for document in cursor if (account := decode_account(document))}

    async def find_existing_ids(self, account_ids: Collection[str]) -> set[str]:
        """Return the ids of the accounts that exist."""
        owners = sorted({account_id.rpartition(":")[0] for account_id in account_ids})
        cursor = self._accounts.find({"_id": {"$in": sorted(account_ids)}, "owner": {"$in": owners}}, {"_id": 1})
        return {str(document["_id"]) async for document in cursor}

    async def list_accounts(self, owner: str, *, limit: int = 100) -> list[Account]:
        """Return a member's wallets, ordered by asset."""
        # The ids begin with the owner's id, so the `_id` index serves this query. An asset code begins with a capital letter; the
        # names of counting accounts do not.
        where = {"_id": {"$gte": f"{owner}:A", "$lt": f"{owner}:["}, "owner": owner}
        cursor = self._accounts.find(where, limit=limit).sort("_id")
        return [decode_account(document) async for document in cursor]

    async def get_entry(self, account_id: str, seq: int, owner: str) -> Entry | None:
        document = await self._database.raw[ENTRIES].find_one({"_id": entry_id(account_id, seq), "owner": owner})
        return None if document is None else decode_entry(document)

    async def get_entries(self, entry_ids: Sequence[str]) -> list[Entry]:
        """Return the stored entries with these ids, in the given order; ids without an entry are left out."""
        owners = sorted({each.partition(":")[0] for each in entry_ids})
        cursor = self._database.raw[ENTRIES].find({"_id": {"$in": sorted(entry_ids)}, "owner": {"$in": owners}})
        found = {entry.id: entry async for document in cursor if (entry := decode_entry(document))}
        return [found[each] for each in entry_ids if each in found]

    async def list_entries(self, where: Document, *, limit: int) -> list[Entry]:
        """Return entries, newest first. `where` must bound `_id` to one account, and consist of typed values."""
        cursor = self._database.raw[ENTRIES].find(where, limit=limit).sort("_id", -1)
        return [decode_entry(document) async for document in cursor]
