"""Group commit: commands of concurrent requests share one read, one decision pass and one transaction.

A command waits in a bounded queue. The committer takes what is there, never waiting for more, reads everything the batch needs in one
snapshot, lets the pure rules decide, and writes accounts, entries and documents in one MongoDB transaction. Batches that touch different
accounts may run at the same time. See docs/adr/0002-group-commit.md.
"""

import asyncio
import random
from collections import deque
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec
from pymongo import IndexModel
from pymongo.errors import AutoReconnect, DuplicateKeyError, OperationFailure, PyMongoError

from guerdon.clock import Clock, to_datetime
from guerdon.database import MAJORITY_JOURNALED, PRIMARY, SNAPSHOT, Database, Document, Session
from guerdon.errors import DatabaseUnavailable, GuerdonError, Internal, OutcomeUnknown, Overloaded
from guerdon.ledger.models import Account, Command, Entry, Outcome, Refusal, Verdict
from guerdon.ledger.rules import Plan, decide_batch

ACCOUNTS, ENTRIES = "accounts", "entries"
REFUSAL_TTL_DAYS = 30
BEGIN_SHARE = 0.8
"""After this share of its deadline a command is not begun any more: a definite refusal is worth more than an unknown outcome."""
BATCH_BYTES_MAX = 8 * 1024 * 1024
READ_ROWS_MAX = 100_000
RETRY_CODES = frozenset({112, 246, 251})
"""WriteConflict, SnapshotUnavailable, NoSuchTransaction."""
BACKOFF_START_SECONDS, BACKOFF_CAP_SECONDS = 0.002, 0.1
INDEXES: dict[str, list[IndexModel]] = {
    ACCOUNTS: [IndexModel([("owner", 1)], name="owner")],
    ENTRIES: [
        IndexModel([("owner", 1), ("once", 1)], name="once", unique=True, partialFilterExpression={"once": {"$exists": True}}),
        # Only refusals have the field, so an entry pays nothing for this index.
        IndexModel(
            [("expires_at", 1)], name="expiry", expireAfterSeconds=0, partialFilterExpression={"expires_at": {"$exists": True}}
        ),
    ],
}
_BYTES = (bytes,)


class _LostRace(Exception):
    """Another process has moved an account or used a key since the read; nothing was written."""


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
        self, database: Database, clock: Clock, *, queue_max: int, batch_max: int, in_flight_max: int, deadline_ms: int
    ) -> None:
        self._database = database
        self._clock = clock
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
        cursor = self._accounts.find({"owner": owner}, limit=limit).sort("_id")
        return [decode_account(document) async for document in cursor]

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
                    await self._write(plan)
                return plan.verdicts
            except (_LostRace, DuplicateKeyError):
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
        accounts, once, documents = await self._read(commands)
        return decide_batch(commands, accounts, once, documents, self._clock.now_ms())

    async def _read(
        self, commands: Sequence[Command]
    ) -> tuple[dict[str, Account], dict[bytes, Entry | Refusal], dict[tuple[str, str], Document]]:
        """Fetch everything the batch needs in one round trip, from one majority-committed snapshot."""
        owners = sorted({owner for command in commands for owner in command.owners})
        account_ids = sorted({account for command in commands for account in command.accounts})
        marks = sorted({mark for command in commands for mark in command.marks})
        wanted: dict[str, set[str]] = {}
        for command in commands:
            for ref in command.documents:
                wanted.setdefault(ref.collection, set()).add(ref.id)
        pipeline: list[Document] = [{"$match": {"_id": {"$in": account_ids}, "owner": {"$in": owners}}}]
        if marks:
            pipeline.append(_union(ENTRIES, {"owner": {"$in": owners}, "once": {"$in": marks}}))
        pipeline.extend(_union(name, {"_id": {"$in": sorted(ids)}}, tag=name) for name, ids in wanted.items())
        reply = await self._database.raw.command(
            {
                "aggregate": ACCOUNTS,
                "pipeline": pipeline,
                "cursor": {"batchSize": READ_ROWS_MAX},
                "readConcern": {"level": "snapshot"},
                "maxTimeMS": int(self._deadline_seconds * 1000),
            },
        )
        return _sort_rows(await self._all_rows(reply["cursor"]))

    async def _all_rows(self, cursor: Document) -> list[Document]:
        """A first reply holds 16 MiB; the rest of a larger read has to be asked for."""
        rows: list[Document] = cursor["firstBatch"]
        while cursor["id"]:
            reply = await self._database.raw.command({"getMore": cursor["id"], "collection": ACCOUNTS})
            cursor = reply["cursor"]
            rows.extend(cursor["nextBatch"])
        return rows

    async def _write(self, plan: Plan) -> None:
        """Write the plan in one transaction.

        An account is updated by `_id` alone: the condition "`seq` is still what was read" is carried by the entries' `_id`. Whoever moved
        the account has inserted entry `seq + 1`, so inserting ours again aborts the whole transaction. Measured: the conditional update
        costs the server twice as much.
        """
        async with self._database.client.start_session() as session:
            await session.start_transaction(SNAPSHOT, MAJORITY_JOURNALED, PRIMARY)
            try:
                rows = [encode(entry) for entry in plan.entries]
                rows += [self._encode_refusal(refusal) for refusal in plan.refusals]
                await self._insert(ENTRIES, rows, session)
                opened = [plan.moved.get(account.id, account) for account in plan.opened.values()]
                await self._insert(ACCOUNTS, [encode(account) for account in opened], session)
                moved = [account for account in plan.moved.values() if account.id not in plan.opened]
                await self._update(moved, session)
                for collection, documents in plan.inserts.items():
                    await self._insert(collection, documents, session)
            except BaseException:
                await session.abort_transaction()
                raise
            await self._commit_transaction(session)

    async def _commit_transaction(self, session: Session) -> None:
        """Commit; an unknown result repeats the commit and nothing else (driver specification, "Convenient API for transactions")."""
        deadline = self._clock.monotonic() + self._deadline_seconds
        while True:
            try:
                await session.commit_transaction()
                return
            except PyMongoError as error:
                if not error.has_error_label("UnknownTransactionCommitResult") or self._clock.monotonic() > deadline:
                    raise

    async def _insert(self, collection: str, documents: list[Document], session: Session) -> None:
        if documents:
            await self._write_command({"insert": collection, "documents": documents, "ordered": True}, len(documents), session)

    async def _update(self, accounts: Iterable[Account], session: Session) -> None:
        updates = [
            {
                # On a sharded cluster the owner routes the update; on a replica set it would only slow it down.
                "q": {"_id": account.id, "owner": account.owner} if self._database.sharded else {"_id": account.id},
                "u": {"$set": {"balance": account.balance, "held": account.held, "seq": account.seq, "head": account.head}},
            }
            for account in accounts
        ]
        if updates:
            await self._write_command({"update": ACCOUNTS, "updates": updates, "ordered": True}, len(updates), session)

    async def _write_command(self, command: Document, expected: int, session: Session) -> None:
        reply: dict[str, Any] = await self._database.raw.command(command, session=session)
        if reply.get("writeErrors") or reply["n"] != expected:
            raise _LostRace

    def _encode_refusal(self, refusal: Refusal) -> Document:
        expires_at = to_datetime(self._clock.now_ms() + REFUSAL_TTL_DAYS * 86_400_000)
        return {**encode(refusal), "expires_at": expires_at}


def encode(value: msgspec.Struct) -> Document:
    """Return the stored form: `_id` for `id`, and no fields that say nothing."""
    document: Document = msgspec.to_builtins(value, builtin_types=_BYTES)
    return {name: item for name, item in document.items() if item is not None}


def decode_account(document: Document) -> Account:
    return msgspec.convert(document, Account, builtin_types=_BYTES)


def decode_entry(document: Document) -> Entry:
    return msgspec.convert(document, Entry, builtin_types=_BYTES)


def _union(collection: str, match: Document, tag: str | None = None) -> Document:
    stages: list[Document] = [{"$match": match}]
    if tag is not None:
        stages.append({"$addFields": {"_collection": tag}})
    return {"$unionWith": {"coll": collection, "pipeline": stages}}


def _sort_rows(
    rows: Iterable[Document],
) -> tuple[dict[str, Account], dict[bytes, Entry | Refusal], dict[tuple[str, str], Document]]:
    accounts: dict[str, Account] = {}
    once: dict[bytes, Entry | Refusal] = {}
    documents: dict[tuple[str, str], Document] = {}
    for row in rows:
        if "_collection" in row:
            documents[row.pop("_collection"), row["_id"]] = row
        elif "floor" in row:
            accounts[row["_id"]] = decode_account(row)
        elif "balance_after" in row:
            entry = decode_entry(row)
            for mark in entry.once or ():
                once[mark] = entry
        else:
            refusal = msgspec.convert(row, Refusal, builtin_types=_BYTES)
            once[refusal.once[0]] = refusal
    return accounts, once, documents


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
