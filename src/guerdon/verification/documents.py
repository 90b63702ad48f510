"""L5: the stored documents (events, holds, refunds, refusals, expired lots) agree with the entries.

Documents of each kind are read once, in the order of their ids, and the entries that they require are looked up. The opposite direction, from
entries to documents, is checked with the accounts.
"""

from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from typing import Literal, TypeVar

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import EVENTS
from guerdon.database import Database, Document
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.models import AWAITING_CONFIRMATION, REFUSAL, entry_id, parse_location
from guerdon.ledger.store import ENTRIES, REVERSALS
from guerdon.verification.account_replay import CONFIRMATION, ReportViolation
from guerdon.verification.closings import check_closings
from guerdon.verification.definitions import check_definitions
from guerdon.verification.erasures import check_erasures
from guerdon.verification.expired_lots import check_expired_lots
from guerdon.verification.lookups import BATCH, find_entries
from guerdon.verification.members import check_members, check_states_of_events
from guerdon.verification.rows import (
    AwardPart,
    EntryRow,
    EventRow,
    HoldRow,
    RefusalRow,
    ReleasePart,
    ReversalRow,
    StoredRow,
    decode_row,
)
from guerdon.verification.vouchers import check_vouchers

Stage = Literal[
    "events", "holds", "reversals", "refusals", "expired_lots", "vouchers", "members", "definitions", "erasures", "closings"
]
T = TypeVar("T", bound=StoredRow)


class ExpectedEntry(Struct, frozen=True, kw_only=True):
    """Entry that a document requires. A field that is None is not compared."""

    entry_id: str
    """Id of the entry; empty if the document names no valid id."""
    owner: str
    kind: str | None = None
    amount: int | None = None
    asset: str | None = None
    at: int | None = None
    hold_size: int | None = None
    hold_expires_at: int | None = None
    event: str | None = None
    """Event, campaign and version in the metadata of the entry."""
    campaign: str | None = None
    version: int | None = None
    confirmed: tuple[int, int | None] | None = None
    """Amount that the entry confirms, and the expiry of the confirmed value."""

    def difference(self, entry: EntryRow | None) -> str | None:
        """Return a description of the first difference of the stored entry, or None."""
        if entry is None:
            return "does not exist, or is damaged"
        metadata, hold = entry.metadata, entry.hold
        compared: tuple[tuple[str, object, object], ...] = (
            ("owner", self.owner, entry.owner),
            ("kind", self.kind, entry.kind),
            ("amount", self.amount, entry.amount),
            ("asset", self.asset, entry.asset),
            ("at", self.at, entry.at),
            ("hold.size", self.hold_size, None if hold is None else hold.size),
            ("hold.expires_at", self.hold_expires_at, None if hold is None else hold.expires_at),
            ("metadata.event", self.event, metadata.get("event")),
            ("metadata.campaign", self.campaign, metadata.get("campaign")),
            ("metadata.version", None if self.version is None else str(self.version), metadata.get("version")),
            (
                "the confirmed amount and its expiry",
                self.confirmed,
                None if self.confirmed is None else _confirmed(entry, self.confirmed),
            ),
        )
        for name, expected, stored in compared:
            if expected is not None and stored != expected:
                return f"has {stored!r} as {name}, expected {expected!r}"
        return None


def _confirmed(entry: EntryRow, expected: tuple[int, int | None]) -> tuple[int, int | None]:
    """Return the amount that the entry takes from an awaiting lot, and the new expiry.

    If all of it repaid a debt, the entry has no new expiry, and the expected one is returned.
    """
    new_expiries = [lot.expires_at for lot in entry.lots or () if lot.amount > 0]
    amount = -sum(lot.amount for lot in entry.lots or () if lot.available_at == AWAITING_CONFIRMATION)
    return amount, new_expiries[0] if new_expiries else expected[1]


def expected_of_event(event: EventRow) -> Iterator[ExpectedEntry]:
    """Yield the entry of each paid award and of each confirmed award."""
    for award in event.awards:
        if award.transaction_id is not None:
            yield msgspec.structs.replace(_expected_of_award(event, award, award.transaction_id), amount=award.amount)
    for release in event.releases or ():
        if release.transaction_id is not None:
            yield _expected_of_release(event, release, release.transaction_id)


def _expected_of_award(event: EventRow, award: AwardPart, transaction_id: str) -> ExpectedEntry:
    return ExpectedEntry(
        entry_id=_first_entry(transaction_id),
        # A campaign may pay the referrer of the member.
        owner=award.to or event.owner,
        asset=award.asset,
        event=event.id,
        campaign=award.campaign,
        version=award.version,
    )


def _expected_of_release(event: EventRow, release: ReleasePart, transaction_id: str) -> ExpectedEntry:
    expected = _expected_of_award(event, release, transaction_id)
    return msgspec.structs.replace(expected, kind=CONFIRMATION, confirmed=(release.amount, release.expires_at))


def expected_of_hold(hold: HoldRow) -> Iterator[ExpectedEntry]:
    """Yield the entry that created the hold. The current state of the hold is checked with its account."""
    yield ExpectedEntry(
        entry_id=_first_entry(hold.id),
        owner=hold.owner,
        kind="hold" if hold.voucher is None else "reserve",
        at=hold.created_at,
        hold_size=hold.amount,
        hold_expires_at=hold.expires_at,
    )


def expected_of_reversal(reversal: ReversalRow) -> Iterator[ExpectedEntry]:
    """Yield the entry that was reversed. The reversed amount is checked with its account."""
    yield ExpectedEntry(entry_id=_first_entry(reversal.id), owner=reversal.owner)


def _first_entry(location: str) -> str:
    parsed = parse_location(location)
    return entry_id(*parsed) if parsed else ""


@dataclass(frozen=True)
class _DocumentKind:
    """Kind of documents, with a function that returns the entries that a document requires."""

    collection: str
    expected_entries: Callable[[Document], Iterator[ExpectedEntry]]


def _kind(collection: str, row_type: type[T], expected: Callable[[T], Iterator[ExpectedEntry]]) -> _DocumentKind:
    return _DocumentKind(collection, lambda document: expected(decode_row(document, row_type)))


_KINDS: dict[Stage, _DocumentKind] = {
    "events": _kind(EVENTS, EventRow, expected_of_event),
    "holds": _kind(HOLD_DOCUMENTS, HoldRow, expected_of_hold),
    "reversals": _kind(REVERSALS, ReversalRow, expected_of_reversal),
}


async def check_documents(
    database: Database, stage: Stage, after: str, report_violation: ReportViolation
) -> AsyncIterator[tuple[int, str]]:
    """Check the documents of a stage after the id `after`. Yield the number of documents and the last id of each batch."""
    check = _CHECKS.get(stage)
    if check is not None:
        async for step in check(database, after, report_violation):
            yield step
        return
    kind = _KINDS[stage]
    async for batch in _batches(database, kind.collection, {"_id": {"$gt": after}}):
        expected: list[tuple[str, ExpectedEntry]] = []
        for document in batch:
            name = f"{kind.collection}/{document['_id']}"
            try:
                expected.extend((name, each) for each in kind.expected_entries(document))
            except msgspec.ValidationError as error:
                report_violation("L5", name, f"the document is damaged: {error}")
        if stage == "events":
            await check_states_of_events(database, batch, report_violation)
        entries = await find_entries(database, {each.entry_id for _, each in expected})
        for name, each in expected:
            difference = each.difference(entries.get(each.entry_id))
            if difference is not None:
                report_violation("L5", name, f"{each.entry_id or 'the entry that it names'} {difference}")
        yield len(batch), str(batch[-1]["_id"])


async def _check_refusals(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check that no key has both a refusal and a success."""
    where = {"_id": {"$gt": max(after, REFUSAL), "$lt": REFUSAL + "g"}}
    async for batch in _batches(database, ENTRIES, where):
        refusals: dict[bytes, str] = {}
        owners: set[str] = set()
        for document in batch:
            try:
                row = decode_row(document, RefusalRow)
                [unique_key] = row.unique_keys
            except msgspec.ValidationError as error:
                report_violation("L5", str(document["_id"]), f"the refusal is damaged: {error}")
                continue
            owners.add(row.owner)
            if row.id == REFUSAL + unique_key.hex():
                refusals[unique_key] = row.id
            else:
                report_violation("L5", row.id, "the id of the refusal does not contain its unique key")
        successes: Document = {
            "owner": {"$in": sorted(owners)},
            "once": {"$in": list(refusals)},
            "balance_after": {"$exists": True},
        }
        async for row in database.raw[ENTRIES].find(successes, {"once": 1}):
            for unique_key in row["once"]:
                if unique_key in refusals:
                    report_violation("L5", str(row["_id"]), f"its key was refused before, by {refusals[unique_key]}")
        yield len(batch), str(batch[-1]["_id"])


_CHECKS: dict[Stage, Callable[[Database, str, ReportViolation], AsyncIterator[tuple[int, str]]]] = {
    "refusals": _check_refusals,
    "expired_lots": check_expired_lots,
    "vouchers": check_vouchers,
    "members": check_members,
    "definitions": check_definitions,
    "erasures": check_erasures,
    "closings": check_closings,
}


async def _batches(database: Database, collection: str, where: Document) -> AsyncIterator[list[Document]]:
    batch: list[Document] = []
    async for document in database.raw[collection].find(where, batch_size=BATCH).sort("_id"):
        batch.append(document)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
