"""L5 of expired lots: refunds count no more value as expired than has expired.

A refund does not take back value that has expired in the lot of its award. The document of the lot has what refunds have counted so far. It is
compared with the expiry entries of its wallet, and with the value of the lot that is in the wallet and may have expired since without an entry.
"""

import re
from collections import Counter
from collections.abc import AsyncIterator, Iterable

import msgspec
from msgspec import Struct

from guerdon.campaigns.domain import EXPIRED_LOTS
from guerdon.database import Database, Document
from guerdon.ledger.models import Hold, Lot
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.verification.account_replay import ReportViolation
from guerdon.verification.rows import StoredRow, decode_row, decode_rows

LOTS_PAGE = 200
_NAME = re.compile(r"((.{1,60}):[^:/]{1,20})/([0-9]{1,15})\Z")
LotName = tuple[str, int]
"""Wallet and expiry date with which the value was granted."""


class ExpiredLotRow(StoredRow, frozen=True, kw_only=True):
    """Document of an expired lot."""

    owner: str
    count: int = 0
    counted: int = 0


class LotsRow(StoredRow, frozen=True, kw_only=True):
    """Lots and holds of an account."""

    lots: tuple[Lot, ...] | None = None
    holds: tuple[Hold, ...] = ()


class ExpiryRow(StoredRow, frozen=True, kw_only=True):
    """Lots that an expiry entry has written off."""

    lots: tuple[Lot, ...] = ()


class _Parts(Struct, frozen=True):
    """A document with the parts of its id."""

    row: ExpiredLotRow
    wallet: str
    expires_at: int


async def check_expired_lots(database: Database, after: str, report_violation: ReportViolation) -> AsyncIterator[tuple[int, str]]:
    """Check the expired lots after the id `after`. Yield the number of documents and the last id of each page."""
    while True:
        cursor = database.raw[EXPIRED_LOTS].find({"_id": {"$gt": after}}, limit=LOTS_PAGE).sort("_id")
        documents = [document async for document in cursor]
        if not documents:
            return
        found = [parts for document in documents if (parts := _parts_of(document, report_violation)) is not None]
        # In this order: value that expires meanwhile is then found in the account, in an entry, or in both.
        limits = await _in_wallets(database, found)
        limits.update(await _written_off(database, found))
        for parts in found:
            expired = limits[parts.wallet, parts.expires_at]
            if parts.row.counted > expired:
                report_violation(
                    "L5",
                    f"{EXPIRED_LOTS}/{parts.row.id}",
                    f"refunds have counted {parts.row.counted} as expired, and no more than {expired} can have expired",
                )
        after = str(documents[-1]["_id"])
        yield len(documents), after


def _parts_of(document: Document, report_violation: ReportViolation) -> _Parts | None:
    where = f"{EXPIRED_LOTS}/{document['_id']}"
    try:
        row = decode_row(document, ExpiredLotRow)
    except msgspec.ValidationError as error:
        report_violation("L5", where, f"the document is damaged: {error}")
        return None
    name = _NAME.match(row.id)
    if name is None or row.owner != name[2] or row.count < 1 or row.counted < 1:
        report_violation("L5", where, "the document is not that of a wallet of its owner, or has counted nothing")
        return None
    return _Parts(row, name[1], int(name[3]))


async def _in_wallets(database: Database, found: Iterable[_Parts]) -> Counter[LotName]:
    """Return the dated promotional value that is in the wallets, free or held."""
    wallets, owners = sorted({parts.wallet for parts in found}), sorted({parts.row.owner for parts in found})
    where: Document = {"_id": {"$in": wallets}, "owner": {"$in": owners}}
    rows = [row async for row in database.raw[ACCOUNTS].find(where, {"lots": 1, "holds": 1})]
    amounts: Counter[LotName] = Counter()
    for account in decode_rows(rows, LotsRow).values():
        held = (lot for hold in account.holds for lot in hold.lots)
        for lot in (*(account.lots or ()), *held):
            _count(amounts, account.id, lot, lot.amount)
    return amounts


async def _written_off(database: Database, found: Iterable[_Parts]) -> Counter[LotName]:
    """Return the promotional value that expiry entries have written off, also if a reversal has returned it."""
    wallets = {parts.wallet for parts in found}
    where: Document = {"owner": {"$in": sorted({parts.row.owner for parts in found})}, "kind": "expiry"}
    rows = [row async for row in database.raw[ENTRIES].find(where, {"lots": 1}, hint="expired")]
    amounts: Counter[LotName] = Counter()
    for entry in decode_rows(rows, ExpiryRow).values():
        wallet = entry.id.rpartition("#")[0]
        if wallet in wallets:
            for lot in entry.lots:
                _count(amounts, wallet, lot, -lot.amount)
    return amounts


def _count(amounts: Counter[LotName], wallet: str, lot: Lot, amount: int) -> None:
    if lot.source == "promotional" and lot.granted_until is not None:
        amounts[wallet, lot.granted_until] += amount
