"""L5 as far as a database can tell: what was answered and is kept (events, holds, refunds, refusals) is held against the entries.

Each kind of document is read once, in the order of its ids, and what it promises is looked up. The other direction, from entries to
documents, belongs to the walk over the accounts.
"""

from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from typing import Any, Literal

import msgspec

from guerdon.campaigns.domain import EVENTS
from guerdon.database import Database, Document
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import AWAITING_CONFIRMATION, REFUSAL, entry_id, parse_location
from guerdon.ledger.store import ENTRIES, REVERSALS
from guerdon.verification.account_replay import CONFIRMATION, ReportViolation
from guerdon.verification.lookups import BATCH, find_entries
from guerdon.verification.vouchers import check_vouchers

CONFIRMED = "(confirmed)"
"""What a promise calls the amount that its entry confirms, and when that lapses: they are no fields."""
Stage = Literal["events", "holds", "reversals", "refusals", "vouchers"]
ExpectedEntry = tuple[str, Mapping[str, Any]]
"""An entry's id, and what it must say; a path into it may have a point."""


def expected_of_event(event: Document) -> Iterator[ExpectedEntry]:
    """Every award that was paid is an entry with that amount, and so is every one that was confirmed."""
    for award in event["awards"]:
        if award.get("transaction_id") is not None:
            yield _first_entry(award["transaction_id"]), {"amount": award["amount"], **_decided(event, award)}
    for release in event.get("releases") or ():
        if release.get("transaction_id") is not None:
            confirmed = (release["amount"], release.get("expires_at"))
            said = {"kind": CONFIRMATION, CONFIRMED: confirmed, **_decided(event, release)}
            yield _first_entry(release["transaction_id"]), said


def _decided(event: Document, award: Document) -> dict[str, Any]:
    """Whose entry it is, and by which event and campaign."""
    return {
        # A campaign may pay whoever has referred the member.
        "owner": award.get("to") or event["owner"],
        "asset": award["asset"],
        "metadata.event": event["_id"],
        "metadata.campaign": award["campaign"],
        "metadata.version": str(award["version"]),
    }


def expected_of_hold(hold: Document) -> Iterator[ExpectedEntry]:
    """Every hold was made by an entry. What became of it is checked where its account is."""
    said = {
        "kind": "hold" if hold.get("voucher") is None else "reserve",
        "owner": hold["owner"],
        "at": hold["created_at"],
        "hold.size": hold["amount"],
    }
    yield _first_entry(hold["_id"]), {**said, "hold.expires_at": hold["expires_at"]}


def expected_of_reversal(reversal: Document) -> Iterator[ExpectedEntry]:
    """Only what has happened can be taken back. How much was taken back is checked where its account is."""
    yield _first_entry(reversal["_id"]), {"owner": reversal["owner"]}


def _first_entry(name: object) -> str:
    place = parse_location(name) if isinstance(name, str) else None
    return entry_id(*place) if place else ""


PASSES: dict[Stage, tuple[str, Callable[[Document], Iterator[ExpectedEntry]]]] = {
    "events": (EVENTS, expected_of_event),
    "holds": (HOLD_DOCUMENTS, expected_of_hold),
    "reversals": (REVERSALS, expected_of_reversal),
}


async def check_documents(database: Database, stage: Stage, after: str, blame: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check one kind of documents behind the id `after`; yield after each batch how many there were, and the last id."""
    if stage == "refusals":
        async for step in _check_refusals(database, after, blame):
            yield step
        return
    if stage == "vouchers":
        async for step in check_vouchers(database, after, blame):
            yield step
        return
    collection, promises_of = PASSES[stage]
    async for batch in _batches(database, collection, {"_id": {"$gt": after}}):
        promises: list[tuple[str, ExpectedEntry]] = []
        for document in batch:
            name = f"{collection}/{document['_id']}"
            try:
                promises.extend((name, promise) for promise in promises_of(document))
            except (KeyError, TypeError, AttributeError) as error:
                blame("L5", name, f"not a document of this kind: {error!r}")
        entries = await find_entries(database, {entry for _, (entry, _) in promises})
        for name, (entry, said) in promises:
            fault = _fault(entries.get(entry), said)
            if fault is not None:
                blame("L5", name, f"{entry or 'the entry that it names'} {fault}")
        yield len(batch), str(batch[-1]["_id"])


def _fault(entry: Document | None, said: Mapping[str, Any]) -> str | None:
    if entry is None:
        return "does not exist"
    for path, value in said.items():
        found: Any = {**entry, CONFIRMED: _confirmed(entry, value)} if path == CONFIRMED else entry
        for part in path.split("."):
            found = found.get(part) if isinstance(found, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
        if found != value:
            return f"says {path} {found!r}, and not {value!r}"
    return None


def _confirmed(entry: Document, said: tuple[int, int | None]) -> tuple[int, int | None]:
    """How much the entry takes out of the lot that waited, and when that lapses now; where all of it has paid a debt, nothing says when."""
    lots = entry.get("lots") or ()
    come = [lot.get("expires_at") for lot in lots if lot["amount"] > 0]
    return -sum(lot["amount"] for lot in lots if lot.get("available_at") == AWAITING_CONFIRMATION), (come or [said[1]])[0]


async def _check_refusals(database: Database, after: str, blame: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """What was refused under a key has not succeeded under it."""
    where = {"_id": {"$gt": max(after, REFUSAL), "$lt": REFUSAL + "g"}}
    async for batch in _batches(database, ENTRIES, where):
        marks: dict[bytes, str] = {}
        for row in batch:
            try:
                [mark] = msgspec.convert(row.get("once"), list[bytes], builtin_types=(bytes,))
            except (msgspec.ValidationError, ValueError):
                mark = b""
            if row["_id"] == REFUSAL + mark.hex():
                marks[mark] = str(row["_id"])
            else:
                blame("L5", str(row["_id"]), "a refusal without the mark that it is named by")
        owners = sorted({str(row.get("owner")) for row in batch})
        beside = {"owner": {"$in": owners}, "once": {"$in": list(marks)}, "balance_after": {"$exists": True}}
        async for row in database.raw[ENTRIES].find(beside, {"once": 1}):
            for mark in row["once"]:
                if mark in marks:
                    blame("L5", str(row["_id"]), f"its key was refused before, by {marks[mark]}")
        yield len(batch), str(batch[-1]["_id"])


async def _batches(database: Database, collection: str, where: Document) -> AsyncIterator[list[Document]]:
    batch: list[Document] = []
    async for document in database.raw[collection].find(where, batch_size=BATCH).sort("_id"):
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
