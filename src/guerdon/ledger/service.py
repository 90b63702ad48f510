"""Group commit: commands of concurrent requests share one read, one decision pass and one transaction.

A command waits in a bounded queue. The committer takes what is there, never waiting for more, reads everything the batch needs in one
snapshot, lets the pure rules decide, and writes accounts, entries and documents in one MongoDB transaction. Batches that touch different
accounts may run at the same time. See docs/adr/0002-group-commit.md.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence

from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure, PyMongoError

from guerdon.clock import Clock
from guerdon.database import Database, Document
from guerdon.errors import DatabaseUnavailable, GuerdonError, Internal, OutcomeUnknown, Overloaded
from guerdon.ledger.limits import Calendar
from guerdon.ledger.models import Account, Command, Entry, Outcome, Verdict, entry_id
from guerdon.ledger.rules import Plan, decide_batch
from guerdon.ledger.store import ACCOUNTS, ENTRIES, LostRace, Store, decode_account, decode_entry

BEGIN_SHARE = 0.8
"""After this share of its deadline a command is not begun any more: a definite refusal is worth more than an unknown outcome."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
RETRY_CODES = frozenset({112, 246, 251})
"""WriteConflict, SnapshotUnavailable, NoSuchTransaction."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.002, 0.1


class _Pending:
    """A command in the queue and the caller who waits for it."""

    __slots__ = ("arrival", "begin_before", "command", "future", "taken", "timer")

    def __init__(self, command: Command, future: asyncio.Future[Outcome], arrival: int, begin_before: float) -> None:
        self.command = command
        self.arrival = arrival
        self.begin_before = begin_before
        self.future = future
        self.taken = False
        self.timer: asyncio.TimerHandle | None = None


def _arrival_of(pending: _Pending) -> int:
    return pending.arrival


class LedgerStats:
    """Counters for `/metrics`: plain numbers, read by the collector."""

    __slots__ = ("batches", "commands", "conflicts", "in_flight", "queued")

    def __init__(self) -> None:
        self.batches = self.commands = self.conflicts = self.in_flight = self.queued = 0


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
        self._database = database
        self._clock = clock
        self.calendar = calendar
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._deadline_seconds = deadline_ms / 1000
        self._ready: deque[_Pending] = deque()
        self._blocked: deque[_Pending] = deque()
        self._blocked_accounts: set[str] = set()
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._pump_scheduled = False
        self._arrivals = 0
        self._closing = False
        self.stats = LedgerStats()
        self._store = Store(database, clock, self._deadline_seconds)
        self._accounts = database.raw[ACCOUNTS]

    # --- commands ---------------------------------------------------------------------------------------------------

    async def submit(self, command: Command) -> Outcome:
        """Commit one command and return what it did.

        Raises:
            GuerdonError: the refusal that `decide` raised.
            Overloaded: the queue is full, or the deadline passed before the command was begun; nothing was done.
            OutcomeUnknown: the deadline passed in the middle; repeat with the same key to learn the outcome.
            DatabaseUnavailable: no primary within the deadline; nothing was done.
        """
        self._reserve(1)
        return await self._enqueue(command)

    async def submit_all(self, commands: Sequence[Command]) -> list[Verdict]:
        """Commit many independent commands, in order where they share an account; each has its own verdict.

        Raises:
            Overloaded: they do not all fit into the queue; nothing was done.
        """
        self._reserve(len(commands))
        results = await asyncio.gather(*map(self._enqueue, commands), return_exceptions=True)
        verdicts: list[Verdict] = []
        for result in results:
            if isinstance(result, BaseException) and not isinstance(result, GuerdonError):
                raise result
            verdicts.append(result)
        return verdicts

    async def preview(self, command: Command) -> Outcome:
        """Read and decide like `submit`, and write nothing.

        Raises:
            GuerdonError: the refusal that `decide` raised.
        """
        try:
            plan = await self._decide([command])
        except PyMongoError as error:
            raise DatabaseUnavailable("the database does not answer", retry_after_seconds=1) from error
        verdict = plan.verdicts[0]
        if isinstance(verdict, GuerdonError):
            raise verdict
        return verdict

    async def close(self) -> None:
        """Finish what is in flight or queued, then refuse."""
        self._closing = True
        while self._tasks or self._ready or self._blocked:
            if self._tasks:
                await asyncio.wait(self._tasks)
            else:
                await asyncio.sleep(0)  # The pump is scheduled, but has not run yet.

    # --- queries ----------------------------------------------------------------------------------------------------

    async def get_account(self, account_id: str, owner: str) -> Account | None:
        document = await self._accounts.find_one({"_id": account_id, "owner": owner})
        return None if document is None else decode_account(document)

    async def list_accounts(self, owner: str, *, limit: int = 100) -> list[Account]:
        # Their ids begin with the owner's: they lie together, in this order, and need no index of their own.
        where = {"_id": {"$gte": f"{owner}:", "$lt": f"{owner};"}, "owner": owner}
        cursor = self._accounts.find(where, limit=limit).sort("_id")
        return [decode_account(document) async for document in cursor]

    async def get_entry(self, account_id: str, seq: int, owner: str) -> Entry | None:
        document = await self._database.raw[ENTRIES].find_one({"_id": entry_id(account_id, seq), "owner": owner})
        return None if document is None else decode_entry(document)

    async def list_entries(self, where: Document, *, limit: int) -> list[Entry]:
        """Newest first. `where` is built by the calling service from typed values; it bounds `_id` to one account."""
        cursor = self._database.raw[ENTRIES].find(where, limit=limit).sort("_id", -1)
        return [decode_entry(document) async for document in cursor]

    # --- the queue --------------------------------------------------------------------------------------------------

    def _reserve(self, count: int) -> None:
        if self._closing or len(self._ready) + len(self._blocked) + count > self._queue_max:
            raise Overloaded("the ledger's queue is full; nothing was done", retry_after_seconds=1)

    def _enqueue(self, command: Command) -> asyncio.Future[Outcome]:
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        begin_before = self._clock.monotonic() + self._deadline_seconds * BEGIN_SHARE
        pending = _Pending(command, loop.create_future(), self._arrivals, begin_before)
        pending.timer = loop.call_later(self._deadline_seconds, self._expire, pending)
        touched = command.accounts
        if any(account in self._busy or account in self._blocked_accounts for account in touched):
            self._blocked.append(pending)
            self._blocked_accounts.update(touched)
        else:
            self._ready.append(pending)
            self._schedule_pump(loop)
        return pending.future

    def _schedule_pump(self, loop: asyncio.AbstractEventLoop) -> None:
        # One turn of the loop later, so that requests which arrived together are taken together; an idle caller pays microseconds.
        if not self._pump_scheduled and len(self._tasks) < self._in_flight_max:
            self._pump_scheduled = True
            loop.call_soon(self._pump)

    def _pump(self) -> None:
        self._pump_scheduled = False
        while self._ready and len(self._tasks) < self._in_flight_max:
            batch = self._take()
            if not batch:
                break
            touched = {account for pending in batch for account in pending.command.accounts}
            self._busy |= touched
            task = asyncio.get_running_loop().create_task(self._run(batch))
            self._tasks.add(task)
            task.add_done_callback(lambda done, touched=touched: self._release(done, touched))
        self.stats.queued = len(self._ready) + len(self._blocked)
        self.stats.in_flight = len(self._tasks)

    def _take(self) -> list[_Pending]:
        """Take the next batch; what touches an account in flight steps aside, and so does all that came after it there."""
        batch: list[_Pending] = []
        size_bytes = 0
        now = self._clock.monotonic()
        while self._ready and len(batch) < self._batch_max:
            pending = self._ready[0]
            command = pending.command
            if size_bytes and size_bytes + command.size_bytes > BATCH_BYTES_MAX:
                break
            self._ready.popleft()
            if pending.begin_before < now:
                self._expire(pending)
            if pending.future.done():
                continue
            if any(account in self._busy or account in self._blocked_accounts for account in command.accounts):
                self._blocked.append(pending)
                self._blocked_accounts.update(command.accounts)
                continue
            pending.taken = True
            size_bytes += command.size_bytes
            batch.append(pending)
        return batch

    def _release(self, task: asyncio.Task[None], touched: set[str]) -> None:
        self._tasks.discard(task)
        self._busy -= touched
        if self._blocked:
            # Back into the order of arrival, or a command could overtake an older one on the same account.
            self._ready = deque(sorted((*self._blocked, *self._ready), key=_arrival_of))
            self._blocked.clear()
            self._blocked_accounts.clear()
        self._pump()

    def _expire(self, pending: _Pending) -> None:
        if pending.future.done():
            return
        if pending.taken:
            error: GuerdonError = OutcomeUnknown(
                "the deadline passed before the database answered; repeat with the same key", retry_after_seconds=1
            )
        else:
            error = Overloaded("the deadline passed in the queue; nothing was done", retry_after_seconds=1)
        pending.future.set_exception(error)

    # --- the commit -------------------------------------------------------------------------------------------------

    async def _run(self, batch: list[_Pending]) -> None:
        try:
            verdicts = await self._commit([pending.command for pending in batch])
        except PyMongoError as error:
            verdicts = [_operational(error)] * len(batch)
        except Exception as error:  # A fault of ours must reach every waiting caller, or they would hang.
            fault = Internal("an unexpected fault in the ledger")
            fault.__cause__ = error
            verdicts = [fault] * len(batch)
        self.stats.batches += 1
        self.stats.commands += len(batch)
        for pending, verdict in zip(batch, verdicts, strict=True):
            if pending.timer is not None:
                pending.timer.cancel()
            if pending.future.done():
                continue
            if isinstance(verdict, GuerdonError):
                pending.future.set_exception(verdict)
            else:
                pending.future.set_result(verdict)

    async def _commit(self, commands: Sequence[Command]) -> Sequence[Verdict]:
        """Read, decide, write; again from the read when another process was quicker. Commands are recognised by key or document."""
        deadline = self._clock.monotonic() + self._deadline_seconds
        backoff = BACKOFF_START_SECONDS
        while True:
            try:
                plan = await self._decide(commands)
                if plan.writes:
                    await self._store.write(plan)
                return plan.verdicts
            except (LostRace, DuplicateKeyError):
                pass
            except PyMongoError as error:
                if not _may_retry(error) or self._clock.monotonic() > deadline:
                    raise
            if self._clock.monotonic() > deadline:
                raise Overloaded("too many conflicts with other processes; nothing was done", retry_after_seconds=1)
            self.stats.conflicts += 1
            await asyncio.sleep(random.uniform(0, backoff))
            backoff = min(backoff * 2, BACKOFF_CAP_SECONDS)

    async def _decide(self, commands: Sequence[Command]) -> Plan:
        return decide_batch(commands, await self._store.read(commands), self._clock.now_ms(), self.calendar)


def _may_retry(error: PyMongoError) -> bool:
    """True when nothing was written, or when reading again by key will tell whether it was."""
    labels = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")
    if any(error.has_error_label(label) for label in labels):
        return True
    # Not primary any more, or no connection: the read is outside of a transaction and carries no label.
    return isinstance(error, AutoReconnect) or (isinstance(error, OperationFailure) and error.code in RETRY_CODES)


def _operational(error: PyMongoError) -> GuerdonError:
    if error.has_error_label("UnknownTransactionCommitResult"):
        unknown: GuerdonError = OutcomeUnknown("the database did not confirm the commit; repeat with the same key")
    else:
        unknown = DatabaseUnavailable("the database does not answer; repeat with the same key", retry_after_seconds=1)
    unknown.__cause__ = error
    return unknown
