"""The ledger service: commits commands, and reads accounts and entries."""

import asyncio
from collections.abc import Collection, Sequence

import msgspec

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.errors import GuerdonError
from guerdon.ledger.committer import AfterCommit, Committer
from guerdon.ledger.expiry import ExpiredLots, expired_lots
from guerdon.ledger.lots import last_of, negated, total
from guerdon.ledger.models import (
    SEQ_DIGITS,
    Account,
    Command,
    CommandOutcome,
    CommandResult,
    Entry,
    Lot,
    T,
    entry_id,
    transaction_id,
)
from guerdon.ledger.rehearsal import Rehearsal
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, decode_account, decode_entry
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
        after_commit: AfterCommit | None = None,
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
            after_commit=after_commit,
        )
        self.stats = self._committer.stats

    # --- commands ---------------------------------------------------------------------------------------------------

    async def submit(self, command: Command[T], *, dry_run: bool = False) -> CommandOutcome[T]:
        """Commit one command and return its outcome. A dry run returns the same outcome and writes nothing.

        Raises:
            GuerdonError: The refusal that `decide` raised.
            Retry: The state that the command was made from has changed; nothing was written.
            Overloaded: The queue is full, or the deadline passed before the command started; nothing was written.
            OutcomeUnknown: The deadline passed during the commit; repeat with the same key to learn the outcome.
            DatabaseUnavailable: No primary answered before the deadline; nothing was written.
        """
        return await (self.preview(command) if dry_run else self._committer.enqueue(command))

    async def submit_all(self, commands: Sequence[Command[T]], *, dry_run: bool = False) -> list[CommandResult[T]]:
        """Commit independent commands, in order where they share an account, and return the result of each.

        Raises:
            Overloaded: The queue has no room for all of them; nothing was written.
        """
        if dry_run:
            return await self.rehearsal().submit_all(commands)
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
        return await self.rehearsal().submit(command)

    def rehearsal(self) -> Rehearsal:
        """Return a series of dry runs, each of which sees the effects of those before it."""
        return Rehearsal(self._committer.store, self._clock, self.calendar, self._scale_of)

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

    async def find_entries(self, entry_ids: Collection[str]) -> dict[str, Entry]:
        """Return the stored entries with these ids, by id; ids without an entry are left out."""
        owners = sorted({entry.rpartition("#")[0].rpartition(":")[0] for entry in entry_ids})
        cursor = self._database.raw[ENTRIES].find({"_id": {"$in": sorted(entry_ids)}, "owner": {"$in": owners}})
        return {entry.id: entry async for document in cursor if (entry := decode_entry(document))}

    async def find_expired(self, account_id: str, since_ms: int) -> ExpiredLots:
        """Return the value of an account that has expired since a time, whether or not that is booked; without expiries that were reversed."""
        owner, now_ms = account_id.rpartition(":")[0], self._clock.now_ms()
        account = await self.get_account(account_id, owner)
        if account is None:
            return ExpiredLots(now_ms)
        # Entries that are newer than the account as read are not counted a second time.
        where = {
            "owner": owner,
            "kind": "expiry",
            "at": {"$gte": since_ms},
            "_id": {"$gt": entry_id(account_id, 0), "$lte": entry_id(account_id, account.seq)},
        }
        cursor = self._database.raw[ENTRIES].find(where, {"lots": 1}, hint="expired")
        found = {str(row["_id"]): msgspec.convert(row["lots"], tuple[Lot, ...]) async for row in cursor}
        names = {transaction_id(account_id, int(name[-SEQ_DIGITS:])): name for name in found}
        restored = (
            self._database.raw[REVERSALS].find({"_id": {"$in": sorted(names)}, "owner": owner}, {"reversed": 1}) if names else None
        )
        booked = [lot for moved in found.values() for lot in moved]
        if restored is not None:
            async for row in restored:
                moved = found[names[row["_id"]]]
                booked += last_of(negated(moved), -total(moved), 0, row["reversed"])
        return expired_lots(account, booked, now_ms, self.calendar)

    async def list_entries(self, where: Document, *, limit: int) -> list[Entry]:
        """Return entries, newest first. `where` must bound `_id` to one account, and consist of typed values."""
        cursor = self._database.raw[ENTRIES].find(where, limit=limit).sort("_id", -1)
        return [decode_entry(document) async for document in cursor]
