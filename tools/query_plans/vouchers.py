"""Queries of offers and vouchers."""

from guerdon.database import Document
from guerdon.ledger.store import ACCOUNTS
from guerdon.members.models import MEMBERS
from guerdon.offers.models import OFFERS, OFFERS_LIVE_MAX
from guerdon.vouchers.models import DEALT_CODES, POOL_CODES, VOUCHER_CODES, VOUCHERS
from tools.query_plans.notation import AFTER, DOWN, ID, IDS, UP, Query, find, one, read, update
from tools.query_plans.shapes import AGGREGATE

_REDEEM = "POST /v1/offers/{offer_id}/redeem"
_LIST = "GET /v1/me/vouchers, GET /v1/members/{member_id}/vouchers"
_EXPORT = "GET /v1/me/export, GET /v1/members/{member_id}/export"
_COUNTED: Document = {
    AGGREGATE: OFFERS,
    "pipeline": [{"$match": {"status": ":status"}}, {"$group": {"_id": 1, "n": {"$sum": 1}}}],
    "cursor": {},
}

VOUCHER_QUERIES = [
    Query("offers.get", "request", f"GET, PUT, activate, pause, end of /v1/offers/{{offer_id}}, {_REDEEM}", one(OFFERS, ID)),
    Query("offers.first", "request", "GET /v1/offers", find(OFFERS, {}, sort=DOWN, limit=True)),
    Query("offers.next", "request", "GET /v1/offers", find(OFFERS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query(
        "offers.first_by_status",
        "request",
        "GET /v1/offers?status=; GET /v1/me/offers, once a second",
        find(OFFERS, {"status": ":status"}, sort=DOWN, limit=True),
    ),
    Query(
        "offers.next_by_status",
        "request",
        "GET /v1/offers?status=",
        find(OFFERS, {"_id": {"$lt": ":before"}, "status": ":status"}, sort=DOWN, limit=True),
    ),
    Query("offers.count", "request", "POST /v1/offers/{offer_id}/activate", _COUNTED, bound=OFFERS_LIVE_MAX + 1),
    Query(
        "offers.change",
        "request",
        "PUT, activate, pause, end of /v1/offers/{offer_id}",
        update(OFFERS, {"_id": ":id", "owner": ":owner", "count": ":count"}, upsert=True),
    ),
    Query("batch.offers", "request", f"{_REDEEM}, GET /v1/me/offers", read(OFFERS, IDS)),
    Query("batch.members", "request", f"POST /v1/events, {_REDEEM}, GET /v1/me/offers", read(MEMBERS, IDS)),
    Query("batch.voucher_codes", "request", _REDEEM, read(VOUCHER_CODES, IDS)),
    Query(
        "accounts.some",
        "request",
        f"GET /v1/offers, /v1/campaigns, /v1/campaigns/{{campaign_id}}/usage, {_LIST}",
        find(ACCOUNTS, {**IDS, "owner": {"$in": ":owners"}}),
    ),
    Query("vouchers.get", "request", f"GET /v1/vouchers/{{code}}, {_REDEEM}, when repeated", one(VOUCHERS, ID)),
    Query("vouchers.first", "request", _LIST, find(VOUCHERS, {"owner": ":owner"}, sort=DOWN, limit=True)),
    Query(
        "vouchers.next",
        "request",
        _LIST,
        find(VOUCHERS, {"_id": {"$lt": ":before"}, "owner": ":owner"}, sort=DOWN, limit=True),
    ),
    Query("vouchers.export", "request", _EXPORT, find(VOUCHERS, {**AFTER, "owner": ":owner"}, sort=UP, limit=True)),
    Query("voucher_codes.get", "request", "GET /v1/vouchers/{code}", one(VOUCHER_CODES, ID)),
    Query("dealt_codes.get", "request", "GET /v1/vouchers/{code}, of an external code", one(DEALT_CODES, ID)),
    Query("pool_codes.get", "request", "all routes that show a voucher with an external code", one(POOL_CODES, ID)),
]
