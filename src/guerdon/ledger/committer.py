"""Group commit: commands of concurrent requests share one read, one decision pass and one transaction.

A command waits in a bounded queue. The committer takes the commands that are queued, without waiting for more, reads all that the batch
needs in one snapshot, decides, and writes accounts, entries and documents in one MongoDB transaction. Under load, batches that touch
different accounts run at the same time. Accounts that other processes change too are committed in batches of their own. See
docs/adr/0002-group-commit.md and docs/adr/0010-turns.md.
"""

import asyncio
import random
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import DatabaseUnavailable, GuerdonError, Internal, OutcomeUnknown, Overloaded
from guerdon.ledger.contention import ContentionLeases
from guerdon.ledger.decide import WritePlan, decide_batch
from guerdon.ledger.kept_accounts import KeptAccounts, is_guarded
from guerdon.ledger.models import Account, Command, CommandOutcome, CommandResult, T
from guerdon.ledger.store import Store, WriteRaceLost
from guerdon.money import ScaleOf, scale_unknown

BEGIN_SHARE = 0.8
"""Share of its deadline after which a queued command is refused: a definite refusal is better than an unknown outcome."""
FURTHER_MIN = 64
FURTHER_SECONDS = 0.05
"""A second batch starts when at least `FURTHER_MIN` commands wait, or when the oldest batch in flight is older than `FURTHER_SECONDS`.

Small batches cost the API and the database more than they gain, but no command may wait for a commit that hangs.
"""
DEADLINE_CHECK_SECONDS = 0.1
"""Interval at which deadlines are checked. One timer serves all commands, because a timer for each costs more than its decision."""
LOOK_BATCHES = 16
"""Number of batches without a lease after which the leases of other processes are read."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
WRITE_CONFLICT = 112
RETRY_CODES = frozenset({WRITE_CONFLICT, 246, 251})
"""MongoDB error codes WriteConflict, SnapshotUnavailable and NoSuchTransaction."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.002, 0.1
AfterCommit = Callable[[Iterable[Account]], None]
"""Function that is called with the accounts that a commit has changed. It must not wait and not raise: the commit has succeeded."""


class _Pending:
    """A queued command and the future of its caller."""

    __slots__ = ("arrival", "begin_before", "command", "ends_at", "future", "taken")

    def __init__(
        self, command: Command[Any], future: asyncio.Future[CommandOutcome[Any]], arrival: int, begin_before: float, ends_at: float
    ) -> None:
        self.command = command
        self.arrival = arrival
        self.begin_before = begin_before
        self.ends_at = ends_at
        """Deadline in the time of the loop."""
        self.future = future
        self.taken = False

    def finish(self, result: CommandResult[Any]) -> None:
        if self.future.done():
            return
        if isinstance(result, GuerdonError):
            self.future.set_exception(result)
        else:
            self.future.set_result(result)


class _Batch:
    """Commands that are committed together; those on contended accounts in a batch of their own."""

    __slots__ = ("accounts", "commands", "contended", "pendings", "size_bytes")

    def __init__(self, *, contended: bool) -> None:
        self.contended = contended
        self.pendings: list[_Pending] = []
        self.commands: list[Command[Any]] = []
        self.accounts: set[str] = set()
        self.size_bytes = 0

    def add(self, pending: _Pending) -> None:
        pending.taken = True
        self.pendings.append(pending)
        self.commands.append(pending.command)
        self.accounts.update(pending.command.accounts)
        self.size_bytes += pending.command.size_bytes


def _arrival_of(pending: _Pending) -> int:
    return pending.arrival


class LedgerStats:
    """Counters for `/metrics`."""

    __slots__ = ("batches", "commands", "conflicts", "in_flight", "queued")

    def __init__(self) -> None:
        self.batches = self.commands = self.conflicts = self.in_flight = self.queued = 0


class Committer:
    """The command queue of one process, and its commits."""

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
        self._clock = clock
        self._after_commit = after_commit
        self._calendar = calendar
        self._scale_of = scale_of
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._deadline_seconds = deadline_ms / 1000
        self._ready: deque[_Pending] = deque()
        self._blocked: deque[_Pending] = deque()
        self._blocked_accounts: set[str] = set()
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._contended_in_flight = False
        self._uncontended_since: dict[asyncio.Task[None], float] = {}
        """Start of each batch in flight that uses no contention lease, in monotonic seconds, oldest first."""
        self._unfinished: dict[_Pending, None] = {}
        """Commands whose deadlines are checked, in order of arrival."""
        self._deadline_timer: asyncio.TimerHandle | None = None
        self._pump_scheduled = False
        self._arrivals = 0
        self._closing = False
        self._leases = ContentionLeases(database, clock, self._resume_leased)
        self._batches_since_look = 0
        self._kept = KeptAccounts(clock)
        self.store = Store(database, clock, self._deadline_seconds)
        self.stats = LedgerStats()

    def enqueue(self, command: Command[T]) -> asyncio.Future[CommandOutcome[T]]:
        """Queue one command. The future ends with the outcome or the error of the command.

        Raises:
            Overloaded: The queue is full; the command was not queued.
        """
        if self._closing or len(self._ready) + len(self._blocked) >= self._queue_max:
            raise Overloaded("the ledger's queue is full; nothing was done", retry_after_seconds=1)
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        begin_before = self._clock.monotonic() + self._deadline_seconds * BEGIN_SHARE
        pending = _Pending(command, loop.create_future(), self._arrivals, begin_before, loop.time() + self._deadline_seconds)
        self._unfinished[pending] = None
        if self._deadline_timer is None:
            self._deadline_timer = loop.call_later(DEADLINE_CHECK_SECONDS, self._expire_late)
        if self._must_wait(command):
            self._block(pending)
        else:
            self._ready.append(pending)
            self._schedule_pump(loop)
        return pending.future

    def enqueue_all(self, commands: Sequence[Command[T]]) -> list[asyncio.Future[CommandOutcome[T]]]:
        """Queue commands in order.

        Raises:
            Overloaded: The queue has no room for all of them; none was queued.
        """
        if self._closing or len(self._ready) + len(self._blocked) + len(commands) > self._queue_max:
            raise Overloaded("the ledger's queue is full; nothing was done", retry_after_seconds=1)
        return [self.enqueue(command) for command in commands]

    async def close(self) -> None:
        """Refuse new commands and wait for those that are queued or in flight."""
        self._closing = True
        while self._tasks or self._ready or self._blocked or self._leases.task is not None:
            under_way = set(self._tasks) if self._leases.task is None else self._tasks | {self._leases.task}
            if under_way:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)  # The pump is scheduled and has not run yet.

    def _must_wait(self, command: Command[Any]) -> bool:
        return not (self._busy.isdisjoint(command.accounts) and self._blocked_accounts.isdisjoint(command.accounts))

    def _block(self, pending: _Pending) -> None:
        """Put a command aside until a batch ends or a lease is granted; later commands on its accounts wait behind it."""
        self._blocked.append(pending)
        self._blocked_accounts.update(pending.command.accounts)

    def _schedule_pump(self, loop: asyncio.AbstractEventLoop) -> None:
        # One iteration of the loop later, so that requests that arrive together form one batch; it costs microseconds.
        if not self._pump_scheduled and self._has_slot():
            self._pump_scheduled = True
            loop.call_soon(self._pump)

    def _has_slot(self) -> bool:
        return self._has_uncontended_slot() or (bool(self._leases.by_account) and self._has_contended_slot())

    def _has_uncontended_slot(self) -> bool:
        in_flight = len(self._uncontended_since)
        if not in_flight or in_flight >= self._in_flight_max:
            return not in_flight
        oldest = next(iter(self._uncontended_since.values()))
        return len(self._ready) >= FURTHER_MIN or self._clock.monotonic() - oldest >= FURTHER_SECONDS

    def _has_contended_slot(self) -> bool:
        return not self._contended_in_flight and self._leases.is_usable

    def _pump(self) -> None:
        self._pump_scheduled = False
        while self._ready and self._has_slot():
            started = False
            for batch in self._take_batches():
                if batch.pendings:
                    self._start(batch)
                    started = True
            if not started:
                break
        self.stats.queued = len(self._ready) + len(self._blocked)
        self.stats.in_flight = len(self._tasks)

    def _take_batches(self) -> tuple[_Batch, _Batch]:
        """Return the next batch of uncontended accounts and the next batch of leased accounts; neither waits for the other.

        A command is put aside if one of its accounts is in flight, is in the other batch, or is contended and not leased.
        """
        uncontended, contended = _Batch(contended=False), _Batch(contended=True)
        uncontended_slot = self._has_uncontended_slot()
        now = self._clock.monotonic()
        while self._ready and max(len(uncontended.pendings), len(contended.pendings)) < self._batch_max:
            pending = self._ready[0]
            command = pending.command
            if (size := max(uncontended.size_bytes, contended.size_bytes)) and size + command.size_bytes > BATCH_BYTES_MAX:
                break
            self._ready.popleft()
            if pending.begin_before < now:
                self._expire(pending)
            if pending.future.done():
                continue
            names = self._leases.contended_of(command.accounts) if self._leases.by_account else ()
            batch, other = (contended, uncontended) if names else (uncontended, contended)
            slot = self._leases.is_open(names) and not self._contended_in_flight if names else uncontended_slot
            if slot and not self._must_wait(command) and other.accounts.isdisjoint(command.accounts):
                batch.add(pending)
            else:
                self._block(pending)
        return uncontended, contended

    def _start(self, batch: _Batch) -> None:
        self._busy |= batch.accounts
        if batch.contended:
            self._contended_in_flight = True
            self._leases.begin()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(batch))
        if not batch.contended:
            self._uncontended_since[task] = self._clock.monotonic()
            self._look_at_leases(loop)
            # A little more than the limit, because the loop's timers have a resolution of milliseconds.
            loop.call_later(FURTHER_SECONDS * 1.1, self._schedule_pump, loop)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._release(done, batch))

    def _look_at_leases(self, loop: asyncio.AbstractEventLoop) -> None:
        """Look at the leases of other processes once in `LOOK_BATCHES` batches without a lease."""
        self._batches_since_look += 1
        if self._batches_since_look >= LOOK_BATCHES and self._leases.task is None:
            self._batches_since_look = 0
            look = loop.create_task(self._leases.look())
            self._tasks.add(look)
            look.add_done_callback(self._tasks.discard)

    def _release(self, task: asyncio.Task[None], batch: _Batch) -> None:
        self._tasks.discard(task)
        self._uncontended_since.pop(task, None)
        self._busy -= batch.accounts
        if batch.contended:
            self._contended_in_flight = False
            self._leases.end()
        self._resume()

    def _resume_leased(self, granted: frozenset[str]) -> None:
        """Continue after a change of the lease; other processes have changed the accounts of a lease that was just granted."""
        self._kept.drop(granted)
        self._resume()

    def _resume(self) -> None:
        """Move all commands that were put aside back into the queue."""
        if self._blocked:
            # In order of arrival, so that no command overtakes an older one on the same account.
            self._ready = deque(sorted((*self._blocked, *self._ready), key=_arrival_of))
            self._blocked.clear()
            self._blocked_accounts.clear()
        self._pump()

    def _expire_late(self) -> None:
        """Answer the commands whose deadline has passed. All have the same time, so they are in the order of their deadlines."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        for pending in list(self._unfinished):
            if pending.ends_at > now and not pending.future.done():
                break
            del self._unfinished[pending]
            self._expire(pending)
        self._deadline_timer = loop.call_later(DEADLINE_CHECK_SECONDS, self._expire_late) if self._unfinished else None

    def _expire(self, pending: _Pending) -> None:
        if pending.future.done():
            return
        if pending.taken:
            error: GuerdonError = OutcomeUnknown(
                "the database did not answer before the deadline; repeat the request with the same key", retry_after_seconds=1
            )
        else:
            error = Overloaded("the deadline passed while the request was queued; nothing was done", retry_after_seconds=1)
        pending.future.set_exception(error)

    # --- the commit -------------------------------------------------------------------------------------------------

    async def _run(self, batch: _Batch) -> None:
        commands = batch.commands
        results: Sequence[CommandResult[Any] | None]
        try:
            results = await self._commit(commands)
        except PyMongoError as error:
            results = [_operations_error(error)] * len(commands)
        except Exception as error:  # Every waiting caller must get an answer, or it would hang.
            internal = Internal("unexpected error in the ledger")
            internal.__cause__ = error
            results = [internal] * len(commands)
        self.stats.batches += 1
        for pending, result in zip(batch.pendings, results, strict=True):
            if result is None:
                pending.taken = False
                self._block(pending)
            else:
                self.stats.commands += 1
                self._unfinished.pop(pending, None)
                pending.finish(result)

    async def _commit(self, commands: Sequence[Command[Any]]) -> Sequence[CommandResult[Any] | None]:
        """Read, decide and write. Repeat from the read when another process wrote first; keys and documents make that safe.

        The result is None for a command on an account that another process has changed meanwhile. Nothing was written for it, and it must
        wait for a contention lease, so that the other commands of the batch do not lose the next race with it.
        """
        deadline = self._clock.monotonic() + self._deadline_seconds
        backoff = BACKOFF_START_SECONDS
        results: list[CommandResult[Any] | None] = [None] * len(commands)
        indexes = list(range(len(commands)))
        lost_seqs: dict[str, int] | None = None
        certain = True
        while True:
            seqs: dict[str, int] = {}
            try:
                if lost_seqs is None and certain and await self._commit_on_kept(commands, results):
                    return results
                found = await self.store.read([commands[index] for index in indexes])
                seqs = {account.id: account.seq for account in found[0].values()}
                if lost_seqs is not None and certain:
                    indexes = self._put_off_moved(
                        commands, indexes, {name for name, seq in seqs.items() if seq != lost_seqs.get(name, 0)}
                    )
                chosen = [commands[index] for index in indexes]
                plan = decide_batch(chosen, found, self._clock.now_ms(), self._calendar, scale_of=self._scale_of)
                if plan.writes:
                    await self.store.write(plan)
                    self._note(plan)
                for index, result in zip(indexes, plan.results, strict=True):
                    results[index] = result
                return results
            except WriteRaceLost:
                pass
            except PyMongoError as error:
                if not _may_retry(error) or self._clock.monotonic() > deadline:
                    raise
                # If not certain, a command may have been applied, and its caller must not learn that nothing was written.
                certain = certain and _is_conflict(error)
            if self._clock.monotonic() > deadline:
                if certain:
                    raise Overloaded("too many conflicts with other processes; nothing was done", retry_after_seconds=1)
                raise OutcomeUnknown(
                    "the database did not confirm the commit; repeat the request with the same key", retry_after_seconds=1
                )
            self._kept.drop([name for index in indexes for name in commands[index].accounts])
            lost_seqs = seqs
            self.stats.conflicts += 1
            await asyncio.sleep(random.uniform(0, backoff))
            backoff = min(backoff * 2, BACKOFF_CAP_SECONDS)

    async def _commit_on_kept(self, commands: Sequence[Command[Any]], results: list[CommandResult[Any] | None]) -> bool:
        """Decide on accounts kept from earlier commits and write. Return False if nothing was written and the batch must be read.

        Raises:
            PyMongoError: As for a batch that was read; a conflict with another process returns False instead.
        """
        kept = self._kept.of(commands)
        if kept is None:
            return False
        try:
            found = await self.store.complete(commands, kept)
            plan = decide_batch(commands, found, self._clock.now_ms(), self._calendar, scale_of=self._scale_of)
            if not is_guarded(plan, commands, kept):
                self._kept.failed()
                return False
            await self.store.write(plan)
        except (WriteRaceLost, PyMongoError) as error:
            self._kept.drop([*kept])
            if isinstance(error, PyMongoError) and not _is_conflict(error):
                raise
            self._kept.failed()
            return False
        self._note(plan)
        self._kept.succeeded()
        results[:] = plan.results
        return True

    def _note(self, plan: WritePlan) -> None:
        """Take note of a plan that was committed."""
        self._kept.keep(plan)
        if self._after_commit is not None:
            self._after_commit(plan.moved.values())

    def _put_off_moved(self, commands: Sequence[Command[Any]], indexes: Sequence[int], moved: set[str]) -> list[int]:
        """Mark the accounts that another process has moved as contended; return the indexes of commands that do not depend on them."""
        if not moved:
            return list(indexes)
        self._leases.mark_contended(moved)
        kept: list[int] = []
        for index in indexes:
            accounts = commands[index].accounts
            if moved.isdisjoint(accounts):
                kept.append(index)
            else:
                moved.update(accounts)  # Later commands must not overtake it.
        return kept


def _may_retry(error: PyMongoError) -> bool:
    """Return True if nothing was written, or if a new read by key shows whether it was."""
    labels = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")
    if any(error.has_error_label(label) for label in labels):
        return True
    # The server is no longer primary, or the connection is lost. The read is outside a transaction and has no label.
    return isinstance(error, AutoReconnect) or (isinstance(error, OperationFailure) and error.code in RETRY_CODES)


def _is_conflict(error: PyMongoError) -> bool:
    """Return True if another transaction wrote first and nothing of this one was written."""
    return isinstance(error, OperationFailure) and error.code == WRITE_CONFLICT


def _operations_error(error: PyMongoError) -> GuerdonError:
    if error.has_error_label("UnknownTransactionCommitResult"):
        result: GuerdonError = OutcomeUnknown("the database did not confirm the commit; repeat the request with the same key")
    else:
        result = DatabaseUnavailable("the database does not answer; repeat the request with the same key", retry_after_seconds=1)
    result.__cause__ = error
    return result
