"""Sums of money computed from the entries and accounts by the database, and their classification by a table."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from guerdon.calendar import Calendar
from guerdon.database import Database, Document, Session
from guerdon.ledger.models import AWAITING_CONFIRMATION
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.reports.check.comparison import BUCKET, BUCKET_LENGTH, Key, Subtotal, Sums, add_to
from guerdon.views.models import COHORT_MONTHS, COHORTS, DAYS, FLOWS, LOTS, RANKINGS, TOTALS
from guerdon.vouchers.models import VOUCHERS

MONEY: Document = {"asset": {"$gte": "A", "$lt": "["}}
"""Filter of wallets and gift cards: the assets of accounts that count do not begin with a capital letter."""
_FLOWS: Mapping[tuple[str, bool], str] = {
    ("wallets", True): "transferred",
    ("wallets", False): "transferred",
    ("system:exchange", True): "transferred",
    ("system:exchange", False): "transferred",
    ("system:breakage", True): "expired",
    ("system:breakage", False): "expired",
    ("system:merchant", True): "restored",
    ("system:merchant", False): "redeemed",
}
"""Flow by counterparty, and by whether value arrives."""
_MOVES = {"earned": "earned", "loaded": "earned", "restored": "redeemed"}


def day_of(field: str, calendar: Calendar, form: str = "%Y-%m-%d") -> Document:
    """Return the expression for the day of a time in milliseconds."""
    return {"$dateToString": {"date": {"$toDate": field}, "format": form, "timezone": calendar.zone.key}}


def _promotional(lots: str) -> Document:
    """Return the expression for the promotional part of lots."""
    amount: Document = {"$cond": [{"$eq": ["$$lot.source", "promotional"]}, "$$lot.amount", 0]}
    return {"$sum": {"$map": {"input": {"$ifNull": [lots, []]}, "as": "lot", "in": amount}}}


_CLASS: Document = {
    "asset": "$asset",
    "kind": "$kind",
    "counterparty": {"$cond": [{"$eq": [{"$substrBytes": ["$counter", 0, 7]}, "system:"]}, "$counter", "wallets"]},
    "arrives": {"$gt": ["$amount", 0]},
    "promotional": {"$in": ["promotional", {"$ifNull": ["$lots.source", []]}]},
    "reversal": {"$eq": [{"$type": "$reverses"}, "string"]},
}
"""Fields that decide the flow of an entry."""


def _flow(group: Mapping[str, Any]) -> str:
    counterparty, arrives = group["counterparty"], group["arrives"]
    known = _FLOWS.get((counterparty, arrives))
    if known is not None:
        return known
    if counterparty not in ("system:issuer", "system:cash"):
        return "adjusted"
    if not arrives:
        return "clawed_back" if group["kind"] == "clawback" else "adjusted"
    if group["reversal"]:
        return "adjusted"
    return "earned" if group["promotional"] or group["kind"] == "award" else "loaded"


async def subtotals_of_money(database: Database, calendar: Calendar, session: Session) -> AsyncIterator[Subtotal]:
    """Yield the sums of all aggregates of money."""
    days: Sums = {}
    flows: Sums = {}
    months: Sums = {}
    campaigns: Sums = {}
    systems: Sums = {}
    async for group, amount, count in _days(database, calendar, session):
        day, asset, flow, counterparty = group["day"], group["asset"], _flow(group), group["counterparty"]
        add_to(days, (day, asset, flow, group["kind"], counterparty, group.get("campaign", "")), (amount, count))
        for unit, period in (("day", day), ("month", day[:7])):
            add_to(flows, (asset, unit, period, flow, counterparty), (amount, count))
        add_to(months, (asset, day[:7], _MOVES.get(flow, flow)), (amount,))
        add_to(systems, (asset, counterparty), (amount,))
        if group["kind"] == "award":
            add_to(campaigns, (asset, group.get("campaign", ""), int(group.get("version", "0")), "earned"), (amount,))
    by_class = ("day", "asset", "flow", "kind", "counterparty", "campaign")
    yield Subtotal(DAYS, by_class, ("amount", "count"), days)
    yield Subtotal(DAYS, ("asset", "counterparty"), ("amount",), systems)
    yield Subtotal(FLOWS, ("asset", "unit", "period", "flow", "counterparty"), ("amount", "count"), flows)
    for aggregate in (COHORTS, COHORT_MONTHS):
        yield Subtotal(aggregate, ("asset", "month", "move"), ("amount",), months)
    totals, lots, sources = await _accounts(database, calendar, session)
    yield Subtotal(TOTALS, TOTALS.key, TOTALS.sums, totals)
    yield Subtotal(LOTS, LOTS.key, LOTS.sums, lots)
    yield Subtotal(DAYS, ("asset",), ("paid", "promotional"), sources)
    halves: Sums = {(*key, unit): values for key, values in sources.items() for unit in ("day", "month")}
    yield Subtotal(FLOWS, ("asset", "unit"), ("paid", "promotional"), halves)
    offers: Sums = {}
    async for key, values in _offers(database, session):
        add_to(offers, key, values)
    yield Subtotal(DAYS, ("asset", "kind", "offer"), ("amount",), offers)
    yield Subtotal(RANKINGS, ("period", "asset", BUCKET), RANKINGS.sums, await _rankings(database, calendar, session))
    by_campaign = ("asset", "campaign", "campaign_version", "move")
    yield Subtotal(COHORTS, by_campaign, ("amount",), campaigns, lambda key: key[1] != "" and key[3] == "earned")


async def _days(database: Database, calendar: Calendar, session: Session) -> AsyncIterator[tuple[Mapping[str, Any], int, int]]:
    awards: Document = {"$in": ["$kind", ["award", "clawback"]]}
    key: Document = {
        **_CLASS,
        "day": day_of("$at", calendar),
        "campaign": {"$cond": [awards, {"$ifNull": ["$metadata.campaign", ""]}, ""]},
        "version": {"$cond": [awards, {"$ifNull": ["$metadata.version", "0"]}, "0"]},
    }
    pipeline: list[Document] = [
        {"$match": {**MONEY, "amount": {"$ne": 0, "$exists": True}}},
        {"$group": {"_id": key, "amount": {"$sum": "$amount"}, "count": {"$sum": 1}}},
    ]
    rows = await database.raw[ENTRIES].aggregate(pipeline, session=session, allowDiskUse=True)
    async for row in rows:
        yield row["_id"], int(row["amount"]), int(row["count"])


async def _rankings(database: Database, calendar: Calendar, session: Session) -> Sums:
    key: Document = {
        **_CLASS,
        "month": day_of("$at", calendar, "%Y-%m"),
        "bucket": {"$substrBytes": ["$owner", 0, BUCKET_LENGTH]},
    }
    pipeline: list[Document] = [
        {"$match": {**MONEY, "amount": {"$ne": 0, "$exists": True}, "owner": {"$gte": "mem_", "$lt": "mem`"}}},
        {"$group": {"_id": key, "amount": {"$sum": "$amount"}}},
    ]
    found: Sums = {}
    rows = await database.raw[ENTRIES].aggregate(pipeline, session=session, allowDiskUse=True)
    async for row in rows:
        group: Mapping[str, Any] = row["_id"]
        flow, amount = _flow(group), int(row["amount"])
        earned = amount if flow in ("earned", "clawed_back") else 0
        spent = -amount if flow in ("redeemed", "restored") else 0
        for period in (group["month"], group["month"][:4], "all"):
            add_to(found, (period, group["asset"], group["bucket"]), (earned, spent))
    return found


async def _offers(database: Database, session: Session) -> AsyncIterator[tuple[Key, tuple[int, ...]]]:
    """Yield amounts by asset, kind and offer: that of a payment is in the entry, that of a gift card in the voucher."""
    returned: Document = {"$and": [{"$eq": ["$kind", "reversal"]}, {"$lte": ["$key", None]}, {"$lte": ["$transaction", None]}]}
    card: Document = {"$eq": [{"$substrBytes": ["$owner", 0, 4]}, "vch_"]}
    key: Document = {
        "asset": "$asset",
        "kind": "$kind",
        "offer": {"$cond": [{"$or": [{"$eq": ["$kind", "redeem"]}, returned]}, {"$ifNull": ["$metadata.offer", ""]}, ""]},
        "card": {"$cond": [card, "$owner", ""]},
    }
    join: Document = {"from": VOUCHERS, "localField": "_id.card", "foreignField": "_id", "as": "voucher"}
    pipeline: list[Document] = [
        {"$match": {**MONEY, "amount": {"$ne": 0, "$exists": True}}},
        {"$group": {"_id": key, "amount": {"$sum": "$amount"}}},
        {"$lookup": join},
    ]
    rows = await database.raw[ENTRIES].aggregate(pipeline, session=session, allowDiskUse=True)
    async for row in rows:
        group: Mapping[str, Any] = row["_id"]
        vouchers: list[Mapping[str, Any]] = row["voucher"]
        offer = vouchers[0]["offer"] if vouchers else group["offer"]
        yield (group["asset"], group["kind"], offer), (int(row["amount"]),)


async def _accounts(database: Database, calendar: Calendar, session: Session) -> tuple[Sums, Sums, Sums]:
    """Return the totals, the lots, and the paid and promotional value, from the accounts."""
    totals: Sums = {}
    lots: Sums = {}
    sources: Sums = {}
    match: Document = {"$match": {**MONEY, "seq": {"$gt": 0}}}
    debt: Document = {"$cond": [{"$lt": ["$balance", 0]}, "$balance", 0]}
    held_lots: Document = {
        "$reduce": {"input": {"$ifNull": ["$holds.lots", []]}, "initialValue": [], "in": {"$concatArrays": ["$$value", "$$this"]}}
    }
    group: Document = {
        "_id": {"asset": "$asset"},
        "wallets": {"$sum": 1},
        "balance": {"$sum": "$balance"},
        "held": {"$sum": "$held"},
        "debt": {"$sum": debt},
        "dated": {"$sum": {"$add": [{"$sum": "$lots.amount"}, {"$sum": "$held_lots.amount"}]}},
        "dated_held": {"$sum": {"$sum": "$held_lots.amount"}},
        "promotional": {"$sum": {"$add": [_promotional("$lots"), _promotional("$held_lots")]}},
    }
    rows = await database.raw[ACCOUNTS].aggregate([match, {"$set": {"held_lots": held_lots}}, {"$group": group}], session=session)
    async for row in rows:
        asset, balance, held = row["_id"]["asset"], int(row["balance"]), int(row["held"])
        totals[asset,] = tuple(int(row[name]) for name in TOTALS.sums)
        promotional = int(row["promotional"])
        sources[asset,] = (balance - promotional, promotional)
        add_to(lots, (asset, "paid", "", ""), (balance - int(row["dated"]), held - int(row["dated_held"])))
    for name, path in (("amount", "$lots"), ("held", "$holds.lots")):
        unwound = [{"$unwind": "$holds"}, {"$unwind": "$holds.lots"}] if name == "held" else [{"$unwind": "$lots"}]
        lot = path.removeprefix("$")
        key: Document = {
            "asset": "$asset",
            "source": {"$ifNull": [f"${lot}.source", "paid"]},
            "available_on": _day_or_none(f"${lot}.available_at", calendar),
            "expires_on": _day_or_none(f"${lot}.expires_at", calendar),
        }
        rows = await database.raw[ACCOUNTS].aggregate(
            [match, *unwound, {"$group": {"_id": key, "amount": {"$sum": f"${lot}.amount"}}}], session=session
        )
        async for row in rows:
            amount = int(row["amount"])
            add_to(lots, tuple(row["_id"][name] for name in LOTS.key), (amount, amount if name == "held" else 0))
    return totals, lots, sources


def _day_or_none(field: str, calendar: Calendar) -> Document:
    waiting: Document = {"case": {"$eq": [field, AWAITING_CONFIRMATION]}, "then": "awaiting"}
    dated: Document = {"case": {"$gt": [field, None]}, "then": day_of(field, calendar)}
    return {"$switch": {"branches": [waiting, dated], "default": ""}}
