"""Queries of exports, and the values with which they are explained."""

from collections.abc import Iterator
from typing import Any

from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGNS
from guerdon.clock import to_datetime
from guerdon.database import Document
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS, OPEN_MAX
from guerdon.ledger.store import ACCOUNTS, ENTRIES
from guerdon.members.models import MEMBERS
from guerdon.vouchers.models import VOUCHERS
from guerdon.wallets.models import WALLET
from tools.query_plans.notation import DOWN, ID, IDS, RANGE, UP, Query, delete, find, one, update
from tools.query_plans.sample import EXPORT_COUNT, NOW_MS, START_MS, Sample, event_of, export_of, refund_of, sealed_of
from tools.query_plans.shapes import AGGREGATE, FIND_AND_MODIFY
from tools.query_plans.voucher_sample import offer_of

_FILE, _DELETE = "GET /v1/exports/{export_id}/file", "DELETE /v1/exports/{export_id}"
_JOB, _REMOVE, _LISTS = "the export jobs", "the job that removes files of exports", "the export jobs, guerdon export"
_ERASE = "POST /v1/members/{member_id}/erase, POST /v1/me/erase"
_CHANGED: Document = {"$set": {"touched": True}}
_SPAN: Document = {"$gte": ":since", "$lt": ":until"}
_ENTRIES: Document = {"asset": {"$in": ":assets"}, "at": _SPAN}
_WALLETS: Document = {"kind": ":kind", "opened_at": {"$lte": ":now"}}
_EVENTS: Document = {"occurred_at": _SPAN, "recorded_at": {"$lte": ":requested_at"}}


def _sum(where: Document) -> Document:
    return {AGGREGATE: EXPORT_JOBS, "pipeline": [{"$match": where}, {"$group": {"_id": None, "n": {"$sum": 1}}}], "cursor": {}}


EXPORT_QUERIES = [
    Query(
        "export_jobs.open",
        "request",
        "POST /v1/exports",
        find(EXPORT_JOBS, {"lane": {"$gte": ":free"}}, limit=True, fields=["created_by"]),
        bound=OPEN_MAX + 1,
    ),
    Query("export_jobs.get", "request", "GET /v1/exports/{export_id}", one(EXPORT_JOBS, ID)),
    Query("export_jobs.first", "request", "GET /v1/exports", find(EXPORT_JOBS, {}, sort=DOWN, limit=True)),
    Query("export_jobs.next", "request", "GET /v1/exports", find(EXPORT_JOBS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True)),
    Query(
        "export_jobs.delete",
        "request",
        _DELETE,
        {FIND_AND_MODIFY: EXPORT_JOBS, "query": {"_id": ":id", "status": {"$ne": ":status"}}, "update": _CHANGED},
    ),
    Query("export_jobs.deleted", "request", _DELETE, delete(EXPORT_JOBS, {"_id": ":id", "status": ":status"})),
    Query("export_jobs.withdraw", "request", _ERASE, update(EXPORT_JOBS, {"members": ":true", "status": ":status"})),
    Query("export_jobs.waiting", "job", _JOB, one(EXPORT_JOBS, {"lane": ":lane"}, sort=UP, fields=["_id"])),
    Query(
        "export_jobs.take",
        "job",
        _JOB,
        {FIND_AND_MODIFY: EXPORT_JOBS, "query": {"_id": ":id", "lane": ":lane"}, "update": _CHANGED},
    ),
    Query("export_jobs.move", "job", _JOB, update(EXPORT_JOBS, {"_id": ":id", "epoch": ":epoch", "status": ":status"})),
    Query("export_jobs.stored", "job", _JOB, _sum({"due_at": {"$gte": ":none"}})),
    Query("export_jobs.running", "job", _JOB, _sum({"lane": {"$gt": ":free"}})),
    Query(
        "export_jobs.due",
        "job",
        _REMOVE,
        find(EXPORT_JOBS, {"due_at": {"$gte": ":none", "$lte": ":now"}}, sort={"due_at": 1}, limit=True),
    ),
    Query("export_jobs.end", "job", _REMOVE, update(EXPORT_JOBS, {"_id": ":id", "status": ":status"})),
    Query("export_jobs.clear", "job", _REMOVE, update(EXPORT_JOBS, ID)),
    Query("export_jobs.forget", "job", _REMOVE, delete(EXPORT_JOBS, ID)),
    Query(
        "export_jobs.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {"delete": EXPORT_JOBS, "deletes": [{"q": {"remove_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    Query("export_chunks.get", "request", _FILE, one(EXPORT_CHUNKS, ID)),
    Query("export_chunks.remove", "request", f"{_DELETE}; {_JOB}", delete(EXPORT_CHUNKS, RANGE)),
    Query("entries.pages", "job", _LISTS, find(ENTRIES, _ENTRIES, sort=UP)),
    Query("entries.pages_wallet", "job", _LISTS, find(ENTRIES, {"_id": {"$gt": ":first", "$lt": ":last"}, **_ENTRIES}, sort=UP)),
    Query("accounts.pages", "job", _LISTS, find(ACCOUNTS, _WALLETS, sort=UP)),
    Query("accounts.pages_asset", "job", _LISTS, find(ACCOUNTS, {**_WALLETS, "asset": ":asset"}, sort=UP)),
    Query(
        "events.pages_type", "job", _LISTS, find(EVENTS, {**_EVENTS, "type": ":type"}, sort={"occurred_at": 1, "recorded_at": 1})
    ),
    Query("refunds.pages", "job", _LISTS, find(REFUNDS, IDS)),
    Query("vouchers.pages", "job", _LISTS, find(VOUCHERS, {"issued_at": _SPAN}, sort=UP)),
    Query("vouchers.pages_offer", "job", _LISTS, find(VOUCHERS, {"issued_at": _SPAN, "offer": ":offer"}, sort=UP)),
    Query("members.pages", "job", _LISTS, find(MEMBERS, {"created_at": _SPAN}, sort=UP)),
    Query("standings.pages", "job", _LISTS, find(MEMBER_STATES, IDS)),
    Query("campaigns.pages", "job", _LISTS, find(CAMPAIGNS, {}, sort=UP)),
    Query("campaigns.pages_status", "job", _LISTS, find(CAMPAIGNS, {"status": ":status"}, sort=UP)),
]


def export_cases(sample: Sample) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield the cases of these queries: (query, case, values)."""
    for case, number in (("found", 1), ("not found", EXPORT_COUNT)):
        export = export_of(number)
        chunk = f"{export}/000001/00000000"
        for query, values in (
            ("export_jobs.get", {}),
            ("export_jobs.delete", {"status": "deleted"}),
            ("export_jobs.deleted", {"status": "done"}),
            ("export_jobs.move", {"epoch": 1, "status": "done"}),
            ("export_jobs.end", {"status": "done"}),
            ("export_jobs.clear", {}),
            ("export_jobs.forget", {}),
        ):
            yield query, case, {"id": export, **values}
        yield "export_jobs.reseal", case, {"id": export, "sealed": sealed_of(export)}
        yield "export_chunks.get", case, {"id": chunk}
        yield "export_chunks.remove", case, {"first": f"{export}/", "last": f"{export}0"}
    for case, number in (("found", 0), ("not found", EXPORT_COUNT)):
        yield "export_jobs.take", case, {"id": export_of(number), "lane": 0}
    yield "export_jobs.open", "30 of 300 are open", {"free": 0, "limit": OPEN_MAX + 1}
    yield "export_jobs.all", "a batch", {"after": "", "limit": 500}
    yield "export_jobs.first", "a page", {"limit": 51}
    yield "export_jobs.next", "the middle", {"before": export_of(EXPORT_COUNT // 2), "limit": 51}
    yield "export_jobs.withdraw", "10 files with members", {"true": True, "status": "done"}
    yield "export_jobs.waiting", "the oldest", {"lane": 0}
    yield "export_jobs.stored", "all", {"none": 0}
    yield "export_jobs.running", "all", {"free": 0}
    yield "export_jobs.due", "a batch", {"none": 0, "now": NOW_MS + 50, "limit": 100}
    yield "export_jobs.expire", "nothing expired", {"moment": to_datetime(START_MS)}
    yield from _list_cases(sample)


def _list_cases(sample: Sample) -> Iterator[tuple[str, str, dict[str, Any]]]:
    hour = {"since": START_MS, "until": START_MS + 3_600_000}
    wallet, owners = sample.quiet[0], [each.owner for each in sample.quiet]
    yield "entries.pages", "an hour", {"assets": ["PTS"], **hour}
    yield "entries.pages_wallet", "an hour", {"assets": ["PTS"], "first": f"{wallet.id}#", "last": f"{wallet.id}$", **hour}
    for query in ("accounts.pages", "accounts.pages_asset"):
        yield query, "all wallets", {"kind": WALLET, "now": NOW_MS, "asset": "PTS"}
    yield "events.pages_type", "an hour", {**hour, "requested_at": NOW_MS, "type": "purchase"}
    yield "refunds.pages", "a page", {"ids": [refund_of(owner) for owner in owners]}
    yield "vouchers.pages", "an hour", hour
    yield "vouchers.pages_offer", "an hour", {**hour, "offer": offer_of(1)}
    yield "members.pages", "an hour", hour
    yield "standings.pages", "a page", {"ids": owners}
    yield "campaigns.pages", "all", {}
    yield "campaigns.pages_status", "the drafts", {"status": "draft"}
    yield "refunds.pages", "one", {"ids": [f"{wallet.owner}/{event_of(1)}"]}
