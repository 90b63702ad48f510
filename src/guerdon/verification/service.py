"""Verification of the whole ledger or of one wallet from its entries alone, while the service may be in use.

Accounts are read in pages, in the order of their ids, followed by their entries, which have the same order. The accounts of a page, their active holds
and their refunds are read in one snapshot. Entries after the `seq` of an account are left to the next run. Entries never change, so they need no
snapshot. Memory holds one page at a time.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from guerdon.audit_log.models import AUDIT
from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES
from guerdon.clock import to_ms
from guerdon.database import Database, Document, Session
from guerdon.errors import NotFound
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import (
    REFUSAL,
    SEQ_DIGITS,
    SYSTEM,
    Account,
    Entry,
    entry_id,
    hold_id,
    parse_location,
    reference_key,
    unique_key,
)
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, decode_account, decode_entry, encode
from guerdon.simulated_clock.models import CLOCK_ID, CLOCKS, StoredClock
from guerdon.verification.account_replay import AccountReplay
from guerdon.verification.checkpoints import CheckpointKeys, check_chain
from guerdon.verification.documents import Stage, check_documents
from guerdon.verification.evidence import EvidenceLookups
from guerdon.verification.lookups import Lookups, find_entries, hold_fault
from guerdon.verification.report import LAWS, Law, VerificationReport, Violation
from guerdon.verification.rows import HoldRow, ReversalRow, decode_rows
from guerdon.verification.snapshots import in_snapshot
from guerdon.verification.state_file import StateFile, VerificationPosition
from guerdon.verification.trial_balance import COMMIT_MS
from guerdon.vouchers.models import VOUCHERS

__all__ = ["LAWS", "Law", "VerificationReport", "Violation", "verify", "verify_account"]

PAGE_ACCOUNTS = 1000
BATCH_ENTRIES = 5000
PROGRESS_EVERY = 10_000
CLOCK_ERROR_MS_MAX = 5_000
"""Time by which the clock of a process may be ahead of the database: it stops rather than going back."""
UNIQUE_KEYS_IN_MEMORY = 200_000
"""Maximum number of unique keys of one owner that are compared in memory (about 20 MiB). Each further one is looked up."""
STAGES: tuple[Stage, ...] = (
    "events",
    "holds",
    "reversals",
    "refusals",
    "expired_lots",
    "vouchers",
    "members",
    "definitions",
    "erasures",
    "closings",
)
_END = "#\x7f"
"""Suffix of an account id that sorts after the ids of its entries and before those of the next account."""
_ENTRY_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Entry))
_NESTED = ("lots", "hold", "terms")

Progress = Callable[[int, int], None]
"""Function that receives the number of documents that were read, and their estimated total."""


async def verify(
    database: Database,
    progress: Progress | None = None,
    *,
    calendar: Calendar | None = None,
    keys: CheckpointKeys | None = None,
    checkpoint_file: Path | None = None,
    state_file: Path | None = None,
    resume: bool = False,
) -> VerificationReport:
    """Check every account, every entry, every stored answer and the checkpoints.

    The position is saved in `state_file` after a page, at most once a second; with `resume`, the run continues from the saved position. Only data that a
    majority has committed is read, so a write that is rolled back causes no violation.

    Raises:
        StartupRefused: the saved position belongs to another database, or a file cannot be read or written.
    """
    state = None if state_file is None else await StateFile.of(database, state_file)
    position = state.load() if resume and state is not None else None
    if position is None:
        position = VerificationPosition(total=await _count(database))
        position.recounts = await check_chain(database, keys, checkpoint_file, position.report)

    def page_done() -> None:
        if progress is not None:
            progress(position.done, max(position.total, position.done))
        if state is not None:
            state.save_periodically(position)

    if position.stage == "accounts":
        await _LedgerWalk(database, position, calendar or Calendar(), await _server_time_ms(database)).run(page_done, progress)
        for recount in position.recounts:
            recount.check(position.report.add)
        position.trial_balance.check(position.report.add)
        position.report.balances = position.trial_balance.sorted()
        position.stage, position.last = STAGES[0], ""
    for stage in STAGES[STAGES.index(position.stage) :]:
        if stage != position.stage:
            position.stage, position.last = stage, ""
        async for count, last in check_documents(database, stage, position.last, position.report.add):
            position.done, position.last = position.done + count, last
            page_done()
    if state is not None:
        state.remove()
    return position.report


async def verify_account(database: Database, account_id: str, *, calendar: Calendar | None = None) -> VerificationReport:
    """Check one account: its row, its chain, its holds and refunds, and the counterparties of its transfers.

    Raises:
        NotFound: the account does not exist.
    """
    walk = _LedgerWalk(database, VerificationPosition(), calendar or Calendar(), await _server_time_ms(database))
    walk.unique_keys_max = 0
    page = await _read_page(database, {"_id": account_id}, walk.position.report)
    if page.last is None:
        raise NotFound(f"the wallet {account_id!r} does not exist")
    await walk.check_page(page, {"$gt": account_id + "#", "$lte": account_id + _END})
    return walk.position.report


async def _server_time_ms(database: Database) -> int:
    return to_ms((await database.raw.command("hello"))["localTime"].replace(tzinfo=UTC))


async def _latest_entry_ms(database: Database) -> int:
    """Return the latest time that an entry can have now: that of the database, and of its simulated clock if that was moved forward."""
    moved = await database.collection(CLOCKS, StoredClock).get(CLOCK_ID)
    return await _server_time_ms(database) + (0 if moved is None else moved.offset_ms) + CLOCK_ERROR_MS_MAX


async def _count(database: Database) -> int:
    return sum(
        [
            await database.raw[name].estimated_document_count()
            for name in (ENTRIES, EVENTS, HOLD_DOCUMENTS, REVERSALS, VOUCHERS, MEMBER_STATES, AUDIT)
        ]
    )


# --- pages --------------------------------------------------------------------------------------------------------------


class _AccountPage(Struct, frozen=True):
    """Accounts in the order of their ids, with their active holds and refunds, read in one snapshot."""

    accounts: dict[str, Account]
    damaged: frozenset[str]
    """Ids of rows that cannot be decoded. A damaged row is reported once, and not again for each of its entries."""
    last: str | None
    """Last id of the page; None when there are no more accounts."""
    held: dict[str, HoldRow]
    """Documents of active holds, by id."""
    reversals: dict[str, ReversalRow]
    """Documents of reversals, by id of the transaction."""


async def _read_page(database: Database, where: Document, report: VerificationReport) -> _AccountPage:
    """Read the next accounts, their active holds and their refunds in one snapshot. A page contains all accounts of an owner or none."""

    async def read(session: Session) -> tuple[list[Document], list[Document], list[Document]]:
        return await _read_snapshot(database, where, session)

    rows, held, reversals = await in_snapshot(database, read)
    accounts: dict[str, Account] = {}
    damaged: set[str] = set()
    for document in rows:
        account_id = str(document["_id"])
        try:
            accounts[account_id] = decode_account(document)
            if not _equals_encoded(document, accounts[account_id]):
                report.add("L6", account_id, "the row has unknown fields")
        except msgspec.ValidationError as error:
            damaged.add(account_id)
            report.accounts += 1
            report.add("L6", account_id, f"the row is damaged: {str(error)[:200]}")
    last = str(rows[-1]["_id"]) if rows else None
    return _AccountPage(accounts, frozenset(damaged), last, decode_rows(held, HoldRow), decode_rows(reversals, ReversalRow))


async def _read_snapshot(
    database: Database, where: Document, session: Session
) -> tuple[list[Document], list[Document], list[Document]]:
    accounts = database.raw[ACCOUNTS]
    rows = [row async for row in accounts.find(where, limit=PAGE_ACCOUNTS, session=session).sort("_id")]
    if not rows:
        return [], [], []
    if len(rows) == PAGE_ACCOUNTS:
        # The other accounts of the last owner: unique keys are compared per owner.
        last = str(rows[-1]["_id"])
        rest: Document = {"_id": {"$gt": last, "$lt": last.rpartition(":")[0] + ";"}}
        rows += [row async for row in accounts.find(rest, session=session).sort("_id")]
    ids = {str(row["_id"]) for row in rows}
    low, high = min(each + ":" for each in ids), max(each + ";" for each in ids)

    async def find_related(collection: str, prefix: str, more: Document) -> list[Document]:
        where: Document = {"_id": {"$gte": prefix + low, "$lt": prefix + high}, **more}
        found = [row async for row in database.raw[collection].find(where, session=session)]
        return [row for row in found if (location := parse_location(str(row["_id"]))) is not None and location[0] in ids]

    held = await find_related(HOLD_DOCUMENTS, "hld_", {"status": "held"})
    return rows, held, await find_related(REVERSALS, "txn_", {})


# --- the walk -----------------------------------------------------------------------------------------------------------


class _LedgerWalk:
    """Check of accounts and their entries, page by page."""

    def __init__(self, database: Database, position: VerificationPosition, calendar: Calendar, now_ms: int) -> None:
        self.position = position
        self.unique_keys_max = UNIQUE_KEYS_IN_MEMORY
        self._database = database
        self._calendar = calendar
        self._now_ms = self._latest_at_ms = now_ms
        self._report_violation = position.report.add
        position.trial_balance.committed_before = position.trial_balance.committed_before or now_ms - COMMIT_MS
        self._lookups = Lookups(database, self._report_violation, position.trial_balance)
        self._evidence = EvidenceLookups(database, self._report_violation)
        self._owner = ""
        self._unique_keys: set[bytes] = set()
        self._reversed_amounts: dict[str, int] = {}
        self._progress: Progress | None = None

    async def run(self, page_done: Callable[[], None], progress: Progress | None) -> None:
        """Check all pages, and the entries after the last account."""
        position, self._progress = self.position, progress
        while True:
            page = await _read_page(self._database, {"_id": {"$gt": position.last}}, position.report)
            low = {"$gt": position.last + _END if position.last else ""}
            await self.check_page(page, low if page.last is None else {**low, "$lte": page.last + _END})
            if page.last is None:
                return
            position.last = page.last
            page_done()

    async def check_page(self, page: _AccountPage, ids: Document) -> None:
        """Apply the entries of the accounts of a page, then compare the result with their rows, holds and refunds."""
        # Read after the page, so no entry of the page is dated later unless a clock was wrong.
        self._latest_at_ms = await _latest_entry_ms(self._database)
        recounts = len(self.position.recounts)
        replays = {
            account_id: AccountReplay(account, self._calendar, self._report_violation, recounts)
            for account_id, account in page.accounts.items()
        }
        unknown: dict[str, Entry] = {}
        async for entry, account_id, seq in self._entries(ids):
            replay = replays.get(account_id)
            if replay is not None and seq <= replay.account.seq:
                self._follow(replay, entry, account_id, seq)
                if self._lookups.full:
                    await self._lookups.flush()
                if self._evidence.full:
                    await self._evidence.flush()
            elif account_id not in page.damaged:
                unknown[account_id] = entry
        for replay in replays.values():
            self._finish(replay, page)
        await self._lookups.flush()
        await self._evidence.flush()
        await self._check_unknown(unknown.values())
        for hold in page.held:
            self._report_violation("L5", hold, "its status is held, but its account has no such hold")
        await self._check_reversals(page)

    async def _entries(self, ids: Document) -> AsyncIterator[tuple[Entry, str, int]]:
        """Yield entries with the id of their account and their number. Refusals are skipped."""
        position = self.position
        async for document in self._database.raw[ENTRIES].find({"_id": ids}, batch_size=BATCH_ENTRIES).sort("_id"):
            name = str(document["_id"])
            if name.startswith(REFUSAL):
                continue
            position.done += 1
            if self._progress is not None and position.done % PROGRESS_EVERY == 0:
                self._progress(position.done, max(position.total, position.done))
            # A damaged entry (a missing field, an unknown field, a number that became a float) is a violation.
            try:
                entry = decode_entry(document)
                seq = entry.seq
                fault = None if seq > 0 and _is_complete(document, entry) else f"number {seq}, or unknown fields"
            except (msgspec.ValidationError, ValueError) as error:
                self._report_violation("L6", name[:200], f"the entry is damaged: {str(error)[:200]}")
                continue
            if fault is None:
                yield entry, name[: -SEQ_DIGITS - 1], seq
            else:
                self._report_violation("L6", name[:200], f"the entry is damaged: {fault}")

    def _follow(self, replay: AccountReplay, entry: Entry, account_id: str, seq: int) -> None:
        report = self.position.report
        report.entries += 1
        if entry.at > self._latest_at_ms:
            report.ahead += 1
            report.first_ahead = report.first_ahead or entry.id
        current_transaction = replay.transaction if entry.transaction is not None else ""
        ended = replay.follow(entry, seq)
        self.position.trial_balance.add(entry)
        self._check_unique_keys(entry)
        if not entry.counterparty.startswith(SYSTEM):
            self._lookups.add_counterparty(entry, seq, replay.undated_before)
        if entry.transaction is not None:
            self._lookups.add_first_side(entry, account_id, seq, current_transaction)
        if entry.sides is not None:
            self._lookups.add_sides(entry)
        if ended is not None:
            self._lookups.add_ended_hold(entry, account_id, ended)
        if entry.reverses is not None:
            self._follow_reversal(entry, account_id)
        if entry.evidence is not None:
            self._evidence.add(entry)
        for index, recount in enumerate(self.position.recounts):
            if entry.at <= recount.as_of:
                replay.heads[index] = (seq, entry.hash)

    def _check_unique_keys(self, entry: Entry) -> None:
        if entry.owner != self._owner:
            self._owner = entry.owner
            self._unique_keys.clear()
        unique_keys: list[bytes] = []
        if entry.key is not None:
            unique_keys.append(unique_key(entry.owner, "key", entry.actor, entry.key))
            if entry.reference is not None:
                unique_keys.append(reference_key(entry.owner, entry.reference, entry.attempt))
        if unique_keys != (entry.unique_keys or []):
            self._report_violation("L4", entry.id, "its unique keys are not those of its key and reference")
        for each in unique_keys:
            if each in self._unique_keys:
                self._report_violation("L4", entry.id, "its key or reference is also used by another transaction")
            elif len(self._unique_keys) < self.unique_keys_max:
                self._unique_keys.add(each)
            else:
                self._lookups.add_unique_key(each, entry)

    def _follow_reversal(self, entry: Entry, account_id: str) -> None:
        """Count the reversed amount, once per reversal: on the account of the first entry of the original."""
        assert entry.reverses is not None
        location = parse_location(entry.reverses)
        if location is None:
            self._report_violation("L5", entry.id, f"{entry.reverses} is not the id of a transaction")
        elif location[0] == account_id and entry.transaction is None:
            self._reversed_amounts[entry.reverses] = self._reversed_amounts.get(entry.reverses, 0) + abs(entry.amount)
            self._lookups.add_original(entry, entry_id(*location))

    def _finish(self, replay: AccountReplay, page: _AccountPage) -> None:
        account = replay.account
        self.position.report.accounts += 1
        self.position.report.overdue += account.due_at is not None and account.due_at <= self._now_ms
        replay.check_row()
        for hold in replay.holds.values():
            document_id = hold_id(account.id, hold.seq)
            fault = hold_fault(page.held.pop(document_id, None), account.id, hold, "held")
            if fault is not None:
                self._report_violation("L5", document_id, fault)
        for recount, (seq, head) in zip(self.position.recounts, replay.heads, strict=True):
            recount.add(account, seq, head)

    async def _check_unknown(self, entries: Iterable[Entry]) -> None:
        """Check entries that the account of the page does not have. They are valid if they were written after the page was read."""
        for entry in entries:
            row = await self._database.raw[ACCOUNTS].find_one({"_id": entry.account}, {"seq": 1})
            if row is None or row["seq"] < entry.seq:
                self._report_violation("L6", entry.id, "its account does not exist, or its seq is lower")

    async def _check_reversals(self, page: _AccountPage) -> None:
        """Check that the reversed amount of each transaction equals that of its document, and does not exceed the original."""
        amounts, self._reversed_amounts = self._reversed_amounts, {}
        originals = await find_entries(
            self._database, {entry_id(*location) for name in amounts if (location := parse_location(name))}
        )
        for transaction in sorted(amounts.keys() | page.reversals.keys()):
            location = parse_location(transaction)
            if location is None or location[0] in page.damaged:
                continue
            amount = amounts.get(transaction, 0)
            document, original = page.reversals.get(transaction), originals.get(entry_id(*location))
            documented = 0 if document is None else document.reversed
            if documented != amount:
                self._report_violation("L5", transaction, f"{amount} was reversed; its document has {documented}")
            original_amount = 0 if original is None else abs(original.amount)
            if amount > original_amount:
                self._report_violation("L5", transaction, f"{amount} was reversed; the original has {original_amount}")


def _is_complete(document: Document, entry: Entry) -> bool:
    """Return True if the document has no fields besides those that were decoded, and therefore hashed."""
    nested = any(name in document for name in _NESTED)
    return document.keys() <= _ENTRY_FIELDS and not (nested and not _equals_encoded(document, entry))


def _equals_encoded(stored: Any, value: Any) -> bool:
    """Return True if a stored value equals the stored form of `value`. Fields that are null count as absent."""
    if isinstance(value, Struct):
        return _equals_encoded(stored, encode(value))
    if isinstance(value, dict):
        expected = cast(Document, value)
        found = {name: item for name, item in cast(Document, stored).items() if item is not None}
        return found.keys() == expected.keys() and all(_equals_encoded(found[name], expected[name]) for name in expected)
    if isinstance(value, tuple):
        parts = cast(tuple[Any, ...], value)
        return len(stored) == len(parts) and all(map(_equals_encoded, stored, parts))
    return stored == value
