"""Value that is left by its dates: what expires, and what has expired and is not written off yet."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from guerdon.database import Document
from guerdon.http.cursor import decode_text, encode_cursor
from guerdon.reports.reading import Snapshot
from guerdon.views.models import ACCOUNT_STATES, LOTS

AWAITING = "awaiting"
"""`available_on` of value that awaits a confirmation."""
_CURSOR = re.compile(r"(-?[0-9]{1,16}):([\x21-\x7e]{1,100})\Z")


class LotSum(NamedTuple):
    """Value that is left of all lots with these dates."""

    source: str
    available_on: str
    expires_on: str
    amount: int
    held: int


class ExpiredSum(NamedTuple):
    """Value past its expiry that is not written off yet and not held."""

    source: str
    expires_at: int
    month: str
    """Month in which it was earned."""
    amount: int


async def read_lots(snapshot: Snapshot, asset: str, where: Mapping[str, Any] | None = None) -> list[LotSum]:
    """Return the sums of the lots that match `where`."""
    rows = await snapshot.sums(LOTS, {"asset": asset, **(where or {})}, ("source", "available_on", "expires_on"))
    return [LotSum(row["source"], row["available_on"], row["expires_on"], row["amount"], row["held"]) for row in rows]


async def read_expired(snapshot: Snapshot, asset: str, now_ms: int) -> list[ExpiredSum]:
    """Return what has expired and is not written off yet. An index finds the accounts, of which the sweeper leaves few."""
    states = snapshot.database.raw[ACCOUNT_STATES]
    where = {"version": snapshot.version, "asset": asset, "next_expires_at": {"$lte": now_ms}}
    pipeline: list[Document] = [
        {"$match": where},
        {"$unwind": "$queues"},
        {"$match": {"queues.expires_at": {"$lte": now_ms}}},
        {"$unwind": "$queues.cohorts"},
        {
            "$group": {
                "_id": {"source": "$queues.source", "expires_at": "$queues.expires_at", "month": "$queues.cohorts.month"},
                "amount": {"$sum": "$queues.cohorts.amount"},
            }
        },
        {"$sort": {"_id": 1}},
    ]
    rows = [row async for row in await states.aggregate(pipeline, session=snapshot.session)]
    if not rows:
        return []
    held_pipeline: list[Document] = [
        {"$match": {**where, "holds": {"$exists": True}}},
        {"$unwind": "$holds"},
        {"$unwind": "$holds.lots"},
        {"$match": {"holds.lots.expires_at": {"$lte": now_ms}}},
        {
            "$group": {
                "_id": {"source": {"$ifNull": ["$holds.lots.source", "paid"]}, "expires_at": "$holds.lots.expires_at"},
                "amount": {"$sum": "$holds.lots.amount"},
            }
        },
    ]
    held = {
        (row["_id"]["source"], row["_id"]["expires_at"]): int(row["amount"])
        async for row in await states.aggregate(held_pipeline, session=snapshot.session)
    }
    return _without_held(rows, held)


def _without_held(rows: Iterable[Document], held: dict[tuple[str, int], int]) -> list[ExpiredSum]:
    """Subtract held value, which does not expire while it is held, from the months in which it was earned first."""
    expired: list[ExpiredSum] = []
    for row in rows:
        name, amount = row["_id"], int(row["amount"])
        key = (name["source"], name["expires_at"])
        part = min(held.get(key, 0), amount)
        held[key] = held.get(key, 0) - part
        if amount > part:
            expired.append(ExpiredSum(name["source"], name["expires_at"], name["month"], amount - part))
    return expired


# --- accounts -------------------------------------------------------------------------------------------------------


class ExpiringAccount(NamedTuple):
    """Value of one account that expires in a range of time."""

    account: str
    owner: str
    amount: int
    expires_at: int
    """Time at which the first part of it expires."""


async def read_expiring_accounts(
    snapshot: Snapshot, asset: str, times: tuple[int, int], limit: int, cursor: str | None
) -> tuple[list[ExpiringAccount], str | None]:
    """Return one page of accounts with value that expires after the first and before the second time, and the cursor of the next page.

    Raises:
        Validation: the cursor is invalid.
    """
    now_ms, before_ms = times
    where: Document = {"version": snapshot.version, "asset": asset, "next_expires_at": {"$lt": before_ms}}
    if cursor is not None:
        at, _, account = decode_text(cursor, _CURSOR).partition(":")
        after: list[Document] = [{"next_expires_at": {"$gt": int(at)}}, {"next_expires_at": int(at), "account": {"$gt": account}}]
        where = {"$and": [where, {"$or": after}]}
    rows = await (
        snapshot.database.raw[ACCOUNT_STATES]
        .find(where, {"account": 1, "owner": 1, "next_expires_at": 1, "queues": 1, "holds": 1}, session=snapshot.session)
        .sort([("next_expires_at", 1), ("account", 1)])
        .limit(limit)
        .to_list()
    )
    expiring = [each for row in rows if (each := _expiring(row, now_ms, before_ms)) is not None]
    last = rows[-1] if len(rows) == limit else None
    return expiring, None if last is None else encode_cursor(f"{last['next_expires_at']}:{last['account']}")


def _expiring(row: Document, now_ms: int, before_ms: int) -> ExpiringAccount | None:
    amounts: dict[int, int] = {}
    for queue in row.get("queues", ()):
        add(amounts, queue, sum(cohort["amount"] for cohort in queue.get("cohorts", ())))
    for hold in row.get("holds", ()):
        for lot in hold["lots"]:
            add(amounts, lot, -lot["amount"])
    due = {at: amount for at, amount in amounts.items() if now_ms < at < before_ms and amount > 0}
    return ExpiringAccount(row["account"], row["owner"], sum(due.values()), min(due)) if due else None


def add(amounts: dict[int, int], dated: Document, amount: int) -> None:
    """Add an amount to the sum of its expiry time. Value that does not expire is left out."""
    expires_at = dated.get("expires_at")
    if expires_at is not None:
        amounts[expires_at] = amounts.get(expires_at, 0) + amount


def total_amount(rows: Sequence[LotSum]) -> int:
    return sum(row.amount for row in rows)
