"""Sums of events computed from the events and voids by the database."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, PURCHASE, REFUND, TIER_CHANGES
from guerdon.database import Database, Document, Session
from guerdon.reports.check.comparison import Subtotal, Sums, add_to
from guerdon.reports.check.money import day_of
from guerdon.views.models import CAMPAIGN_MEMBERS, DECISIONS, MEMBER_MONTHS, PURCHASES, TIER_STEPS

_IS_REFUND: Document = {"$eq": ["$type", REFUND]}
_IS_LINKED: Document = {"$gt": ["$refund_of", None]}
_AMOUNT: Document = {
    "$cond": [
        _IS_REFUND,
        {"$cond": [{"$eq": [{"$type": "$inputs.before.voided"}, "object"]}, 0, {"$subtract": [0, "$amount"]}]},
        "$amount",
    ]
}
"""Amount of an event with its sign; 0 for a refund of a purchase that was voided before."""
_LEFT: Document = {"$subtract": ["$voided.amount", {"$ifNull": ["$voided.refunded", 0]}]}
"""Amount of a voided event that its refunds had left."""


async def subtotals_of_events(database: Database, calendar: Calendar, session: Session) -> AsyncIterator[Subtotal]:
    """Yield the sums of all aggregates of events."""
    yield Subtotal(PURCHASES, PURCHASES.key, PURCHASES.sums, await _purchases(database, calendar, session))
    yield Subtotal(DECISIONS, DECISIONS.key, DECISIONS.sums, await _decisions(database, calendar, session))
    yield Subtotal(CAMPAIGN_MEMBERS, CAMPAIGN_MEMBERS.key, CAMPAIGN_MEMBERS.sums, await _campaign_members(database, session))
    yield Subtotal(MEMBER_MONTHS, MEMBER_MONTHS.key, MEMBER_MONTHS.sums, await _member_months(database, calendar, session))
    yield Subtotal(TIER_STEPS, TIER_STEPS.key, TIER_STEPS.sums, await _tier_steps(database, calendar, session))


async def _purchases(database: Database, calendar: Calendar, session: Session) -> Sums:
    found: Sums = {}
    key: Document = {"day": day_of("$occurred_at", calendar), "currency": "$currency", "type": "$type"}
    group: Document = {"_id": key, "count": {"$sum": 1}, "amount": {"$sum": _AMOUNT}}
    async for row in await database.raw[EVENTS].aggregate([{"$group": group}], session=session, allowDiskUse=True):
        named: Mapping[str, Any] = row["_id"]
        add_to(found, (named["day"], named["currency"], named["type"]), (int(row["count"]), int(row["amount"])))
    key = {"day": day_of("$recorded_at", calendar), "currency": {"$ifNull": ["$voided.currency", ""]}}
    sold: Document = {"$cond": [{"$eq": ["$voided.type", PURCHASE]}, _LEFT, 0]}
    group = {"_id": key, "count": {"$sum": 1}, "amount": {"$sum": sold}}
    async for row in await database.raw[EVENT_VOIDS].aggregate([{"$group": group}], session=session):
        add_to(found, (row["_id"]["day"], row["_id"]["currency"], "void"), (int(row["count"]), -int(row["amount"])))
    return found


async def _decisions(database: Database, calendar: Calendar, session: Session) -> Sums:
    found: Sums = {}
    key: Document = {
        "day": day_of("$occurred_at", calendar),
        "currency": "$currency",
        "campaign": "$decisions.campaign",
        "version": "$decisions.version",
        "outcome": "$decisions.outcome",
        "refund": _IS_REFUND,
        "linked": _IS_LINKED,
        "again": {"$lt": [{"$indexOfArray": ["$campaigns", "$decisions.campaign"]}, "$index"]},
        "zero": {"$eq": ["$decisions.amount", 0]},
        # A decision after the first one counts the revenue only if no other one has.
        "earlier": {
            "$size": {
                "$filter": {
                    "input": {"$slice": ["$campaigns", {"$add": ["$index", 1]}]},
                    "cond": {"$eq": ["$$this", "$decisions.campaign"]},
                }
            }
        },
    }
    pipeline: list[Document] = [
        {"$match": {"confirms": None}},
        {"$set": {"campaigns": "$decisions.campaign"}},
        {"$unwind": {"path": "$decisions", "includeArrayIndex": "index"}},
        {
            "$group": {
                "_id": key,
                "count": {"$sum": 1},
                "amount": {"$sum": "$decisions.amount"},
                "value": {"$sum": _AMOUNT},
                "before": {"$sum": {"$ifNull": ["$inputs.before.amount", 0]}},
            }
        },
    ]
    async for row in await database.raw[EVENTS].aggregate(pipeline, session=session, allowDiskUse=True):
        named: Mapping[str, Any] = row["_id"]
        outcome, revenue, count = named["outcome"], int(row["value"]), int(row["count"])
        if named["linked"]:
            outcome, revenue = "taken_back", revenue if named["earlier"] == 1 else 0
        elif named["again"]:
            outcome, revenue = "taken_back", -int(row["before"]) if named["earlier"] == 2 else 0
        elif outcome == "awarded":
            outcome = "taken_back" if named["refund"] else outcome
        else:
            revenue = 0
        counted = 0 if outcome == "taken_back" and named["zero"] else count
        row_key = (named["day"], named["campaign"], named["version"], outcome, named["currency"])
        add_to(found, row_key, (counted, int(row["amount"]), revenue))
    await _add_releases(database, calendar, session, found)
    await _add_voids(database, calendar, session, found)
    return found


async def _add_releases(database: Database, calendar: Calendar, session: Session, found: Sums) -> None:
    key: Document = {
        "day": day_of("$occurred_at", calendar),
        "campaign": "$releases.campaign",
        "version": "$releases.version",
        "currency": "$currency",
    }
    pipeline: list[Document] = [
        {"$match": {"confirms": {"$gt": ""}}},
        {"$unwind": "$releases"},
        {"$group": {"_id": key, "count": {"$sum": 1}, "amount": {"$sum": "$releases.amount"}}},
    ]
    async for row in await database.raw[EVENTS].aggregate(pipeline, session=session, allowDiskUse=True):
        named: Mapping[str, Any] = row["_id"]
        row_key = (named["day"], named["campaign"], named["version"], "released", named["currency"])
        add_to(found, row_key, (int(row["count"]), int(row["amount"]), 0))


async def _add_voids(database: Database, calendar: Calendar, session: Session, found: Sums) -> None:
    key: Document = {
        "day": day_of("$recorded_at", calendar),
        "campaign": "$voided.taken.campaign",
        "version": "$voided.taken.version",
        "currency": "$voided.currency",
    }
    first: Document = {"$eq": [{"$indexOfArray": ["$campaigns", "$voided.taken.campaign"]}, "$index"]}
    pipeline: list[Document] = [
        {"$set": {"campaigns": "$voided.taken.campaign"}},
        {"$unwind": {"path": "$voided.taken", "includeArrayIndex": "index"}},
        {
            "$group": {
                "_id": key,
                "count": {"$sum": 1},
                "amount": {"$sum": "$voided.taken.amount"},
                "left": {"$sum": {"$cond": [first, _LEFT, 0]}},
            }
        },
    ]
    async for row in await database.raw[EVENT_VOIDS].aggregate(pipeline, session=session):
        named: Mapping[str, Any] = row["_id"]
        row_key = (named["day"], named["campaign"], named["version"], "taken_back", named["currency"])
        add_to(found, row_key, (int(row["count"]), -int(row["amount"]), -int(row["left"])))


async def _campaign_members(database: Database, session: Session) -> Sums:
    pipeline: list[Document] = [
        {"$match": {"type": {"$ne": REFUND}, "confirms": None}},
        {"$unwind": "$decisions"},
        {"$match": {"decisions.outcome": "awarded", "decisions.amount": {"$gt": 0}}},
        {"$group": {"_id": {"campaign": "$decisions.campaign", "owner": "$owner"}}},
        {"$group": {"_id": "$_id.campaign", "members": {"$sum": 1}}},
    ]
    rows = await database.raw[EVENTS].aggregate(pipeline, session=session, allowDiskUse=True)
    return {(row["_id"],): (int(row["members"]),) async for row in rows}


async def _tier_steps(database: Database, calendar: Calendar, session: Session) -> Sums:
    day = day_of("$at", calendar)
    key: Document = {"day": day, "before": {"$ifNull": ["$before", ""]}, "after": {"$ifNull": ["$after", ""]}}
    rows = await database.raw[TIER_CHANGES].aggregate([{"$group": {"_id": key, "members": {"$sum": 1}}}], session=session)
    return {(row["_id"]["day"], row["_id"]["before"], row["_id"]["after"]): (int(row["members"]),) async for row in rows}


async def _member_months(database: Database, calendar: Calendar, session: Session) -> Sums:
    voids: list[Document] = [
        {"$match": {"voided.type": PURCHASE, "voided.amount": {"$gte": 0}}},
        {"$project": {"owner": 1, "at": "$voided.occurred_at", "count": {"$literal": -1}}},
    ]
    pipeline: list[Document] = [
        {"$match": {"type": PURCHASE, "amount": {"$gte": 0}}},
        {"$project": {"owner": 1, "at": "$occurred_at", "count": {"$literal": 1}}},
        {"$unionWith": {"coll": EVENT_VOIDS, "pipeline": voids}},
        {"$group": {"_id": {"owner": "$owner", "month": day_of("$at", calendar, "%Y-%m")}, "count": {"$sum": "$count"}}},
        {"$match": {"count": {"$gt": 0}}},
        {"$group": {"_id": "$_id.owner", "first": {"$min": "$_id.month"}, "months": {"$push": "$_id.month"}}},
        {"$unwind": "$months"},
        {"$group": {"_id": {"first": "$first", "month": "$months"}, "members": {"$sum": 1}}},
    ]
    rows = await database.raw[EVENTS].aggregate(pipeline, session=session, allowDiskUse=True)
    return {(row["_id"]["first"], row["_id"]["month"]): (int(row["members"]),) async for row in rows}
