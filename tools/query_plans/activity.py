"""Queries of the reports on campaigns, offers and members, and their cases. They read rows of the views, of which a report needs whole ranges."""

from collections.abc import Iterator
from typing import Any

from guerdon.campaigns.models import CAMPAIGNS
from guerdon.database import Document
from guerdon.offers.models import OFFER_REFUSALS, OFFERS
from guerdon.projections.models import Aggregate
from guerdon.views import models as views
from tools.query_plans.notation import DOWN, Query, find
from tools.query_plans.shapes import AGGREGATE

Cases = Iterator[tuple[str, str, dict[str, Any]]]
ROWS_MAX = 20_000
"""Number of rows that a report may examine: days of a year, in 16 partitions each."""
_VERSION = 1
_DAYS: Document = {"$gte": ":first", "$lt": ":last"}
_CAMPAIGNS = "GET /v1/reports/campaigns, /v1/reports/campaigns/{campaign_id}"
_OFFERS = "GET /v1/reports/offers, /v1/reports/offers/{offer_id}"
_MEMBERS = "GET /v1/reports/members"
_STATUSES = ["active", "ended", "paused"]


def _sums(name: str, callers: str, collection: str, where: Document) -> Query:
    command: Document = {
        AGGREGATE: collection,
        "pipeline": [{"$match": {"version": ":version", **where}}, {"$group": {"_id": None}}],
        "cursor": {},
    }
    return Query(name, "request", callers, command, bound=ROWS_MAX)


def _of(name: str, where: Document) -> Document:
    return {name: {"$in": ":ids"}, **where}


ACTIVITY_QUERIES = [
    Query(
        "campaigns.past_drafts",
        "request",
        _CAMPAIGNS,
        find(CAMPAIGNS, {"status": {"$in": ":statuses"}}, sort=DOWN, limit=True),
        seeks=2,
    ),
    Query("offers.past_drafts", "request", _OFFERS, find(OFFERS, {"status": {"$in": ":statuses"}}, sort=DOWN, limit=True), seeks=2),
    _sums("decisions.sums", _CAMPAIGNS, views.DECISIONS.collection, _of("campaign", {"day": _DAYS})),
    _sums(
        "cohorts.kept",
        _CAMPAIGNS,
        views.COHORTS.collection,
        _of("campaign", {"move": {"$in": ":moves"}, "month": {"$gte": ":first", "$lte": ":last"}}),
    ),
    _sums("campaign_members.sums", _CAMPAIGNS, views.CAMPAIGN_MEMBERS.collection, _of("campaign", {})),
    _sums(
        "days.pace",
        _CAMPAIGNS,
        views.DAYS.collection,
        _of("campaign", {"day": {"$gte": ":first", "$lte": ":last"}, "flow": {"$in": ":flows"}}),
    ),
    _sums("offers.moves", _OFFERS, views.OFFERS.collection, _of("offer", {"day": _DAYS})),
    _sums("days.prices", _OFFERS, views.DAYS.collection, _of("offer", {"day": _DAYS, "kind": ":kind"})),
    Query("offer_refusals.some", "request", _OFFERS, find(OFFER_REFUSALS, _of("offer", {"day": _DAYS})), bound=ROWS_MAX),
    _sums("member_months.bought", _MEMBERS, views.MEMBER_MONTHS.collection, {"month": {"$gte": ":first", "$lte": ":last"}}),
    _sums(
        "member_months.cohorts",
        _MEMBERS,
        views.MEMBER_MONTHS.collection,
        {"first_month": {"$gte": ":first", "$lte": ":last"}, "month": {"$lte": ":present"}},
    ),
    Query(
        "members.active",
        "request",
        _MEMBERS,
        {
            AGGREGATE: views.MEMBER_STATES,
            "pipeline": [
                {"$match": {"version": ":version", "last_event_at": {"$gt": ":since"}}},
                {"$group": {"_id": 1, "n": {"$sum": 1}}},
            ],
            "cursor": {},
        },
        bound=ROWS_MAX,
    ),
    _sums("tier_steps.before", _MEMBERS, views.TIER_STEPS.collection, {"day": {"$lt": ":last"}}),
    _sums("tier_steps.sums", _MEMBERS, views.TIER_STEPS.collection, {"day": _DAYS}),
    Query(
        "offer_refusals.write",
        "job",
        "every serving process, every five seconds if something was refused",
        {"update": OFFER_REFUSALS, "updates": [{"q": {"_id": ":id"}, "u": {"$inc": {"count": 0}}, "upsert": True}]},
    ),
]


def fixed_rows() -> Iterator[tuple[str, Document]]:
    """Yield the documents of the sample: rows of the views of two campaigns and two offers."""
    for number in (1, 2):
        own = {"campaign": f"cmp_{number}"}
        named = {"offer": f"off_{number}"}
        yield _row(views.CAMPAIGN_MEMBERS, number, {**own, "members": 1})
        for day in range(1, 29):
            name, key = f"2026-02-{day:02}", f"{number}|{day}"
            yield _row(views.DECISIONS, key, {**own, "day": name, "outcome": "awarded", "currency": "GBP", "count": 1})
            yield _row(views.OFFERS, key, {**named, "day": name, "move": "used", "count": 1})
            yield _row(views.DAYS, key, {**own, **named, "day": name, "flow": "earned", "kind": "redeem", "asset": "A07"})
            yield _row(views.COHORTS, key, {**own, "month": "2026-02", "move": "redeemed", "earned_month": f"{2000 + day}-01"})
            yield _row(views.TIER_STEPS, key, {"day": name, "tier_before": "", "tier_after": "gold", "members": 1})
            yield _row(views.MEMBER_MONTHS, key, {"first_month": f"{2000 + day}-01", "month": "2026-02", "members": number})
            refused = {"_id": f"off_{number}|{name}|redeem|sold-out", **named, "day": name, "count": 1}
            yield OFFER_REFUSALS, {**refused, "step": "redeem", "reason": "sold-out"}
    for number in range(200):
        yield views.MEMBER_STATES, {"_id": f"{_VERSION}|mem_{number}", "version": _VERSION, "last_event_at": number}


def _row(aggregate: Aggregate, key: object, fields: Document) -> tuple[str, Document]:
    return aggregate.collection, {"_id": f"{_VERSION}|0|{key}", "version": _VERSION, "part": 0, **fields}


def cases() -> Cases:
    """Yield cases of these queries."""
    for name in ("campaigns.past_drafts", "offers.past_drafts"):
        yield name, "all but drafts", {"statuses": _STATUSES, "limit": 1001}
    days = {"version": _VERSION, "first": "2026-02-05", "last": "2026-02-20"}
    for case, ids in (("found", ["cmp_1", "cmp_2"]), ("not found", ["cmp_3"])):
        yield "decisions.sums", case, {**days, "ids": ids}
        yield "campaign_members.sums", case, {**days, "ids": ids}
        yield "cohorts.kept", case, {**days, "ids": ids, "moves": ["redeemed", "expired"], "first": "2026-01", "last": "2026-02"}
        yield "days.pace", case, {**days, "ids": ids, "flows": ["earned", "clawed_back"]}
    for case, ids in (("found", ["off_1", "off_2"]), ("not found", ["off_3"])):
        for name in ("offers.moves", "offer_refusals.some"):
            yield name, case, {**days, "ids": ids}
        yield "days.prices", case, {**days, "ids": ids, "kind": "redeem"}
    for case, first in (("found", "2001-01"), ("not found", "2099-01")):
        months = {"version": _VERSION, "first": first, "last": "2099-12", "present": "2026-11"}
        yield "member_months.bought", case, months
        yield "member_months.cohorts", case, months
    yield "members.active", "half of them", {"version": _VERSION, "since": 100}
    yield "tier_steps.before", "found", days
    yield "tier_steps.sums", "found", days
    for case, reason in (("found", "sold-out"), ("new", "not-eligible")):
        yield "offer_refusals.write", case, {"id": f"off_1|2026-02-01|redeem|{reason}"}
