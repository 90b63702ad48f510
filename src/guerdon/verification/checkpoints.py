"""Signed checkpoints: what the books held at a moment, so that a part that is cut off later together with its traces is missed.

A checkpoint counts the accounts and entries up to its moment and digests the newest hash of every account. It is a JWS (Ed25519), names
the one before it by its hash, and is kept in the database and, where a file is configured, outside of it. docs/verify.md has the format.
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

__all__ = ["BooksChanged", "Checkpoint", "CheckpointKeys", "RemovedPart", "read_removed_parts", "write_checkpoint"]

CHECKPOINTS = "checkpoints"
INDEXES: dict[str, list[IndexModel]] = {CHECKPOINTS: []}
"""No secondary index: they are read in the order of their numbers."""
SETTLED_MS = 90_000
"""A checkpoint looks so far back: what was decided before has ended by then. A server gives up on a transaction after 60 seconds, and the
clocks of our machines may be 30 seconds apart."""
PAGE_ACCOUNTS = 1000
_canonical = msgspec.json.Encoder()


class BooksChanged(Exception):
    """The books do not hold any more what was signed before; nothing new is signed over that."""


class Checkpoint(Struct, frozen=True):
    """What is signed. Times are milliseconds since the epoch."""

    number: int
    """From 1 on, without a gap."""
    made_at: int
    as_of: int
    """Entries up to this moment are covered."""
    accounts: int
    """Accounts with an entry up to then."""
    entries: int
    digest: str
    previous: str | None
    """SHA-256 of the checkpoint before it, in its compact form, as hex."""


class _Stored(Struct, frozen=True):
    number: int = field(name="_id")
    jws: str
    made_at: int


class RemovedPart(Struct):
    """The books as of a checkpoint's moment, added up account by account in the order of their ids."""

    number: int
    as_of: int
    signed: Checkpoint | None = None
    """What it must come to; None while it is being made."""
    accounts: int = 0
    entries: int = 0
    digest: bytes = bytes(32)

    def add(self, account: "Account | AccountSnapshot", seq: int, head: bytes) -> None:
        """Add an account whose newest entry up to `as_of` is number `seq`; 0 is none, and then the account is not counted."""
        if seq > 0:
            line = _canonical.encode([account.id, account.kind, account.opened_at, seq, head.hex()])
            self.accounts += 1
            self.entries += seq
            self.digest = hashlib.sha256(self.digest + line).digest()

    def fault(self) -> str | None:
        """Say how the books differ from what was signed."""
        signed = self.signed
        if signed is None:
            return None
        counts = f"{signed.accounts} accounts and {signed.entries} entries were signed as of {rfc3339(self.as_of)}"
        if (self.accounts, self.entries) != (signed.accounts, signed.entries):
            return f"{counts}, there are {self.accounts} and {self.entries}"
        return None if self.digest.hex() == signed.digest else f"{counts}; there are as many, but not the same"

    def check(self, blame: ReportViolation) -> None:
        fault = self.fault()
        if fault is not None:
            blame("CP", f"checkpoint {self.number}", fault)


class AccountSnapshot(Struct, frozen=True):
    """Of an account's row, what a checkpoint needs."""

    id: str = field(name="_id")
    kind: str
    seq: int
    head: bytes
    opened_at: int
    at: int


# --- writing ------------------------------------------------------------------------------------------------------------


async def write_checkpoint(database: Database, clock: Clock, keys: CheckpointKeys, file: Path | None) -> int:
    """Sign the books as of a moment ago and return 1, or 0 when another process was quicker.

    Raises:
        BooksChanged: they do not hold what the checkpoint before says, or the file knows more than the database.
    """
    newest = await database.raw[CHECKPOINTS].find_one({}, sort=[("_id", -1)])
    before = None if newest is None else _opened(newest, keys)
    await _export(database, file)
    made_at = clock.now_ms()
    cut = RemovedPart(1 if before is None else before.number + 1, made_at - SETTLED_MS)
    if before is not None and cut.as_of <= before.as_of:
        return 0
    again = [] if before is None else [RemovedPart(before.number, before.as_of, before)]
    await _add_up(database, [*again, cut])
    for earlier in again:
        if (fault := earlier.fault()) is not None:
            raise BooksChanged(f"checkpoint {earlier.number}: {fault}; run `guerdon verify`")
    made = Checkpoint(
        number=cut.number,
        made_at=made_at,
        as_of=cut.as_of,
        accounts=cut.accounts,
        entries=cut.entries,
        digest=cut.digest.hex(),
        previous=None if newest is None else _hash(newest["jws"]),
    )
    stored = _Stored(made.number, keys.sign(_canonical.encode(made)), made_at)
    try:
        await database.raw[CHECKPOINTS].insert_one(msgspec.to_builtins(stored))
    except DuplicateKeyError:
        return 0
    await _export(database, file)
    return 1


def _opened(document: Document, keys: CheckpointKeys) -> Checkpoint:
    try:
        return msgspec.json.decode(keys.read(document["jws"]), type=Checkpoint)
    except (BadSignature, KeyError, msgspec.MsgspecError) as error:
        raise BooksChanged(f"checkpoint {document['_id']} is not one of ours: {error}") from None


async def _export(database: Database, file: Path | None) -> None:
    """Bring the file up to the database."""
    if file is None:
        return
    cursor = database.raw[CHECKPOINTS].find({}).sort("_id")
    lines = [Line(document["_id"], document["jws"]) async for document in cursor]
    fault = append_missing(file, lines)
    if fault is not None:
        raise BooksChanged(fault)


async def _add_up(database: Database, cuts: Sequence[RemovedPart]) -> None:
    # A write that changes nothing still waits until the majority has everything that was written before it; so what was committed
    # in time, and is only now being replicated, is in what we read.
    await database.raw[CHECKPOINTS].update_one({"_id": 0}, {"$set": {"made_at": 0}})
    async for page in _pages(database):
        for cut in cuts:
            heads = await _heads_as_of(database, page, cut.as_of)
            for row in page:
                cut.add(row, *heads[row.id])


async def _pages(database: Database) -> AsyncIterator[list[AccountSnapshot]]:
    fields = dict.fromkeys(("kind", "seq", "head", "opened_at", "at"), 1)
    page: list[AccountSnapshot] = []
    async for document in database.raw[ACCOUNTS].find({}, fields, batch_size=PAGE_ACCOUNTS).sort("_id"):
        try:
            page.append(msgspec.convert(document, AccountSnapshot, builtin_types=(bytes,)))
        except msgspec.ValidationError as error:
            raise BooksChanged(f"the account {document['_id']} cannot be read: {error}; run `guerdon verify`") from None
        if len(page) == PAGE_ACCOUNTS:
            yield page
            page = []
    if page:
        yield page


async def _heads_as_of(database: Database, rows: Sequence[AccountSnapshot], as_of: int) -> dict[str, tuple[int, bytes]]:
    """Return `seq` and hash of each account's newest entry up to `as_of`; (0, b"") where there was none.

    Most accounts have not moved since, and their row says it. The others are searched together: backwards in steps that double, then by
    halving. That works because time never runs backwards within an account.
    """
    found = {row.id: (row.seq, row.head) for row in rows if row.at <= as_of}
    # seq (and hash) of an entry that is old enough; seq of one that is too new.
    spans: dict[str, tuple[int, bytes, int]] = {row.id: (0, b"", row.seq) for row in rows if row.at > as_of}
    step = 1
    while spans:
        asked: dict[str, str] = {}
        for name, (low, head, high) in list(spans.items()):
            if high - low <= 1:
                found[name] = (low, head)
                del spans[name]
            else:
                asked[entry_id(name, (low + high) // 2 if low else max(1, high - step))] = name
        step *= 2
        rows_found = [row async for row in database.raw[ENTRIES].find({"_id": {"$in": list(asked)}}, {"at": 1, "hash": 1})]
        if len(rows_found) != len(asked):
            raise BooksChanged("entries are missing in the middle of a chain; run `guerdon verify`")
        for row in rows_found:
            name, seq = asked[row["_id"]], int(row["_id"][-12:])
            low, head, high = spans[name]
            spans[name] = (seq, row["hash"], high) if row["at"] <= as_of else (low, head, seq)
    return found


# --- reading ------------------------------------------------------------------------------------------------------------


async def read_removed_parts(
    database: Database, keys: CheckpointKeys | None, file: Path | None, report: VerificationReport
) -> list[RemovedPart]:
    """Check the chain of checkpoints here and in the file; return what the walk has to add up again.

    Raises:
        StartupRefused: the file cannot be read.
    """
    chain = _Chain(keys, report.blame, "checkpoint")
    hashes: dict[int, str] = {}
    async for document in database.raw[CHECKPOINTS].find({}).sort("_id"):
        jws = document.get("jws")
        chain.follow(document["_id"], jws)
        hashes[document["_id"]] = _hash(str(jws))
    if hashes and chain.first != 1:
        report.blame("CP", f"checkpoint {chain.first}", "the checkpoints before it are missing")
    newest = [] if chain.newest is None else [chain.newest]
    if file is not None:
        kept = _Chain(keys, report.blame, f"{file.name}, checkpoint")
        for line in read_lines(file):
            kept.follow(line.number, line.jws)
            if hashes.get(line.number) != _hash(line.jws):
                report.blame("CP", f"{file.name}, checkpoint {line.number}", "the database does not have it, or has another one")
        newest += [] if kept.newest is None or kept.newest in newest else [kept.newest]
    if newest:
        report.checkpoints = max(each.number for each in newest)
        report.signatures = "verified" if keys is not None else "not checked: no key"
    return [RemovedPart(each.number, each.as_of, each) for each in newest]


class _Chain:
    """Checkpoints one after another."""

    def __init__(self, keys: CheckpointKeys | None, blame: ReportViolation, name: str) -> None:
        self._keys = keys
        self._blame = blame
        self._name = name
        self._hash: str | None = None
        self.first: int | None = None
        self.newest: Checkpoint | None = None

    def follow(self, number: Any, jws: Any) -> None:
        """Check a checkpoint against the one before it; one that is not signed by us is no anchor."""
        where = f"{self._name} {number}"
        try:
            payload = CheckpointKeys.payload_of(jws) if self._keys is None else self._keys.read(jws)
            made = msgspec.json.decode(payload, type=Checkpoint)
        except (BadSignature, msgspec.MsgspecError) as error:
            self._blame("CP", where, str(error)[:200])
            return
        before = self.newest
        if made.number != number or (before is not None and number != before.number + 1):
            self._blame("CP", where, f"it is number {made.number}, and follows {before.number if before else 'nothing'}")
        if self.first is None:
            self.first = number
        if before is not None:
            if made.previous != self._hash:
                self._blame("CP", where, "it names another checkpoint as the one before it")
            grown = [getattr(made, name) >= getattr(before, name) for name in ("made_at", "as_of", "accounts", "entries")]
            if not all(grown):
                self._blame("CP", where, "it counts less than the one before it")
        elif number == 1 and made.previous is not None:
            self._blame("CP", where, "it is the first, and names one before it")
        self.newest, self._hash = made, _hash(jws)


def _hash(jws: str) -> str:
    return hashlib.sha256(jws.encode()).hexdigest()
