"""L15: the audit log is unbroken, and the certificates of erasures agree with it and with the ledger."""

import hashlib
import json
from collections.abc import AsyncIterator, Iterable
from typing import Any

import msgspec
from msgspec import Struct, field

from guerdon.audit_log.models import AUDIT, Record
from guerdon.audit_log.rules import find_faults
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.database import Database, Document
from guerdon.erasable_data import ERASED, ERASURES
from guerdon.ledger.models import entry_id
from guerdon.ledger.store import ENTRIES
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.closings import check_recorded_closings

BATCH = 500


class _Head(Struct, frozen=True):
    wallet: str
    seq: int
    head: bytes


class _Certificate(Struct, frozen=True, kw_only=True):
    """Certificate of an erasure."""

    id: str = field(name="_id")
    asked_at: int
    asked_by: str
    request_id: str
    completed_at: int
    destroyed: dict[str, int]
    external_id_until: int | None
    before: list[_Head]
    after: list[_Head]

    @property
    def digest(self) -> str:
        """SHA-256 over the JSON of the certificate as the API shows it, without its own digest."""
        after = {head.wallet: head for head in self.after}
        view = {
            "member_id": self.id,
            "asked_at": rfc3339(self.asked_at),
            "asked_by": self.asked_by,
            "request_id": self.request_id,
            "completed_at": rfc3339(self.completed_at),
            "destroyed": self.destroyed,
            "external_id_until": optional_rfc3339(self.external_id_until),
            "wallets": [_wallet(head, after.get(head.wallet, head)) for head in self.before],
        }
        return hashlib.sha256(json.dumps(view, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()).hexdigest()


def _wallet(before: _Head, after: _Head) -> Document:
    return {
        "wallet": before.wallet,
        "seq_before": before.seq,
        "head_before": before.head.hex(),
        "seq_after": after.seq,
        "head_after": after.head.hex(),
    }


async def check_erasures(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the audit log after the record `after`, and then the certificates after the member `after`."""
    if not after or after.isdecimal():
        async for step in _check_records(database, int(after or 0), report_violation):
            yield step
        after = ""
    while True:
        rows = [row async for row in database.raw[ERASURES].find({"_id": {"$gt": after}}, limit=BATCH).sort("_id")]
        if not rows:
            return
        await _check_certificates(database, rows, report_violation)
        after = str(rows[-1]["_id"])
        yield len(rows), after


async def _check_records(database: Database, after: int, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the chain of the audit log, and that the certificate of each erasure and the figures of each closed month in it exist."""
    last = await _find_record(database, after)
    while True:
        rows = [row async for row in database.raw[AUDIT].find({"_id": {"$gt": after}}, limit=BATCH).sort("_id")]
        if not rows:
            return
        records: list[Record] = []
        for row in rows:
            try:
                records.append(msgspec.convert(row, Record, builtin_types=(bytes,)))
            except msgspec.ValidationError as error:
                report_violation("L15", f"{AUDIT}/{row['_id']}", f"the record is damaged: {error}")
        for fault in find_faults(records, last):
            report_violation("L15", AUDIT, fault)
        erased = {record.subject.get("member_id"): record for record in records if record.action == ERASED}
        where: Document = {"_id": {"$in": sorted(map(str, erased))}}
        found = {row["_id"] async for row in database.raw[ERASURES].find(where, {"_id": 1})}
        for member in sorted(map(str, erased.keys() - found)):
            report_violation(
                "L15", f"{ERASURES}/{member}", f"it does not exist; record {erased[member].id} of the audit log names it"
            )
        await check_recorded_closings(database, records, report_violation)
        last, after = records[-1] if records else last, rows[-1]["_id"]
        yield len(rows), str(after)


async def _find_record(database: Database, number: int) -> Record | None:
    row = await database.raw[AUDIT].find_one({"_id": number})
    return None if row is None else msgspec.convert(row, Record, builtin_types=(bytes,))


async def _check_certificates(database: Database, rows: Iterable[Document], report_violation: ReportViolation) -> None:
    certificates: list[_Certificate] = []
    for row in rows:
        try:
            certificates.append(msgspec.convert(row, _Certificate, builtin_types=(bytes,)))
        except msgspec.ValidationError as error:
            report_violation("L15", f"{ERASURES}/{row['_id']}", f"the certificate is damaged: {error}")
    members: Document = {"about": {"$in": [each.id for each in certificates]}, "action": ERASED}
    recorded: set[tuple[Any, Any]] = set()
    async for row in database.raw[AUDIT].find(members, {"facts": 1, "subject": 1}):
        recorded.add((row["subject"].get("member_id"), row["facts"].get("certificate")))
    heads = {
        entry_id(head.wallet, head.seq): head.head for each in certificates for head in (*each.before, *each.after) if head.seq
    }
    found: dict[str, bytes] = {}
    async for row in database.raw[ENTRIES].find({"_id": {"$in": sorted(heads)}}, {"hash": 1}):
        found[row["_id"]] = row["hash"]
    for each in certificates:
        where = f"{ERASURES}/{each.id}"
        if (each.id, each.digest) not in recorded:
            report_violation("L15", where, "the audit log does not contain its digest")
        for head in (*each.before, *each.after):
            if head.seq and found.get(entry_id(head.wallet, head.seq)) != head.head:
                report_violation("L15", where, f"entry {head.seq} of {head.wallet} does not have the certified hash")
