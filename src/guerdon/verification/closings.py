"""L16: the figures of each closed month have their digest, the digests form a chain, and the audit log contains each of them."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any, cast

import msgspec
from msgspec import Struct, field

from guerdon.audit_log.models import AUDIT, Record
from guerdon.database import Database, Document
from guerdon.verification.account_replay import ReportViolation

CLOSINGS = "closings"
MONTH_CLOSED = "monthClosed"
"""Action of the audit log that has the digest of a closed month."""
BATCH = 100


class _Closing(Struct, frozen=True, kw_only=True):
    """Closed month."""

    id: str = field(name="_id")
    content: str
    sha256: str
    record: int


async def check_closings(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the closed months after the month `after`."""
    previous = None
    if after:
        row = await database.raw[CLOSINGS].find_one({"_id": after})
        previous = None if row is None else _decode(row, report_violation)
    while True:
        rows = [row async for row in database.raw[CLOSINGS].find({"_id": {"$gt": after}}, limit=BATCH).sort("_id")]
        if not rows:
            return
        closings = [closing for row in rows if (closing := _decode(row, report_violation)) is not None]
        records = await _records_of(database, closings)
        for closing in closings:
            for fault in _faults_of(closing, previous, records.get(closing.record)):
                report_violation("L16", f"{CLOSINGS}/{closing.id}", fault)
            previous = closing
        after = str(rows[-1]["_id"])
        yield len(rows), after


def _decode(row: Document, report_violation: ReportViolation) -> _Closing | None:
    try:
        return msgspec.convert(row, _Closing)
    except msgspec.ValidationError as error:
        report_violation("L16", f"{CLOSINGS}/{row['_id']}", f"the closed month is damaged: {error}")
        return None


async def _records_of(database: Database, closings: Iterable[_Closing]) -> dict[int, Record]:
    ids = sorted({closing.record for closing in closings})
    records: dict[int, Record] = {}
    async for row in database.raw[AUDIT].find({"_id": {"$in": ids}}):
        try:
            record = msgspec.convert(row, Record, builtin_types=(bytes,))
        except msgspec.ValidationError:
            continue  # L15 reports the damaged record.
        records[record.id] = record
    return records


def _faults_of(closing: _Closing, previous: _Closing | None, record: Record | None) -> Iterable[str]:
    if digest_of_text(closing.content) != closing.sha256:
        yield "its figures differ from its digest"
    content = _parsed(closing.content)
    if content.get("month") != closing.id:
        yield f"its figures are those of {content.get('month')}"
    if previous is not None:
        if closing.id != _next_month(previous.id):
            yield f"it follows {previous.id}; the months between them are missing"
        if content.get("previous") != previous.sha256:
            yield f"it does not contain the digest of {previous.id}"
    elif content.get("previous") is not None:
        yield "it contains the digest of a month that is missing"
    if (
        record is None
        or record.action != MONTH_CLOSED
        or record.subject != {"month": closing.id}
        or record.facts.get("sha256") != closing.sha256
    ):
        yield "the audit log does not contain its digest"


def _parsed(content: str) -> Document:
    try:
        found: Any = json.loads(content)
    except ValueError:
        return {}
    return cast(Document, found) if isinstance(found, dict) else {}


def _next_month(month: str) -> str:
    number = int(month[:4]) * 12 + int(month[5:])
    return f"{number // 12:04}-{number % 12 + 1:02}"


def digest_of_text(content: str) -> str:
    """Return the SHA-256 of a text in UTF-8, in hexadecimal."""
    return hashlib.sha256(content.encode()).hexdigest()


async def check_recorded_closings(database: Database, records: Iterable[Record], report_violation: ReportViolation) -> None:
    """Check that each closed month which the audit log names exists."""
    closed = {record.subject.get("month"): record for record in records if record.action == MONTH_CLOSED}
    if not closed:
        return
    where: Document = {"_id": {"$in": sorted(map(str, closed))}}
    found = {row["_id"] async for row in database.raw[CLOSINGS].find(where, {"_id": 1})}
    for month in sorted(map(str, closed.keys() - found)):
        report_violation("L16", f"{CLOSINGS}/{month}", f"it does not exist; record {closed[month].id} of the audit log names it")
