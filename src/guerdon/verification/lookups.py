"""What an entry promises about other documents, looked up by name in batches, so that memory does not grow with the books.

Whatever is looked up was written in the same commit as the entry, or before it, so it is there as soon as the entry is: a look is exact
even while the books are written.
"""

from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from guerdon.database import Database, Document
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.lots import negated
from guerdon.ledger.models import REFUSAL, Entry, Hold, Lot, entry_id, hold_id, parse_location, transaction_id
from guerdon.ledger.store import ENTRIES
from guerdon.verification.account_replay import Ended, ReportViolation, arriving, came_from

BATCH = 500
CARRYING_KINDS = frozenset({"transfer", "load"})
"""What arrives keeps the dates that it had."""
_FIELDS = dict.fromkeys(
    ("owner", "asset", "kind", "amount", "counter", "actor", "at", "transaction", "pair", "lots", "hold", "metadata", "reverses"), 1
)


class _Side(Struct, frozen=True):
    """An entry, and the other entry that it names."""

    entry: Entry
    seq: int
    other: str
    plain_before: int | None
    """Undated value before it, where the other entry is the other side of a transfer; None where it is only the first side."""


class Lookups:
    """Collects questions, and asks them when there are enough."""

    def __init__(self, database: Database, blame: ReportViolation) -> None:
        self._database = database
        self._blame = blame
        self._sides: list[_Side] = []
        self._marks: dict[bytes, Entry] = {}
        self._holds: dict[str, tuple[Entry, Hold, str]] = {}
        self._originals: list[tuple[Entry, str]] = []

    @property
    def full(self) -> bool:
        return len(self._sides) + len(self._marks) + len(self._holds) + len(self._originals) >= BATCH

    def other_side(self, entry: Entry, seq: int, plain_before: int) -> None:
        """The other wallet of a transfer must have an entry that mirrors this one."""
        if entry.pair is None or entry.pair < 1:
            self._blame("L1", entry.id, f"{entry.amount} {entry.asset} against {entry.counterparty}, which has no such entry")
        else:
            self._sides.append(_Side(entry, seq, entry_id(entry.counterparty, entry.pair), plain_before))

    def first_side(self, entry: Entry, account: str, seq: int, running: str) -> None:
        """A further side of a transaction must name its first: the entry before it, or one on another account."""
        assert entry.transaction is not None
        place = parse_location(entry.transaction)
        if place is None or transaction_id(*place) != entry.transaction or place == (account, seq):
            self._blame("L8", entry.id, f"{entry.transaction} names no first entry of a transaction")
        elif place[0] == account:
            if entry.transaction != running:
                self._blame("L8", entry.id, f"it does not stand behind the other entries of {entry.transaction}")
        elif place != (entry.counterparty, entry.pair):
            self._sides.append(_Side(entry, seq, entry_id(*place), None))

    def mark(self, mark: bytes, entry: Entry) -> None:
        """A mark must stand on no other entry of its owner."""
        self._marks[mark] = entry

    def ended_hold(self, entry: Entry, account: str, ended: Ended) -> None:
        """The document of a hold that has ended never changes again."""
        hold, status = ended
        self._holds[hold_id(account, hold.seq)] = (entry, hold, status)

    def original(self, entry: Entry, name: str) -> None:
        """What a reversal takes back must have been there, the other way round."""
        self._originals.append((entry, name))

    async def flush(self) -> None:
        """Ask all that is left."""
        await self._ask_sides()
        await self._ask_marks()
        await self._ask_holds()
        await self._ask_originals()

    async def _ask_sides(self) -> None:
        found = await find_entries(self._database, {side.other for side in self._sides})
        for side in self._sides:
            other = found.get(side.other)
            if side.plain_before is not None:
                self._check_mirror(side, other)
            elif other is None or other.get("transaction") is not None or other.get("actor") != side.entry.actor:
                self._blame("L8", side.entry.id, f"the first entry of {side.entry.transaction} is missing, or is another one")
        self._sides.clear()

    def _check_mirror(self, side: _Side, other: Document | None) -> None:
        entry = side.entry
        here = (entry.account, side.seq, -entry.amount, entry.asset, entry.reverses)
        if other is None or here != tuple(other.get(name) for name in ("counter", "pair", "amount", "asset", "reverses")):
            self._blame("L1", entry.id, f"{entry.amount} {entry.asset} against {side.other}, which does not say the same")
            return
        if entry.transaction_id != (other.get("transaction") or transaction_of(side.other)):
            self._blame("L8", entry.id, f"its other side, {side.other}, belongs to another transaction")
        if entry.kind in CARRYING_KINDS and entry.amount > 0 and (entry.lots or other.get("lots")):
            sent = negated(_lots_of(other))
            if (entry.lots or ()) != arriving(sent, side.plain_before or 0, entry.amount, 0, entry.at):
                self._blame("L7", entry.id, "value has not kept its dates on the way")

    async def _ask_marks(self) -> None:
        if self._marks:
            owners = sorted({entry.owner for entry in self._marks.values()})
            where = {"owner": {"$in": owners}, "once": {"$in": list(self._marks)}}
            async for row in self._database.raw[ENTRIES].find(where, {"once": 1, "owner": 1}):
                for mark in row["once"]:
                    entry = self._marks.get(mark)
                    if entry is not None and row["_id"] != entry.id and row["owner"] == entry.owner:
                        law = "L5" if str(row["_id"]).startswith(REFUSAL) else "L4"
                        self._blame(law, entry.id, f"its key or reference stands on {row['_id']} too")
            self._marks.clear()

    async def _ask_holds(self) -> None:
        if self._holds:
            cursor = self._database.raw[HOLD_DOCUMENTS].find({"_id": {"$in": list(self._holds)}})
            documents = {str(document["_id"]): document async for document in cursor}
            for name, (entry, hold, status) in self._holds.items():
                detail = hold_fault(documents.get(name), entry.id[:-13], hold, status)
                if detail is not None:
                    self._blame("L5", name, f"{entry.id} has ended it: {detail}")
            self._holds.clear()

    async def _ask_originals(self) -> None:
        found = await find_entries(self._database, {name for _, name in self._originals})
        for entry, name in self._originals:
            original = found.get(name)
            if original is None or original.get("transaction") is not None or amount_of(original) * entry.amount >= 0:
                self._blame("L5", entry.id, f"it takes back {entry.reverses}, which has not moved value the other way")
            elif entry.amount > 0 and not came_from(entry.lots or (), negated(_lots_of(original)), entry.at):
                self._blame("L7", entry.id, f"value did not return to the lots that {name} took it from")
        self._originals.clear()


def hold_fault(document: Document | None, account: str, hold: Hold, status: str) -> str | None:
    """Say what is wrong with a hold's document, or None when it is what its account's entries have made of it."""
    if document is None:
        return "it has no document"
    owner, _, asset = account.rpartition(":")
    said = {
        "owner": owner,
        "account": account,
        "asset": asset,
        "amount": hold.size,
        "captured": hold.captured,
        "left": hold.left if status == "held" else 0,
        "status": status,
        "expires_at": hold.expires_at,
    }
    wrong = [f"{name} is {document.get(name)!r}, not {value!r}" for name, value in said.items() if document.get(name) != value]
    return ", ".join(wrong) or None


async def find_entries(database: Database, ids: Iterable[str]) -> dict[str, dict[str, Any]]:
    """Fetch entries by id, as far as they exist, with the fields that a look needs."""
    wanted = sorted(ids)
    found: dict[str, dict[str, Any]] = {}
    for start in range(0, len(wanted), BATCH):
        where = {"_id": {"$in": wanted[start : start + BATCH]}}
        async for row in database.raw[ENTRIES].find(where, _FIELDS):
            found[str(row["_id"])] = row
    return found


def transaction_of(name: str) -> str:
    """The transaction whose first entry has this id."""
    account, _, seq = name.rpartition("#")
    return transaction_id(account, int(seq))


def amount_of(row: Document | None) -> int:
    """The amount of a row that may be missing or damaged."""
    amount: Any = row.get("amount") if row is not None else None
    return amount if isinstance(amount, int) else 0


def _lots_of(row: Document) -> tuple[Lot, ...]:
    """The lots of a row that may be damaged; its own account's proof says so."""
    try:
        return msgspec.convert(row.get("lots") or (), tuple[Lot, ...])
    except msgspec.ValidationError:
        return ()
