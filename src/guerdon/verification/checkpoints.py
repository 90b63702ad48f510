"""Signed checkpoints of the ledger. They reveal the later removal of entries, even if all traces in the database are removed as well.

A checkpoint counts the accounts and entries up to a time, and contains a digest over the newest hash of every account. It is a JWS (RFC 7515,
Ed25519), contains the hash of the previous checkpoint, and is stored in the database and in the checkpoint file, if one is configured.
docs/verify.md describes the format.
"""

import hashlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field
from pymongo import IndexModel

from guerdon.clock import Clock, rfc3339
from guerdon.database import Database, Document, DuplicateKeyError
from guerdon.ledger.models import Account, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.checkpoint_file import Line, append_missing, read_lines
from guerdon.verification.report import VerificationReport
from guerdon.verification.signing import BadSignature, CheckpointKeys

__all__ = ["Checkpoint", "CheckpointKeys", "LedgerChanged", "Recount", "check_chain", "write_checkpoint"]

CHECKPOINTS = "checkpoints"
INDEXES: dict[str, list[IndexModel]] = {CHECKPOINTS: []}
"""No secondary index: checkpoints are read in the order of their numbers."""
AGE_MS = 90_000
"""Age of the covered time when a checkpoint is made. All commands that were decided by that time have ended: the server aborts a transaction after
at most 60 seconds, and the clocks of the machines may differ by 30 seconds."""
PAGE_ACCOUNTS = 1000
_canonical = msgspec.json.Encoder()


class LedgerChanged(Exception):
    """The ledger does not agree with a signed checkpoint, so no further checkpoint is signed."""


class Checkpoint(Struct, frozen=True):
    """Signed payload of a checkpoint. Times are milliseconds since the epoch."""

    number: int
    """Consecutive number, from 1."""
    made_at: int
    as_of: int
    """Time up to which entries are covered."""
    accounts: int
    """Number of accounts with an entry up to `as_of`."""
    entries: int
    """Number of entries up to `as_of`."""
    digest: str
    """SHA-256 chain over the covered accounts, as hex; see `Recount.add`."""
    previous: str | None
    """SHA-256 of the previous checkpoint in its compact form, as hex; None for the first."""


class _Stored(Struct, frozen=True):
    number: int = field(name="_id")
    jws: str
    made_at: int


class Recount(Struct):
    """Count and digest of the ledger as of a time, computed account by account in the order of their ids."""

    number: int
    """Number of the checkpoint."""
    as_of: int
    """Time up to which entries are counted, in milliseconds since the epoch."""
    signed: Checkpoint | None = None
    """Checkpoint that the result must equal; None for a new checkpoint."""
    accounts: int = 0
    entries: int = 0
    digest: bytes = bytes(32)

    def add(self, account: "Account | AccountSnapshot", seq: int, head: bytes) -> None:
        """Add an account whose newest entry up to `as_of` has number `seq` and hash `head`. An account without entries (0) is not counted."""
        if seq > 0:
            line = _canonical.encode([account.id, account.kind, account.opened_at, seq, head.hex()])
            self.accounts += 1
            self.entries += seq
            self.digest = hashlib.sha256(self.digest + line).digest()

    def fault(self) -> str | None:
        """Return a description of the difference from the signed checkpoint, or None."""
        signed = self.signed
        if signed is None:
            return None
        counts = f"{signed.accounts} accounts and {signed.entries} entries were signed as of {rfc3339(self.as_of)}"
        if (self.accounts, self.entries) != (signed.accounts, signed.entries):
            return f"{counts}; the ledger has {self.accounts} and {self.entries}"
        return None if self.digest.hex() == signed.digest else f"{counts}; the ledger has the same numbers, but another digest"

    def check(self, report_violation: ReportViolation) -> None:
        """Report the difference from the signed checkpoint, if any."""
        fault = self.fault()
        if fault is not None:
            report_violation("CP", f"checkpoint {self.number}", fault)


class AccountSnapshot(Struct, frozen=True):
    """Fields of an account row that a checkpoint needs."""

    id: str = field(name="_id")
    kind: str
    seq: int
    head: bytes
    opened_at: int
    at: int


# --- writing ------------------------------------------------------------------------------------------------------------


async def write_checkpoint(database: Database, clock: Clock, keys: CheckpointKeys, file: Path | None) -> int:
    """Sign a checkpoint of the ledger as of `AGE_MS` ago. Return 1, or 0 if another process has signed one in the meantime.

    Raises:
        BooksChanged: the ledger does not agree with the previous checkpoint, or the file has a checkpoint that the database lacks.
    """
    newest = await database.raw[CHECKPOINTS].find_one({}, sort=[("_id", -1)])
    previous = None if newest is None else _decode_stored(newest, keys)
    await _export(database, file)
    made_at = clock.now_ms()
    recount = Recount(1 if previous is None else previous.number + 1, made_at - AGE_MS)
    if previous is not None and recount.as_of <= previous.as_of:
        return 0
    previous_recounts = [] if previous is None else [Recount(previous.number, previous.as_of, previous)]
    await _count_ledger(database, [*previous_recounts, recount])
    for earlier in previous_recounts:
        if (fault := earlier.fault()) is not None:
            raise LedgerChanged(f"checkpoint {earlier.number}: {fault}; run `guerdon verify`")
    made = Checkpoint(
        number=recount.number,
        made_at=made_at,
        as_of=recount.as_of,
        accounts=recount.accounts,
        entries=recount.entries,
        digest=recount.digest.hex(),
        previous=None if newest is None else _hash(newest["jws"]),
    )
    stored = _Stored(made.number, keys.sign(_canonical.encode(made)), made_at)
    try:
        await database.raw[CHECKPOINTS].insert_one(msgspec.to_builtins(stored))
    except DuplicateKeyError:
        return 0
    await _export(database, file)
    return 1


def _decode_stored(document: Document, keys: CheckpointKeys) -> Checkpoint:
    try:
        return msgspec.json.decode(keys.read(document["jws"]), type=Checkpoint)
    except (BadSignature, KeyError, msgspec.MsgspecError) as error:
        raise LedgerChanged(f"checkpoint {document['_id']} is not signed by a known key: {error}") from None


async def _export(database: Database, file: Path | None) -> None:
    """Append the checkpoints of the database that the file lacks."""
    if file is None:
        return
    cursor = database.raw[CHECKPOINTS].find({}).sort("_id")
    lines = [Line(document["_id"], document["jws"]) async for document in cursor]
    fault = append_missing(file, lines)
    if fault is not None:
        raise LedgerChanged(fault)


async def _count_ledger(database: Database, recounts: Sequence[Recount]) -> None:
    # A write that changes nothing still waits until the majority has all earlier writes. Entries that were committed before `as_of` and are being
    # replicated now are therefore part of the following reads.
    await database.raw[CHECKPOINTS].update_one({"_id": 0}, {"$set": {"made_at": 0}})
    async for page in _pages(database):
        for recount in recounts:
            heads = await _heads_as_of(database, page, recount.as_of)
            for row in page:
                recount.add(row, *heads[row.id])


async def _pages(database: Database) -> AsyncIterator[list[AccountSnapshot]]:
    fields = dict.fromkeys(("kind", "seq", "head", "opened_at", "at"), 1)
    page: list[AccountSnapshot] = []
    async for document in database.raw[ACCOUNTS].find({}, fields, batch_size=PAGE_ACCOUNTS).sort("_id"):
        try:
            page.append(msgspec.convert(document, AccountSnapshot, builtin_types=(bytes,)))
        except msgspec.ValidationError as error:
            raise LedgerChanged(f"the account {document['_id']} cannot be read: {error}; run `guerdon verify`") from None
        if len(page) == PAGE_ACCOUNTS:
            yield page
            page = []
    if page:
        yield page


async def _heads_as_of(database: Database, rows: Sequence[AccountSnapshot], as_of: int) -> dict[str, tuple[int, bytes]]:
    """Return number and hash of the newest entry of each account up to `as_of`, or (0, b"") for an account without such an entry.

    Most accounts have no newer entry, so their row is sufficient. The other accounts are searched together by galloping search: backwards in steps
    that double, then by bisection. The times of the entries of an account never decrease.
    """
    found = {row.id: (row.seq, row.head) for row in rows if row.at <= as_of}
    # Number and hash of an entry up to `as_of`, and number of an entry after it.
    spans: dict[str, tuple[int, bytes, int]] = {row.id: (0, b"", row.seq) for row in rows if row.at > as_of}
    step = 1
    while spans:
        account_ids: dict[str, str] = {}
        for account_id, (low, head, high) in list(spans.items()):
            if high - low <= 1:
                found[account_id] = (low, head)
                del spans[account_id]
            else:
                account_ids[entry_id(account_id, (low + high) // 2 if low else max(1, high - step))] = account_id
        step *= 2
        rows_found = [row async for row in database.raw[ENTRIES].find({"_id": {"$in": list(account_ids)}}, {"at": 1, "hash": 1})]
        if len(rows_found) != len(account_ids):
            raise LedgerChanged("entries are missing in the middle of a chain; run `guerdon verify`")
        for row in rows_found:
            account_id, seq = account_ids[row["_id"]], int(row["_id"][-12:])
            low, head, high = spans[account_id]
            spans[account_id] = (seq, row["hash"], high) if row["at"] <= as_of else (low, head, seq)
    return found


async def newest_number(database: Database) -> int | None:
    """Return the number of the newest checkpoint, or None without checkpoints."""
    row = await database.raw[CHECKPOINTS].find_one({}, {"_id": 1}, sort=[("_id", -1)])
    return None if row is None else int(row["_id"])


# --- reading ------------------------------------------------------------------------------------------------------------


async def check_chain(
    database: Database, keys: CheckpointKeys | None, file: Path | None, report: VerificationReport
) -> list[Recount]:
    """Check the chain of checkpoints in the database and in the file. Return a recount for the newest checkpoint of each.

    Raises:
        StartupRefused: the file cannot be read.
    """
    chain = _Chain(keys, report.add, "checkpoint")
    hashes: dict[int, str] = {}
    async for document in database.raw[CHECKPOINTS].find({}).sort("_id"):
        jws = document.get("jws")
        chain.follow(document["_id"], jws)
        hashes[document["_id"]] = _hash(str(jws))
    if hashes and chain.first != 1:
        report.add("CP", f"checkpoint {chain.first}", "the checkpoints before it are missing")
    newest = [] if chain.newest is None else [chain.newest]
    if file is not None:
        kept = _Chain(keys, report.add, f"{file.name}, checkpoint")
        for line in read_lines(file):
            kept.follow(line.number, line.jws)
            if hashes.get(line.number) != _hash(line.jws):
                report.add("CP", f"{file.name}, checkpoint {line.number}", "the database does not have it, or has a different one")
        newest += [] if kept.newest is None or kept.newest in newest else [kept.newest]
    if newest:
        report.checkpoints = max(each.number for each in newest)
        report.signatures = "verified" if keys is not None else "not checked: no key"
    return [Recount(each.number, each.as_of, each) for each in newest]


class _Chain:
    """Check of consecutive checkpoints."""

    def __init__(self, keys: CheckpointKeys | None, report_violation: ReportViolation, name: str) -> None:
        self._keys = keys
        self._report_violation = report_violation
        self._name = name
        self._hash: str | None = None
        self.first: int | None = None
        self.newest: Checkpoint | None = None

    def follow(self, number: Any, jws: Any) -> None:
        """Check a checkpoint against the previous one. A checkpoint without a valid signature is reported and ignored."""
        where = f"{self._name} {number}"
        try:
            payload = CheckpointKeys.payload_of(jws) if self._keys is None else self._keys.read(jws)
            made = msgspec.json.decode(payload, type=Checkpoint)
        except (BadSignature, msgspec.MsgspecError) as error:
            self._report_violation("CP", where, str(error)[:200])
            return
        before = self.newest
        if made.number != number or (before is not None and number != before.number + 1):
            self._report_violation(
                "CP",
                where,
                f"it has number {made.number}; the previous checkpoint has {f'number {before.number}' if before else 'no number'}",
            )
        if self.first is None:
            self.first = number
        if before is not None:
            if made.previous != self._hash:
                self._report_violation("CP", where, "its `previous` is not the hash of the previous checkpoint")
            increasing = (
                made.made_at >= before.made_at
                and made.as_of >= before.as_of
                and made.accounts >= before.accounts
                and made.entries >= before.entries
            )
            if not increasing:
                self._report_violation("CP", where, "it counts less than the previous checkpoint")
        elif number == 1 and made.previous is not None:
            self._report_violation("CP", where, "it is the first, but its `previous` is set")
        self.newest, self._hash = made, _hash(jws)


def _hash(jws: str) -> str:
    return hashlib.sha256(jws.encode()).hexdigest()
