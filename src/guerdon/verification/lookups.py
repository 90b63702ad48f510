"""References of entries to other documents, looked up by id in batches, so that memory does not grow with the ledger.

A referenced document was written in the same commit as the entry or before it. It exists as soon as the entry is visible, so the check is exact even
while the ledger is in use.
"""

from collections.abc import Iterable, Mapping
from fractions import Fraction
from math import ceil, floor

from msgspec import Struct

from guerdon.database import Database
from guerdon.exchanges.models import RATE_VERSIONS
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.lots import negated
from guerdon.ledger.models import REFUSAL, Entry, Hold, entry_id, hold_id, parse_location, transaction_id
from guerdon.ledger.store import ENTRIES
from guerdon.verification.account_replay import EndedHold, ReportViolation, arriving_lots, came_from
from guerdon.verification.rows import ENTRY_ROW_FIELDS, EntryRow, HoldRow, RateVersionRow, decode_rows
from guerdon.verification.trial_balance import TrialBalance

BATCH = 500
_FIELDS = dict.fromkeys(ENTRY_ROW_FIELDS, 1)


class _Side(Struct, frozen=True):
    """Entry with the id of another entry that it names."""

    entry: Entry
    seq: int
    other_id: str
    undated_before: int | None
    """Undated balance before the entry, if the other entry is the counterparty of a transfer; None if it is the first side of a transaction."""


class Lookups:
    """References of entries, collected and then checked in batches."""

    def __init__(self, database: Database, report_violation: ReportViolation, trial_balance: TrialBalance) -> None:
        self._database = database
        self._trial_balance = trial_balance
        self._report_violation = report_violation
        self._sides: list[_Side] = []
        self._unique_keys: dict[bytes, Entry] = {}
        self._holds: dict[str, tuple[Entry, Hold, str]] = {}
        self._originals: list[tuple[Entry, str]] = []
        self._with_sides: list[Entry] = []

    @property
    def full(self) -> bool:
        """True when `flush` should be called."""
        return len(self._sides) + len(self._unique_keys) + len(self._holds) + len(self._originals) + len(self._with_sides) >= BATCH

    def add_counterparty(self, entry: Entry, seq: int, undated_before: int) -> None:
        """Check that the counterparty of a transfer has an entry that mirrors this one."""
        if entry.pair is None or entry.pair < 1:
            self._report_violation(
                "L1",
                entry.id,
                f"the counterparty {entry.counterparty} of {entry.amount} {entry.asset} has no entry number {entry.pair}",
            )
        else:
            self._sides.append(_Side(entry, seq, entry_id(entry.counterparty, entry.pair), undated_before))

    def add_first_side(self, entry: Entry, account: str, seq: int, current_transaction: str) -> None:
        """Check that a further side of a transaction names its first entry: the entry before it, or one on another account."""
        assert entry.transaction is not None
        first = parse_location(entry.transaction)
        if first is None or transaction_id(*first) != entry.transaction or first == (account, seq):
            self._report_violation("L8", entry.id, f"{entry.transaction} is not the id of a first entry")
        elif first[0] == account:
            if entry.transaction != current_transaction:
                self._report_violation("L8", entry.id, f"it does not follow the other entries of {entry.transaction}")
        elif first != (entry.counterparty, entry.pair):
            self._sides.append(_Side(entry, seq, entry_id(*first), None))

    def add_unique_key(self, unique_key: bytes, entry: Entry) -> None:
        """Check that a unique key is on no other entry of its owner."""
        self._unique_keys[unique_key] = entry

    def add_ended_hold(self, entry: Entry, account: str, ended: EndedHold) -> None:
        """Check the document of an ended hold. It does not change any more."""
        hold, status = ended
        self._holds[hold_id(account, hold.seq)] = (entry, hold, status)

    def add_original(self, entry: Entry, original_id: str) -> None:
        """Check that a reversal has an original entry in the opposite direction."""
        self._originals.append((entry, original_id))

    def add_sides(self, entry: Entry) -> None:
        """Check that the other entries that a first entry lists exist and belong to its transaction."""
        self._with_sides.append(entry)

    async def flush(self) -> None:
        """Check all collected references."""
        await self._check_listed_sides()
        await self._check_sides()
        await self._check_unique_keys()
        await self._check_holds()
        await self._check_originals()

    async def _check_sides(self) -> None:
        found = await find_entries(self._database, {side.other_id for side in self._sides})
        for side in self._sides:
            other = found.get(side.other_id)
            if side.undated_before is not None:
                self._check_mirror(side, other)
            elif other is None or other.transaction is not None or other.actor != side.entry.actor:
                self._report_violation("L8", side.entry.id, f"the first entry of {side.entry.transaction} is missing or differs")
            elif other.sides is not None and side.entry.id not in other.sides:
                self._report_violation("L8", side.entry.id, f"the first entry of {side.entry.transaction} does not list it")
        self._sides.clear()

    def _check_mirror(self, side: _Side, other: EntryRow | None) -> None:
        entry = side.entry
        expected = (entry.account, side.seq, -entry.amount, entry.asset, entry.reverses)
        if other is None or (other.counterparty, other.pair, other.amount, other.asset, other.reverses) != expected:
            self._report_violation(
                "L1",
                entry.id,
                f"{side.other_id}, the counterparty of {entry.amount} {entry.asset}, is missing or does not mirror it",
            )
            return
        self._trial_balance.add_pair(entry, other.at)
        if entry.transaction_id != (other.transaction or transaction_of(side.other_id)):
            self._report_violation("L8", entry.id, f"its counterparty {side.other_id} belongs to another transaction")
        if entry.kind != "reversal" and entry.amount > 0 and (entry.lots or other.lots):
            sent = negated(other.lots or ())
            if (entry.lots or ()) != arriving_lots(sent, side.undated_before or 0, entry.amount, 0, entry.at):
                self._report_violation("L7", entry.id, "the transferred value has not kept its dates")

    async def _check_listed_sides(self) -> None:
        found = await find_entries(self._database, {each for entry in self._with_sides for each in entry.sides or ()})
        await self._check_rates(found)
        for entry in self._with_sides:
            expected = (entry.transaction_id, entry.kind, entry.actor, entry.effective_at, entry.reverses, entry.rate)
            for name in entry.sides or ():
                side = found.get(name)
                if (
                    side is None
                    or (side.transaction, side.kind, side.actor, side.effective_at, side.reverses, side.rate) != expected
                ):
                    self._report_violation("L8", entry.id, f"it lists {name}, which is missing or belongs to another transaction")
        self._with_sides.clear()

    async def _check_rates(self, found: Mapping[str, EntryRow]) -> None:
        """Check that each exchange has the amounts that the version of its rate gives."""
        exchanges = [entry for entry in self._with_sides if entry.rate is not None]
        if not exchanges:
            return
        where = {"_id": {"$in": sorted({entry.rate for entry in exchanges if entry.rate is not None})}}
        rates = decode_rows([row async for row in self._database.raw[RATE_VERSIONS].find(where)], RateVersionRow)
        for entry in exchanges:
            rate, received = rates.get(entry.rate or ""), [found.get(each) for each in entry.sides or ()]
            if rate is None or len(received) != 1 or received[0] is None:
                self._report_violation("L5", entry.id, f"the version {entry.rate} of its rate, or its other side, is missing")
                continue
            exact = Fraction(-entry.amount * rate.to_amount, rate.from_amount)
            rounded = {"floor": floor(exact), "ceil": ceil(exact), "half_even": round(exact)}.get(rate.rounding)
            if (entry.asset, received[0].asset, received[0].amount) != (rate.source, rate.target, rounded):
                self._report_violation("L5", entry.id, f"the version {entry.rate} of its rate gives {rounded} {rate.target}")

    async def _check_unique_keys(self) -> None:
        if self._unique_keys:
            owners = sorted({entry.owner for entry in self._unique_keys.values()})
            where = {"owner": {"$in": owners}, "once": {"$in": list(self._unique_keys)}}
            async for row in self._database.raw[ENTRIES].find(where, {"once": 1, "owner": 1}):
                for unique_key in row["once"]:
                    entry = self._unique_keys.get(unique_key)
                    if entry is not None and row["_id"] != entry.id and row["owner"] == entry.owner:
                        law = "L5" if str(row["_id"]).startswith(REFUSAL) else "L4"
                        self._report_violation(law, entry.id, f"its key or reference is also used by {row['_id']}")
            self._unique_keys.clear()

    async def _check_holds(self) -> None:
        if self._holds:
            cursor = self._database.raw[HOLD_DOCUMENTS].find({"_id": {"$in": list(self._holds)}})
            rows = decode_rows([document async for document in cursor], HoldRow)
            for name, (entry, hold, status) in self._holds.items():
                fault = hold_fault(rows.get(name), entry.account, hold, status)
                if fault is not None:
                    self._report_violation("L5", name, f"{entry.id} has ended the hold: {fault}")
            self._holds.clear()

    async def _check_originals(self) -> None:
        found = await find_entries(self._database, {name for _, name in self._originals})
        for entry, name in self._originals:
            original = found.get(name)
            if original is None or original.transaction is not None or original.amount * entry.amount >= 0:
                self._report_violation(
                    "L5",
                    entry.id,
                    f"it reverses {entry.reverses}, which does not exist or has not moved value in the opposite direction",
                )
            elif entry.amount > 0 and not came_from(entry.lots or (), negated(original.lots or ()), entry.at):
                self._report_violation("L7", entry.id, f"the value did not return to the lots that {name} took it from")
            await self._check_reversed_sides(entry, None if original is None else original.sides)
        self._originals.clear()

    async def _check_reversed_sides(self, entry: Entry, originals: tuple[str, ...] | None) -> None:
        """Check that the reversal of a transaction of several postings reverses each of its entries whole."""
        if originals is None and entry.sides is None:
            return
        original_ids, ids = originals or (), entry.sides or ()
        rows = await find_entries(self._database, {*original_ids, *ids})
        pairs = [(rows.get(original), rows.get(each)) for original, each in zip(original_ids, ids, strict=False)]
        if len(original_ids) != len(ids) or not all(
            original is not None
            and side is not None
            and (side.id.rpartition("#")[0], side.amount) == (original.id.rpartition("#")[0], -original.amount)
            for original, side in pairs
        ):
            self._report_violation("L5", entry.id, f"it does not reverse every entry of {entry.reverses}")
        for original, side in pairs:
            if original is None or side is None or side.amount < 0:
                continue
            if not came_from(side.lots or (), negated(original.lots or ()), side.at):
                self._report_violation("L7", side.id, f"the value did not return to the lots that {original.id} took it from")


def hold_fault(row: HoldRow | None, account: str, hold: Hold, status: str) -> str | None:
    """Return a description of the differences of the document of a hold, or None if it agrees with the entries of its account."""
    if row is None:
        return "its document is missing or damaged"
    return row.difference(account, hold, status)


async def find_entries(database: Database, ids: Iterable[str]) -> dict[str, EntryRow]:
    """Return entries by id. Missing and damaged entries are left out."""
    requested = sorted(ids)
    found: dict[str, EntryRow] = {}
    for start in range(0, len(requested), BATCH):
        where = {"_id": {"$in": requested[start : start + BATCH]}}
        found |= decode_rows([row async for row in database.raw[ENTRIES].find(where, _FIELDS)], EntryRow)
    return found


def transaction_of(name: str) -> str:
    """Return the id of the transaction whose first entry has this id."""
    account, _, seq = name.rpartition("#")
    return transaction_id(account, int(seq))
