"""Prove the books from nothing but the log: the laws L1 to L4 and L6, over the whole database, while it may be in use.

Accounts are read in pages, in the order of their ids, and then their entries, which lie in the same order. An account's `seq` is the
horizon: newer entries than the account row knew are left for the next run. Memory does not grow with the number of entries, except for
transfers whose other side has not come by yet.
"""

from collections.abc import AsyncIterator, Callable
from typing import Literal

import msgspec
from msgspec import Struct

from guerdon.database import Database, Document
from guerdon.ledger.models import GENESIS, REFUSAL, SYSTEM, Account, Entry, Idempotency, entry_hash, entry_id
from guerdon.ledger.store import ACCOUNTS, ENTRIES, decode_account, decode_entry

Law = Literal["L1", "L2", "L3", "L4", "L6"]
LAWS: dict[Law, str] = {
    "L1": "conservation: the sides of every transaction sum to zero for each asset",
    "L2": "derivation: each balance is the sum of its account's entries",
    "L3": "no overdraft: no account was ever below its floor, or above its ceiling",
    "L4": "once: a key or reference of a member stands for one transaction at most",
    "L6": "append only: no gap, no repeat, and an unbroken hash chain in every account",
}
PAGE_ACCOUNTS = 1000
BATCH_ENTRIES = 5000
PROGRESS_EVERY = 10_000
_END = "#\x7f"
"""Sorts after every entry id of an account and before the next account's."""


class Violation(Struct, frozen=True):
    """One broken law: where it shows first, and how."""

    law: Law
    where: str
    detail: str


class Report(Struct):
    """What was read and what is wrong; `first` holds the first violation of each law."""

    violations: int
    accounts: int
    entries: int
    first: dict[Law, Violation]


class _Books:
    """The running state of one verification."""

    def __init__(self) -> None:
        self.report = Report(0, 0, 0, {})
        self._owner = ""
        self._marks: set[bytes] = set()
        self.open_transfers: dict[tuple[str, str], tuple[int, Entry]] = {}

    def blame(self, law: Law, where: str, detail: str) -> None:
        self.report.violations += 1
        self.report.first.setdefault(law, Violation(law, where, detail))

    def check_account(self, account: Account, running: "_Running") -> None:
        """Compare the row with what its entries add up to."""
        if (running.seq, running.hash) != (account.seq, account.head):
            self.blame("L6", account.id, f"the account is at seq {account.seq}, its chain ends at {running.seq} with another hash")
        if (running.balance, running.held) != (account.balance, account.held):
            self.blame("L2", account.id, f"the balance is {account.balance}, its entries sum to {running.balance}")

    def check_entry(self, account: Account, entry: Entry, running: "_Running") -> None:
        """Check one entry against the one before it, and move on."""
        self.report.entries += 1
        if (entry.owner, entry.asset) != (account.owner, account.asset):
            self.blame("L6", entry.id, f"owner or asset differ from the account's, {account.owner} and {account.asset}")
        if entry.seq != running.seq + 1:
            self.blame("L6", entry.id, f"seq {entry.seq} follows seq {running.seq}")
        if entry.prev != running.hash or entry.hash != entry_hash(entry):
            self.blame("L6", entry.id, "the hash does not fit the entry and the one before it")
        if entry.balance_after != running.balance + entry.amount:
            self.blame("L2", entry.id, f"{running.balance} and {entry.amount} make {entry.balance_after}")
        overdrawn = entry.available_after < account.floor and entry.amount < 0 and entry.kind != "clawback"
        if overdrawn or entry.balance_after > account.ceiling:
            self.blame("L3", entry.id, f"{entry.available_after} available, the floor is {account.floor}")
        self._check_once(account, entry)
        if not entry.counter.startswith(SYSTEM):
            self._pair(entry)
        running.seq, running.balance, running.held, running.hash = entry.seq, entry.balance_after, entry.held_after, entry.hash

    def _check_once(self, account: Account, entry: Entry) -> None:
        if account.owner != self._owner:
            self._owner, self._marks = account.owner, set()
        marks: list[bytes] = []
        if entry.key is not None:
            marks = list(Idempotency(entry.owner, entry.actor, entry.key, b"", entry.reference).marks)
        if marks != (entry.once or []):
            self.blame("L4", entry.id, "its marks are not those of its key and reference")
        for mark in marks:
            if mark in self._marks:
                self.blame("L4", entry.id, "its key or reference stands on another transaction too")
            self._marks.add(mark)

    def _pair(self, entry: Entry) -> None:
        """A posting against another guarded account waits for its other side."""
        name = (entry.transaction_id, entry.asset)
        total = self.open_transfers.pop(name, (0, entry))[0] + entry.amount
        if total:
            self.open_transfers[name] = (total, entry)


class _Running:
    """Where the chain of one account stands."""

    __slots__ = ("balance", "hash", "held", "seq")

    def __init__(self) -> None:
        self.seq, self.balance, self.held, self.hash = 0, 0, 0, GENESIS


async def verify(database: Database, progress: Callable[[int], None] | None = None) -> Report:
    """Check every account and entry; `progress` is told how many entries were read.

    Only what is committed by a majority is read, so a rolled-back write cannot raise a false alarm.
    """
    books = _Books()
    last = ""
    while True:
        page = await _read_page(database, books, last)
        await _check_page(database, books, page, progress)
        if page.last is None:
            break
        last = page.last
    await _settle_transfers(database, books)
    return books.report


class _Page(Struct, frozen=True):
    """Some accounts, in the order of their ids, and the ids between which their entries lie."""

    accounts: dict[str, Account]
    broken: frozenset[str]
    """Rows that are no accounts any more; that is blamed once, not again for each of their entries."""
    low: str
    last: str | None
    """The last id of the page; None when there are no more accounts, only entries that may lie behind them."""


async def _read_page(database: Database, books: _Books, after: str) -> _Page:
    accounts: dict[str, Account] = {}
    broken: set[str] = set()
    last: str | None = None
    async for document in database.raw[ACCOUNTS].find({"_id": {"$gt": after}}, limit=PAGE_ACCOUNTS).sort("_id"):
        last = str(document["_id"])
        try:
            accounts[last] = decode_account(document)
        except msgspec.ValidationError as error:
            broken.add(last)
            books.report.accounts += 1
            books.blame("L6", last, f"not an account: {str(error)[:200]}")
    return _Page(accounts, frozenset(broken), after + _END if after else "", last)


async def _check_page(database: Database, books: _Books, page: _Page, progress: Callable[[int], None] | None) -> None:
    """Walk the entries of the page's accounts."""
    states = {account_id: _Running() for account_id in page.accounts}
    beyond: dict[str, Entry] = {}
    async for document in _entries(database, page):
        entry = _decode(document, books)
        if entry is None or entry.account in page.broken:
            continue
        account = page.accounts.get(entry.account)
        if account is None or entry.seq > account.seq:
            beyond[entry.account] = entry
            continue
        books.check_entry(account, entry, states[account.id])
        if progress is not None and books.report.entries % PROGRESS_EVERY == 0:
            progress(books.report.entries)
    for account in page.accounts.values():
        books.report.accounts += 1
        books.check_account(account, states[account.id])
    for account_id, entry in beyond.items():
        # Written after its page was read, or never: then the account still does not know it.
        now = await database.raw[ACCOUNTS].find_one({"_id": account_id}, {"seq": 1})
        if now is None or now["seq"] < entry.seq:
            books.blame("L6", entry.id, "its account does not exist, or does not know it")


def _decode(document: Document, books: _Books) -> Entry | None:
    """A row that is no entry any more (a number turned into a float, a field gone) is a violation, not a crash."""
    try:
        entry = decode_entry(document)
        if entry.seq > 0:
            return entry
        detail = f"seq {entry.seq}"
    except (msgspec.ValidationError, ValueError) as error:
        detail = str(error)[:200]
    books.blame("L6", str(document.get("_id"))[:200], f"not an entry: {detail}")
    return None


async def _entries(database: Database, page: _Page) -> AsyncIterator[Document]:
    """The entries between two pages' ends; behind the last account, all the rest. Refusals lie among them and are none."""
    where: Document = {"_id": {"$gt": page.low} if page.last is None else {"$gt": page.low, "$lte": page.last + _END}}
    async for document in database.raw[ENTRIES].find(where, batch_size=BATCH_ENTRIES).sort("_id"):
        if not str(document["_id"]).startswith(REFUSAL):
            yield document


async def _settle_transfers(database: Database, books: _Books) -> None:
    """A transfer that was committed while its accounts were being read has shown one side; look for the other where it must be."""
    for (transaction, _), (total, entry) in books.open_transfers.items():
        document = await database.raw[ENTRIES].find_one({"_id": entry_id(entry.counter, entry.pair or 0)})
        other = None if document is None else _decode(document, books)
        if other is None or other.amount + total != 0 or other.asset != entry.asset:
            books.blame("L1", entry.id, f"transaction {transaction} leaves {total} {entry.asset} without another side")
