"""Queries of tiers and member states."""

from guerdon.campaigns.domain import MEMBER_STATES
from guerdon.tiers.models import TIER_CHANGES, TIER_SETS
from tools.query_plans.notation import AFTER, DOWN, ID, IDS, OWN, UP, Query, find, one, read, update

_TIERS = "GET, PUT /v1/tiers"
_MEMBER = (
    "GET /v1/members/{member_id}/tier, GET /v1/me/tier, and below; referrals; POST /v1/events for refunds and referrers; exports"
)
_REVIEW = "the tier review"

TIER_QUERIES = [
    Query("batch.tier_sets", "request", "POST /v1/events; the tier review", read(TIER_SETS, IDS)),
    Query("tier_sets.get", "request", f"{_TIERS}, {_MEMBER}; the tier review", one(TIER_SETS, ID)),
    Query("tier_sets.replace", "request", "PUT /v1/tiers", update(TIER_SETS, {"_id": ":id", "count": ":count"})),
    Query("tier_sets.walk", "job", _REVIEW, update(TIER_SETS, ID, upsert=True)),
    Query(
        "standings.many",
        "request",
        "POST /v1/events/bulk, with a campaign that pays referrers",
        find(MEMBER_STATES, IDS, limit=True),
    ),
    Query("standings.get", "request", _MEMBER, one(MEMBER_STATES, OWN)),
    Query(
        "standings.due",
        "job",
        _REVIEW,
        find(MEMBER_STATES, {"due_at": {"$gt": ":none", "$lte": ":now"}}, sort={"due_at": 1}, limit=True, fields=["_id"]),
    ),
    Query("standings.page", "job", _REVIEW, find(MEMBER_STATES, AFTER, sort=UP, limit=True, fields=["tier_version"])),
    Query(
        "tier_changes.page",
        "request",
        "GET /v1/members/{member_id}/tier/changes, GET /v1/me/tier/changes",
        find(TIER_CHANGES, {"_id": {"$gt": ":first", "$lt": ":last"}, "owner": ":owner"}, sort=DOWN, limit=True),
    ),
    Query(
        "tier_changes.export",
        "request",
        "GET /v1/me/export, GET /v1/members/{member_id}/export",
        find(TIER_CHANGES, {"_id": {"$gt": ":first", "$lt": ":last"}, "owner": ":owner"}, sort=UP, limit=True),
    ),
]
