"""Prove the books from nothing but the log, over the whole database or over one wallet, while they may be in use.

Accounts are read in pages, in the order of their ids, and then their entries, which lie in the same order. A page of accounts and what
else is said of them (active holds, refunds) is read in one snapshot; an account's `seq` is the horizon, and newer entries are left for the
next run. Entries never change, so it does not matter when they are read. Memory holds a page, whatever the size of the books.
"""

from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC
from pathlib import Path
from typing import Any, cast

import msgspec
from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS
from guerdon.clock import to_ms
from guerdon.database import Database, Document, Session
from guerdon.errors import NotFound
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import REFUSAL, SEQ_DIGITS, SYSTEM, Account, Entry, entry_id, hold_id, parse_location, unique_key
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS, decode_account, decode_entry, encode
from guerdon.verification.account_replay import AccountReplay
from guerdon.verification.checkpoints import CheckpointKeys, read_removed_parts
from guerdon.verification.documents import Stage, check_documents
from guerdon.verification.lookups import Lookups, amount_of, find_entries, hold_fault
from guerdon.verification.report import LAWS, Law, VerificationReport, Violation
from guerdon.verification.snapshots import in_snapshot
from guerdon.verification.state_file import StateFile, VerificationPosition
from guerdon.vouchers.models import VOUCHERS

__all__ = ["LAWS", "Law", "VerificationReport", "Violation", "prove", "verify"]

PAGE_ACCOUNTS = 1000
BATCH_ENTRIES = 5000
PROGRESS_EVERY = 10_000
MARKS_IN_MEMORY = 200_000
"""So many keys and references of one owner are compared in memory (about 20 MiB); of the rest each is looked up."""
STAGES: tuple[Stage, ...] = ("events", "holds", "reversals", "refusals", "vouchers")
_END = "#\x7f"
"""Sorts after every entry id of an account and before the next account's."""
_ENTRY_FIELDS = frozenset(field.encode_name for field in msgspec.structs.fields(Entry))
_NESTED = ("lots", "hold", "terms")

Progress = Callable[[int, int], None]
"""Told how many documents were read, and of about how many."""


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
    """Check every account, every entry and every kept answer.

    `state_file` is written after a page, at most each second; with `resume` the run goes on where the one before it was cut off. Only what is committed by a
    majority is read, so a write that is rolled back cannot raise a false alarm.

    Raises:
        StartupRefused: the state belongs to another database, or a file cannot be read or written.
    """
    state = None if state_file is None else await StateFile.of(database, state_file)
    place = state.load() if resume and state is not None else None
    if place is None:
        place = VerificationPosition(total=await _count(database))
        place.cuts = await read_removed_parts(database, keys, checkpoint_file, place.report)

    def page_done() -> None:
        if progress is not None:
            progress(place.done, max(place.total, place.done))
        if state is not None:
            state.save_now_and_then(place)

    if place.stage == "accounts":
        await _Walk(database, place, calendar or Calendar(), await _server_time_ms(database)).run(page_done, progress)
        for cut in place.cuts:
            cut.check(place.report.blame)
        place.stage, place.last = STAGES[0], ""
    for stage in STAGES[STAGES.index(place.stage) :]:
        if stage != place.stage:
            place.stage, place.last = stage, ""
        async for count, last in check_documents(database, stage, place.last, place.report.blame):
            place.done, place.last = place.done + count, last
            page_done()
    if state is not None:
        state.remove()
    return place.report


async def prove(database: Database, account_id: str, *, calendar: Calendar | None = None) -> VerificationReport:
    """Check one account alone: its row, its chain, its holds and refunds, and the other sides of its transfers.

    Raises:
        NotFound: there is no such account.
    """
    walk = _Walk(database, VerificationPosition(), calendar or Calendar(), await _server_time_ms(database))
    walk.marks_max = 0
    page = await _read_page(database, {"_id": account_id}, walk.place.report)
    if page.last is None:
        raise NotFound(f"there is no wallet {account_id!r}")
    await walk.page(page, {"$gt": account_id + "#", "$lte": account_id + _END})
    return walk.place.report


async def _server_time_ms(database: Database) -> int:
    return to_ms((await database.raw.command("hello"))["localTime"].replace(tzinfo=UTC))


async def _count(database: Database) -> int:
    return sum(
        [await database.raw[name].estimated_document_count() for name in (ENTRIES, EVENTS, HOLD_DOCUMENTS, REVERSALS, VOUCHERS)]
    )


# --- pages --------------------------------------------------------------------------------------------------------------


class _AccountPage(Struct, frozen=True):
    """Some accounts, in the order of their ids, with what other documents said of them at the same moment."""

    accounts: dict[str, Account]
    broken: frozenset[str]
    """Rows that are no accounts any more; that is blamed once, not again for each of their entries."""
    last: str | None
    """The last id of the page; None when there are no more accounts, only entries that may lie behind them."""
    held: dict[str, Document]
    """Documents of holds that say that they are active, by id."""
    reversed: dict[str, Document]
    """Documents that say how much of a transaction was taken back, by its id."""


async def _read_page(database: Database, where: Document, report: VerificationReport) -> _AccountPage:
    """Read the next accounts, all of an owner's or none, and what is said of them, in one snapshot."""

    async def read(session: Session) -> tuple[list[Document], dict[str, Document], dict[str, Document]]:
        return await _read_snapshot(database, where, session)

    rows, held, reversed_ = await in_snapshot(database, read)
    accounts: dict[str, Account] = {}
    broken: set[str] = set()
    for document in rows:
        account_id = str(document["_id"])
        try:
            accounts[account_id] = decode_account(document)
            if not _says_only(document, accounts[account_id]):
                report.blame("L6", account_id, "it has fields that no account has")
        except msgspec.ValidationError as error:
            broken.add(account_id)
            report.accounts += 1
            report.blame("L6", account_id, f"not an account: {str(error)[:200]}")
    last = str(rows[-1]["_id"]) if rows else None
    return _AccountPage(accounts, frozenset(broken), last, held, reversed_)


async def _read_snapshot(
    database: Database, where: Document, session: Session
) -> tuple[list[Document], dict[str, Document], dict[str, Document]]:
    accounts = database.raw[ACCOUNTS]
    rows = [row async for row in accounts.find(where, limit=PAGE_ACCOUNTS, session=session).sort("_id")]
    if not rows:
        return [], {}, {}
    if len(rows) == PAGE_ACCOUNTS:
        # The rest of the last owner's: keys and references are compared owner by owner.
        last = str(rows[-1]["_id"])
        rest: Document = {"_id": {"$gt": last, "$lt": last.rpartition(":")[0] + ";"}}
        rows += [row async for row in accounts.find(rest, session=session).sort("_id")]
    ids = {str(row["_id"]) for row in rows}
    low, high = min(each + ":" for each in ids), max(each + ";" for each in ids)

    async def said_in(collection: str, prefix: str, more: Document) -> dict[str, Document]:
        about: Document = {"_id": {"$gte": prefix + low, "$lt": prefix + high}, **more}
        found = {str(row["_id"]): row async for row in database.raw[collection].find(about, session=session)}
        return {name: row for name, row in found.items() if (place := parse_location(name)) is not None and place[0] in ids}

    held = await said_in(HOLD_DOCUMENTS, "hld_", {"status": "held"})
    return rows, held, await said_in(REVERSALS, "txn_", {})


# --- the walk -----------------------------------------------------------------------------------------------------------


class _Walk:
    """One run over accounts and their entries."""

    def __init__(self, database: Database, place: VerificationPosition, calendar: Calendar, now_ms: int) -> None:
        self.place = place
        self.marks_max = MARKS_IN_MEMORY
        self._database = database
        self._calendar = calendar
        self._now_ms = now_ms
        self._blame = place.report.blame
        self._lookups = Lookups(database, self._blame)
        self._owner = ""
        self._marks: set[bytes] = set()
        self._reversed: dict[str, int] = {}
        self._tell: Progress | None = None

    async def run(self, page_done: Callable[[], None], tell: Progress | None) -> None:
        """Check page after page, and at the end what lies behind the last account."""
        place, self._tell = self.place, tell
        while True:
            page = await _read_page(self._database, {"_id": {"$gt": place.last}}, place.report)
            low = {"$gt": place.last + _END if place.last else ""}
            await self.page(page, low if page.last is None else {**low, "$lte": page.last + _END})
            if page.last is None:
                return
            place.last = page.last
            page_done()

    async def page(self, page: _AccountPage, ids: Document) -> None:
        """Follow the entries of the page's accounts, then compare what is said of them."""
        cuts = self.place.cuts
        states = {name: AccountReplay(account, self._calendar, self._blame, len(cuts)) for name, account in page.accounts.items()}
        beyond: dict[str, Entry] = {}
        async for entry, name, seq in self._entries(ids):
            replay = states.get(name)
            if replay is not None and seq <= replay.account.seq:
                self._follow(replay, entry, name, seq)
                if self._lookups.full:
                    await self._lookups.flush()
            elif name not in page.broken:
                beyond[name] = entry
        for replay in states.values():
            self._finish(replay, page)
        await self._lookups.flush()
        await self._check_beyond(beyond.values())
        for name in page.held:
            self._blame("L5", name, "it says that it is active; its account does not know it")
        await self._check_reversed(page)

    async def _entries(self, ids: Document) -> AsyncIterator[tuple[Entry, str, int]]:
        """Entries with their account and number. Refusals lie among them and are none."""
        place = self.place
        async for document in self._database.raw[ENTRIES].find({"_id": ids}, batch_size=BATCH_ENTRIES).sort("_id"):
            name = str(document["_id"])
            if name.startswith(REFUSAL):
                continue
            place.done += 1
            if self._tell is not None and place.done % PROGRESS_EVERY == 0:
                self._tell(place.done, max(place.total, place.done))
            # What is no entry any more (a number turned into a float, a field gone, one too many) is a violation, not a crash.
            try:
                entry = decode_entry(document)
                seq = entry.seq
                fault = None if seq > 0 and _is_whole(document, entry) else f"number {seq}, or fields that no entry has"
            except (msgspec.ValidationError, ValueError) as error:
                self._blame("L6", name[:200], f"not an entry: {str(error)[:200]}")
                continue
            if fault is None:
                yield entry, name[: -SEQ_DIGITS - 1], seq
            else:
                self._blame("L6", name[:200], f"not an entry: {fault}")

    def _follow(self, replay: AccountReplay, entry: Entry, name: str, seq: int) -> None:
        self.place.report.entries += 1
        running = replay.transaction if entry.transaction is not None else ""
        ended = replay.follow(entry, seq)
        self._check_once(entry)
        if not entry.counterparty.startswith(SYSTEM):
            self._lookups.other_side(entry, seq, replay.undated_before)
        if entry.transaction is not None:
            self._lookups.first_side(entry, name, seq, running)
        if ended is not None:
            self._lookups.ended_hold(entry, name, ended)
        if entry.reverses is not None:
            self._follow_reversal(entry, name)
        for number, cut in enumerate(self.place.cuts):
            if entry.at <= cut.as_of:
                replay.marks[number] = (seq, entry.hash)

    def _check_once(self, entry: Entry) -> None:
        if entry.owner != self._owner:
            self._owner = entry.owner
            self._marks.clear()
        marks: list[bytes] = []
        if entry.key is not None:
            marks.append(unique_key(entry.owner, "key", entry.actor, entry.key))
            if entry.reference is not None:
                marks.append(unique_key(entry.owner, "reference", entry.reference))
        if marks != (entry.unique_keys or []):
            self._blame("L4", entry.id, "its marks are not those of its key and reference")
        for mark in marks:
            if mark in self._marks:
                self._blame("L4", entry.id, "its key or reference stands on another transaction too")
            elif len(self._marks) < self.marks_max:
                self._marks.add(mark)
            else:
                self._lookups.mark(mark, entry)

    def _follow_reversal(self, entry: Entry, name: str) -> None:
        """What is taken back is counted on the account of the original's first entry; the other side of a transfer mirrors it."""
        assert entry.reverses is not None
        place = parse_location(entry.reverses)
        if place is None:
            self._blame("L5", entry.id, f"{entry.reverses} names no transaction")
        elif place[0] == name:
            self._reversed[entry.reverses] = self._reversed.get(entry.reverses, 0) + abs(entry.amount)
            self._lookups.original(entry, entry_id(*place))

    def _finish(self, replay: AccountReplay, page: _AccountPage) -> None:
        account = replay.account
        self.place.report.accounts += 1
        self.place.report.overdue += account.due_at is not None and account.due_at <= self._now_ms
        replay.check_row()
        for hold in replay.holds.values():
            name = hold_id(account.id, hold.seq)
            fault = hold_fault(page.held.pop(name, None), account.id, hold, "held")
            if fault is not None:
                self._blame("L5", name, fault)
        for cut, (seq, head) in zip(self.place.cuts, replay.marks, strict=True):
            cut.add(account, seq, head)

    async def _check_beyond(self, entries: Iterable[Entry]) -> None:
        """They were written after their page was read, or never: then the account still does not know them."""
        for entry in entries:
            row = await self._database.raw[ACCOUNTS].find_one({"_id": entry.account}, {"seq": 1})
            if row is None or row["seq"] < entry.seq:
                self._blame("L6", entry.id, "its account does not exist, or does not know it")

    async def _check_reversed(self, page: _AccountPage) -> None:
        """What was taken back of a transaction is what its document counts, and not more than there was."""
        done, self._reversed = self._reversed, {}
        originals = await find_entries(self._database, {entry_id(*place) for name in done if (place := parse_location(name))})
        for name in sorted(done.keys() | page.reversed.keys()):
            place = parse_location(name)
            said = page.reversed.get(name, {}).get("reversed", 0)
            original = originals.get(entry_id(*place)) if place else None
            whole = abs(amount_of(original))
            if place is None or place[0] in page.broken:
                continue
            if said != done.get(name, 0):
                self._blame("L5", name, f"{done.get(name, 0)} were taken back, its document counts {said}")
            if done.get(name, 0) > whole:
                self._blame("L5", name, f"{done[name]} were taken back of {whole}")


def _is_whole(document: Document, entry: Entry) -> bool:
    """Whether a row says nothing besides what was decoded, and so hashed."""
    nested = any(name in document for name in _NESTED)
    return document.keys() <= _ENTRY_FIELDS and not (nested and not _says_only(document, entry))


def _says_only(stored: Any, value: Any) -> bool:
    """Whether a stored value is what `value` is stored as; where a field is null, it says nothing."""
    if isinstance(value, Struct):
        return _says_only(stored, encode(value))
    if isinstance(value, dict):
        said = cast(Document, value)
        found = {name: item for name, item in cast(Document, stored).items() if item is not None}
        return found.keys() == said.keys() and all(_says_only(found[name], said[name]) for name in said)
    if isinstance(value, tuple):
        parts = cast(tuple[Any, ...], value)
        return len(stored) == len(parts) and all(map(_says_only, stored, parts))
    return stored == value
