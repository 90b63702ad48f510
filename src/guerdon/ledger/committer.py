"""Group commit: commands of concurrent requests share one read, one decision pass and one transaction.

A command waits in a bounded queue. The committer takes what is there, never waiting for more, reads everything the batch needs in one
snapshot, lets the pure rules decide, and writes accounts, entries and documents in one MongoDB transaction. When many wait, batches that
touch different accounts run at the same time; accounts that other processes move as well are committed apart from the others. See
docs/adr/0002-group-commit.md and docs/adr/0010-turns.md.
"""

import asyncio
import random
from collections import deque
from collections.abc import Sequence
from typing import Any

from pymongo.errors import AutoReconnect, OperationFailure, PyMongoError

from guerdon.calendar import Calendar
from guerdon.clock import Clock
from guerdon.database import Database
from guerdon.errors import DatabaseUnavailable, GuerdonError, Internal, OutcomeUnknown, Overloaded
from guerdon.ledger.contention import ContentionLease, ContentionLeases
from guerdon.ledger.decide import decide_batch
from guerdon.ledger.models import Command, CommandOutcome, CommandResult, T
from guerdon.ledger.store import Store, WriteRaceLost

BEGIN_SHARE = 0.8
"""After this share of its deadline a command is not begun any more: a definite refusal is worth more than an unknown outcome."""
FURTHER_MIN = 64
FURTHER_SECONDS = 0.05
"""A batch begins beside another one when so many commands wait, or when the other one is late. Small batches cost the API and the database
more than they gain, but nobody is to wait for a commit that hangs."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
WRITE_CONFLICT = 112
RETRY_CODES = frozenset({WRITE_CONFLICT, 246, 251})
"""WriteConflict, SnapshotUnavailable, NoSuchTransaction."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.002, 0.1


class _Pending:
    """A command in the queue and the caller who waits for it."""

    __slots__ = ("arrival", "begin_before", "command", "future", "taken", "timer")

    def __init__(
        self, command: Command[Any], future: asyncio.Future[CommandOutcome[Any]], arrival: int, begin_before: float
    ) -> None:
        self.command = command
        self.arrival = arrival
        self.begin_before = begin_before
        self.future = future
        self.taken = False
        self.timer: asyncio.TimerHandle | None = None

    def finish(self, verdict: CommandResult[Any]) -> None:
        if self.timer is not None:
            self.timer.cancel()
        if self.future.done():
            return
        if isinstance(verdict, GuerdonError):
            self.future.set_exception(verdict)
        else:
            self.future.set_result(verdict)


class _Batch:
    """Commands that are committed together, and the turns that they use."""

    __slots__ = ("accounts", "leases", "pendings", "size_bytes")

    def __init__(self) -> None:
        self.pendings: list[_Pending] = []
        self.accounts: set[str] = set()
        self.leases: set[ContentionLease] = set()
        self.size_bytes = 0

    def add(self, pending: _Pending, turn: ContentionLease | None) -> None:
        pending.taken = True
        self.pendings.append(pending)
        self.accounts.update(pending.command.accounts)
        self.size_bytes += pending.command.size_bytes
        if turn is not None:
            self.leases.add(turn)


def _arrival_of(pending: _Pending) -> int:
    return pending.arrival


class LedgerStats:
    """Counters for `/metrics`: plain numbers, read by the collector."""

    __slots__ = ("batches", "commands", "conflicts", "in_flight", "queued")

    def __init__(self) -> None:
        self.batches = self.commands = self.conflicts = self.in_flight = self.queued = 0


class Committer:
    """The queue in front of the database, and the commits. One of them serves one process."""

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
        self._clock = clock
        self._calendar = calendar
        self._queue_max = queue_max
        self._batch_max = batch_max
        self._in_flight_max = in_flight_max
        self._deadline_seconds = deadline_ms / 1000
        self._ready: deque[_Pending] = deque()
        self._blocked: deque[_Pending] = deque()
        self._blocked_accounts: set[str] = set()
        self._busy: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._contended_in_flight = 0
        self._quiet_since: dict[asyncio.Task[None], float] = {}
        """When each batch of quiet accounts that is in flight was begun, the oldest first; monotonic seconds."""
        self._pump_scheduled = False
        self._arrivals = 0
        self._closing = False
        self._leases = ContentionLeases(database, clock, self._resume)
        self.store = Store(database, clock, self._deadline_seconds)
        self.stats = LedgerStats()

    def enqueue(self, commands: Sequence[Command[T]]) -> list[asyncio.Future[CommandOutcome[T]]]:
        """Queue commands in their order; each future ends with the outcome or with the error of its command.

        Raises:
            Overloaded: they do not all fit into the queue; nothing was done.
        """
        if self._closing or len(self._ready) + len(self._blocked) + len(commands) > self._queue_max:
            raise Overloaded("the ledger's queue is full; nothing was done", retry_after_seconds=1)
        return [self._enqueue(command) for command in commands]

    async def close(self) -> None:
        """Finish what is in flight or queued, then refuse."""
        self._closing = True
        while self._tasks or self._ready or self._blocked or self._leases.tasks:
            if under_way := self._tasks | self._leases.tasks:
                await asyncio.wait(under_way, return_when=asyncio.FIRST_COMPLETED)
            else:
                await asyncio.sleep(0)  # The pump is scheduled, but has not run yet.

    def _enqueue(self, command: Command[T]) -> asyncio.Future[CommandOutcome[T]]:
        loop = asyncio.get_running_loop()
        self._arrivals += 1
        begin_before = self._clock.monotonic() + self._deadline_seconds * BEGIN_SHARE
        pending = _Pending(command, loop.create_future(), self._arrivals, begin_before)
        pending.timer = loop.call_later(self._deadline_seconds, self._expire, pending)
        if self._must_wait(command):
            self._block(pending)
        else:
            self._ready.append(pending)
            self._schedule_pump(loop)
        return pending.future

    def _must_wait(self, command: Command[Any]) -> bool:
        return any(account in self._busy or account in self._blocked_accounts for account in command.accounts)

    def _block(self, pending: _Pending) -> None:
        """It steps aside until a batch is done or a turn begins, and so does all that comes after it on its accounts."""
        self._blocked.append(pending)
        self._blocked_accounts.update(pending.command.accounts)

    def _schedule_pump(self, loop: asyncio.AbstractEventLoop) -> None:
        # One turn of the loop later, so that requests which arrived together are taken together; an idle caller pays microseconds.
        if not self._pump_scheduled and self._has_slot():
            self._pump_scheduled = True
            loop.call_soon(self._pump)

    def _has_slot(self) -> bool:
        return self._has_quiet_slot() or (bool(self._leases) and self._has_contended_slot())

    def _has_quiet_slot(self) -> bool:
        in_flight = len(self._quiet_since)
        if not in_flight or in_flight >= self._in_flight_max:
            return not in_flight
        oldest = next(iter(self._quiet_since.values()))
        return len(self._ready) >= FURTHER_MIN or self._clock.monotonic() - oldest >= FURTHER_SECONDS

    def _has_contended_slot(self) -> bool:
        return not self._contended_in_flight and self._leases.any_open

    def _pump(self) -> None:
        self._pump_scheduled = False
        while self._ready and self._has_slot():
            batches = [batch for batch in self._take() if batch.pendings]
            for batch in batches:
                self._start(batch)
            if not batches:
                break
        self.stats.queued = len(self._ready) + len(self._blocked)
        self.stats.in_flight = len(self._tasks)

    def _take(self) -> tuple[_Batch, _Batch]:
        """Take the next batch of quiet accounts, and one of contended accounts whose turn it is; neither waits for the other.

        What touches an account that is in flight, in the other batch or not in turn steps aside.
        """
        quiet, contended = _Batch(), _Batch()
        quiet_slot = self._has_quiet_slot()
        now = self._clock.monotonic()
        while self._ready and max(len(quiet.pendings), len(contended.pendings)) < self._batch_max:
            pending = self._ready[0]
            command = pending.command
            if (size := max(quiet.size_bytes, contended.size_bytes)) and size + command.size_bytes > BATCH_BYTES_MAX:
                break
            self._ready.popleft()
            if pending.begin_before < now:
                self._expire(pending)
            if pending.future.done():
                continue
            turn = self._leases.lease_of(command.accounts) if self._leases else None
            mine, other = (quiet, contended) if turn is None else (contended, quiet)
            slot = quiet_slot if turn is None else self._leases.is_open(turn) and not self._contended_in_flight
            if slot and not self._must_wait(command) and other.accounts.isdisjoint(command.accounts):
                mine.add(pending, turn)
            else:
                self._block(pending)
        return quiet, contended

    def _start(self, batch: _Batch) -> None:
        self._busy |= batch.accounts
        self._contended_in_flight += bool(batch.leases)
        for turn in batch.leases:
            turn.begin()
        loop = asyncio.get_running_loop()
        task = loop.create_task(self._run(batch))
        if not batch.leases:
            self._quiet_since[task] = self._clock.monotonic()
            # A little later than late: the loop's timers count in whole milliseconds.
            loop.call_later(FURTHER_SECONDS * 1.1, self._schedule_pump, loop)
        self._tasks.add(task)
        task.add_done_callback(lambda done: self._release(done, batch))

    def _release(self, task: asyncio.Task[None], batch: _Batch) -> None:
        self._tasks.discard(task)
        self._quiet_since.pop(task, None)
        self._busy -= batch.accounts
        self._contended_in_flight -= bool(batch.leases)
        for turn in batch.leases:
            turn.end()
        self._resume()

    def _resume(self) -> None:
        """Look at everything that has stepped aside again."""
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

    async def _run(self, batch: _Batch) -> None:
        commands = [pending.command for pending in batch.pendings]
        verdicts: Sequence[CommandResult[Any] | None]
        try:
            verdicts = await self._commit(commands)
        except PyMongoError as error:
            verdicts = [_operational(error)] * len(commands)
        except Exception as error:  # A fault of ours must reach every waiting caller, or they would hang.
            fault = Internal("an unexpected fault in the ledger")
            fault.__cause__ = error
            verdicts = [fault] * len(commands)
        self.stats.batches += 1
        for pending, verdict in zip(batch.pendings, verdicts, strict=True):
            if verdict is None:
                pending.taken = False
                self._block(pending)
            else:
                self.stats.commands += 1
                pending.finish(verdict)

    async def _commit(self, commands: Sequence[Command[Any]]) -> Sequence[CommandResult[Any] | None]:
        """Read, decide, write; again from the read when another process was quicker. Commands are recognised by key or document.

        None is the verdict on a command whose account another process has moved meanwhile: nothing was written for it, and it is to
        wait for its turn, so that the other commands of the batch do not lose the next race with it.
        """
        deadline = self._clock.monotonic() + self._deadline_seconds
        backoff = BACKOFF_START_SECONDS
        verdicts: list[CommandResult[Any] | None] = [None] * len(commands)
        places = list(range(len(commands)))
        lost: dict[str, int] | None = None
        certain = True
        while True:
            seqs: dict[str, int] = {}
            try:
                found = await self.store.read([commands[place] for place in places])
                seqs = {account.id: account.seq for account in found[0].values()}
                if lost is not None and certain:
                    places = self._put_off(commands, places, {name for name, seq in seqs.items() if seq != lost.get(name, 0)})
                plan = decide_batch([commands[place] for place in places], found, self._clock.now_ms(), self._calendar)
                if plan.writes:
                    await self.store.write(plan)
                for place, verdict in zip(places, plan.results, strict=True):
                    verdicts[place] = verdict
                return verdicts
            except WriteRaceLost:
                pass
            except PyMongoError as error:
                if not _may_retry(error) or self._clock.monotonic() > deadline:
                    raise
                # Without this certainty a command may have been applied, and must not be told later that it was never begun.
                certain = certain and _is_conflict(error)
            if self._clock.monotonic() > deadline:
                if certain:
                    raise Overloaded("too many conflicts with other processes; nothing was done", retry_after_seconds=1)
                raise OutcomeUnknown("the database did not confirm the commit; repeat with the same key", retry_after_seconds=1)
            lost = seqs
            self.stats.conflicts += 1
            await asyncio.sleep(random.uniform(0, backoff))
            backoff = min(backoff * 2, BACKOFF_CAP_SECONDS)

    def _put_off(self, commands: Sequence[Command[Any]], places: Sequence[int], moved: set[str]) -> list[int]:
        """Declare contended what another process has moved; return the places of the commands that do not depend on it."""
        if not moved:
            return list(places)
        self._leases.mark_contended(moved)
        kept: list[int] = []
        for place in places:
            accounts = commands[place].accounts
            if moved.isdisjoint(accounts):
                kept.append(place)
            else:
                moved.update(accounts)  # What comes after it must not overtake it.
        return kept


def _may_retry(error: PyMongoError) -> bool:
    """True when nothing was written, or when reading again by key will tell whether it was."""
    labels = ("TransientTransactionError", "UnknownTransactionCommitResult", "RetryableWriteError")
    if any(error.has_error_label(label) for label in labels):
        return True
    # Not primary any more, or no connection: the read is outside of a transaction and carries no label.
    return isinstance(error, AutoReconnect) or (isinstance(error, OperationFailure) and error.code in RETRY_CODES)


def _is_conflict(error: PyMongoError) -> bool:
    """True when another transaction was quicker, and nothing of ours was written."""
    return isinstance(error, OperationFailure) and error.code == WRITE_CONFLICT


def _operational(error: PyMongoError) -> GuerdonError:
    if error.has_error_label("UnknownTransactionCommitResult"):
        unknown: GuerdonError = OutcomeUnknown("the database did not confirm the commit; repeat with the same key")
    else:
        unknown = DatabaseUnavailable("the database does not answer; repeat with the same key", retry_after_seconds=1)
    unknown.__cause__ = error
    return unknown
