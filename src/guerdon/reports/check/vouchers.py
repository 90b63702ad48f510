"""Sums of vouchers computed from the entries and vouchers by the database."""

from collections.abc import Mapping
from typing import Any

from guerdon.calendar import Calendar
from guerdon.database import Database, Document, Session
from guerdon.ledger.store import ENTRIES
from guerdon.reports.check.comparison import Subtotal, Sums, add_to
from guerdon.reports.check.money import day_of
from guerdon.views.models import OFFERS
from guerdon.vouchers.models import VOUCHERS

_STEPS = {"use": "used", "unuse": "unused", "load": "loaded", "cancel": "cancelled", "expiry": "expired"}


async def subtotal_of_offers(database: Database, calendar: Calendar, session: Session) -> Subtotal:
    """Return the moves of vouchers by day and offer."""
    found: Sums = {}
    for cards in (True, False):
        await _add_steps(database, calendar, session, found, cards=cards)
    await _add_issues(database, calendar, session, found)
    return Subtotal(OFFERS, ("day", "offer", "move"), OFFERS.sums, found)


async def _add_steps(database: Database, calendar: Calendar, session: Session, found: Sums, *, cards: bool) -> None:
    accounts: Document = (
        {"owner": {"$gte": "vch_", "$lt": "vch`"}, "asset": {"$gte": "A", "$lt": "["}}
        if cards
        else {"asset": {"$gte": "uses.", "$lt": "uses/"}}
    )
    key: Document = {
        "day": day_of("$at", calendar),
        "voucher": "$owner" if cards else {"$substrBytes": ["$asset", 5, -1]},
        "kind": "$kind",
        "moves": {"$ne": ["$amount", 0]},
        "holds": {"$cmp": [{"$ifNull": ["$hold.change", 0]}, 0]},
        "discount": {"$ifNull": ["$metadata.discount", "0"]},
    }
    pipeline: list[Document] = [
        {"$match": {**accounts, "balance_after": {"$exists": True}}},
        {
            "$group": {
                "_id": key,
                "count": {"$sum": 1},
                "amount": {"$sum": {"$abs": "$amount"}},
                "held": {"$sum": {"$abs": {"$ifNull": ["$hold.change", 0]}}},
            }
        },
        {"$lookup": {"from": VOUCHERS, "localField": "_id.voucher", "foreignField": "_id", "as": "row"}},
    ]
    rows = await database.raw[ENTRIES].aggregate(pipeline, session=session, allowDiskUse=True)
    async for row in rows:
        vouchers: list[Mapping[str, Any]] = row["row"]
        group: Mapping[str, Any] = row["_id"]
        move, count, amount = _step(group, row, cards=cards)
        if move is not None:
            add_to(found, (group["day"], vouchers[0]["offer"] if vouchers else "", move), (count, amount))


def _step(group: Mapping[str, Any], row: Mapping[str, Any], *, cards: bool) -> tuple[str | None, int, int]:
    """Return the move of a group of entries, its count and amount; None for entries that are none."""
    kind, entries, amount, held = group["kind"], int(row["count"]), int(row["amount"]), int(row["held"])
    if kind == "issue":
        return ("issued", 0, amount) if cards else (None, 0, 0)
    if group["holds"] and not group["moves"]:
        move = "reserved" if group["holds"] > 0 else "released"
        count = 0 if kind == "void" and move == "released" else entries if cards else held
        return move, count, held if cards else 0
    money = amount if cards else int(group["discount"]) * entries if kind == "use" else 0
    return _STEPS.get(kind), entries if cards else amount, money


async def _add_issues(database: Database, calendar: Calendar, session: Session, found: Sums) -> None:
    """Add what the stocks of the offers counted, without vouchers that were cancelled."""
    alternatives: list[Document] = [{"kind": "issue"}, {"kind": "cancel", "metadata.voucher": {"$exists": False}}]
    pipeline: list[Document] = [
        {"$match": {"asset": "stock", "$or": alternatives}},
        {"$group": {"_id": {"day": day_of("$at", calendar), "offer": "$owner"}, "count": {"$sum": "$amount"}}},
    ]
    rows = await database.raw[ENTRIES].aggregate(pipeline, session=session, allowDiskUse=True)
    async for row in rows:
        add_to(found, (row["_id"]["day"], row["_id"]["offer"], "issued"), (int(row["count"]), 0))
