"""Queries of segments, of their runs and of the memberships."""

from collections.abc import Iterator, Sequence
from typing import Any

from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS, SERVING, SLOTS, row_id, segment_ids
from guerdon.database import Document
from guerdon.members.models import MEMBERS
from guerdon.segments.models import SEGMENT_RUNS, SEGMENT_VERSIONS, SEGMENTS, SEGMENTS_MAX
from tools.query_plans.notation import DOWN, ID, IDS, RANGE, UP, Query, delete, find, one, read, update
from tools.query_plans.shapes import AGGREGATE, FIND_AND_MODIFY

Cases = Iterator[tuple[str, str, dict[str, Any]]]
_JOB = "the segments job"
_LIST = "GET /v1/segments; POST, PUT /v1/campaigns, /v1/offers and /v1/segments; the segments job"
_IN_WINDOW: Document = {"$gte": ":since", "$lt": ":at"}
_BETWEEN: Document = {"_id": {"$gt": ":first", "$lt": ":last"}}


def _aggregate(collection: str, where: Document, *stages: Document) -> Document:
    return {AGGREGATE: collection, "pipeline": [{"$match": where}, *stages], "cursor": {}}


_GROUP: Document = {"$group": {"_id": "$owner", "n": {"$sum": 1}}}
SEGMENT_QUERIES = [
    Query("segments.list", "request", _LIST, find(SEGMENTS, {"status": ":status"}, sort=UP, limit=True)),
    Query("segments.get", "request", "GET, PUT, DELETE /v1/segments/{segment} and below", one(SEGMENTS, ID)),
    Query("segments.replace", "request", "PUT, DELETE /v1/segments/{segment}", update(SEGMENTS, {"_id": ":id", "count": ":count"})),
    Query("segment_versions.get", "request", "PUT /v1/segments/{segment}", one(SEGMENT_VERSIONS, ID)),
    Query("segment_runs.get", "request", "GET /v1/segment-runs/{run_id}, GET /v1/segments and below", one(SEGMENT_RUNS, ID)),
    Query("segment_runs.first", "request", "GET /v1/segment-runs", find(SEGMENT_RUNS, {}, sort=DOWN, limit=True)),
    Query(
        "segment_runs.page",
        "request",
        "GET /v1/segment-runs?cursor",
        find(SEGMENT_RUNS, {"_id": {"$lt": ":before"}}, sort=DOWN, limit=True),
    ),
    Query(
        "segment_runs.waiting",
        "request",
        "POST /v1/segments/{segment}/refresh, DELETE /v1/segments/{segment}",
        one(SEGMENT_RUNS, {"open": True, "status": ":status", "day": {"$exists": False}}),
        bound=10,
    ),
    Query("segment_runs.nightly", "job", _JOB, one(SEGMENT_RUNS, {"day": {"$gte": ":day"}}, fields=["_id"])),
    Query("segment_runs.open", "job", _JOB, find(SEGMENT_RUNS, {"open": True}, sort=UP, limit=True)),
    Query(
        "segment_runs.take",
        "job",
        _JOB,
        {FIND_AND_MODIFY: SEGMENT_RUNS, "query": {"_id": ":id", "open": True}, "update": {"$set": {"touched": True}}},
    ),
    Query("segment_runs.move", "job", _JOB, update(SEGMENT_RUNS, {"_id": ":id", "page": ":page", "open": True})),
    Query("batch.member_segments", "request", "POST /v1/events; redemptions; the catalog", read(MEMBER_SEGMENTS, IDS)),
    Query("member_segments.get", "request", "GET /v1/segments and below; exports; the segments job", one(MEMBER_SEGMENTS, ID)),
    Query("member_segments.of_member", "request", "GET /v1/members/{member_id}", find(MEMBER_SEGMENTS, IDS)),
    Query(
        "member_segments.page",
        "request",
        "GET /v1/segments/{segment}/members",
        find(MEMBER_SEGMENTS, {"slot": ":slot", "segments": ":name", "_id": {"$gt": ":after"}}, sort=UP, limit=True),
    ),
    Query("member_segments.count", "request", "erasures", find(MEMBER_SEGMENTS, IDS, fields=["_id"])),
    Query("member_segments.erase", "request", "erasures; the segments job", delete(MEMBER_SEGMENTS, IDS)),
    Query("member_segments.measure", "job", _JOB, update(MEMBER_SEGMENTS, ID, upsert=True)),
    Query("member_segments.assign", "job", _JOB, update(MEMBER_SEGMENTS, {"_id": ":id", "run": ":run"})),
    Query(
        "member_segments.values",
        "job",
        _JOB,
        _aggregate(MEMBER_SEGMENTS, {"slot": ":slot", "run": ":run", "measured.days": {"$lte": ":days"}}, _GROUP, {"$sort": UP}),
    ),
    Query(
        "member_segments.run",
        "job",
        _JOB,
        find(MEMBER_SEGMENTS, {**_BETWEEN, "run": ":run"}, sort=UP, limit=True),
    ),
    Query("member_segments.clear", "job", _JOB, delete(MEMBER_SEGMENTS, {**_BETWEEN, "run": {"$ne": ":run"}})),
    Query(
        "member_segments.counts",
        "job",
        _JOB,
        _aggregate(MEMBER_SEGMENTS, {"slot": ":slot", "run": ":run"}, {"$unwind": "$segments"}, _GROUP),
    ),
    Query(
        "members.all",
        "job",
        _JOB,
        find(MEMBERS, {"_id": {"$gt": ":after"}}, sort=UP, limit=True, fields=["role", "erasing_at"]),
    ),
    Query(
        "members.erased",
        "job",
        _JOB,
        find(MEMBERS, {"_id": {"$gt": ":after", "$lte": ":last"}, "erasing_at": {"$ne": None}}, fields=["_id"]),
    ),
    Query("members.profiles", "job", _JOB, find(MEMBERS, IDS, limit=True)),
    Query(
        "standings.purchases",
        "job",
        _JOB,
        find(MEMBER_STATES, IDS, fields=["purchases", "last_purchase_at", "purchase_times"]),
    ),
    Query(
        "events.spent",
        "job",
        _JOB,
        {
            **_aggregate(
                EVENTS,
                {"owner": {"$gte": ":first", "$lte": ":last"}, "type": {"$in": ":types"}, "occurred_at": _IN_WINDOW},
                _GROUP,
            ),
            "hint": "owner",
        },
    ),
    Query("refunds.of_members", "job", _JOB, find(REFUNDS, RANGE)),
    Query(
        "events.refunded_in",
        "job",
        _JOB,
        find(EVENTS, {**IDS, "type": ":type", "occurred_at": _IN_WINDOW}, fields=["owner", "amount", "currency", "items"]),
    ),
    Query("verify.segments", "terminal", "guerdon verify", find(SEGMENTS, {}, sort=UP)),
    Query("verify.segment_versions", "terminal", "guerdon verify", find(SEGMENT_VERSIONS, {}, sort=UP)),
]
RUNS_COUNT = 400
_ERASED = "mem_" + "0" * 32


def run_of(number: int) -> str:
    return f"sgr_{number:032x}"


def fixed_rows() -> Iterator[tuple[str, Document]]:
    """Yield the documents of the sample whose number does not depend on the number of members."""
    for number in range(SEGMENTS_MAX):
        name = f"segment-{number:02}"
        yield SEGMENTS, {"_id": name, "version": 1, "status": "active", "count": 1, "condition": "true", "created_at": 0}
        yield SEGMENTS, {"_id": f"old-{number:02}", "version": 1, "status": "deleted", "count": 2, "condition": "true"}
        yield SEGMENT_VERSIONS, {"_id": f"{name}/1", "segment": {"_id": name, "version": 1}}
    for number in range(RUNS_COUNT):
        day = f"{2026 + number // 372}-{number // 31 % 12 + 1:02}-{number % 31 + 1:02}"
        yield SEGMENT_RUNS, {"_id": run_of(number), "status": "done", "day": day}
    yield SEGMENT_RUNS, {"_id": run_of(RUNS_COUNT), "status": "waiting", "open": True, "page": 3}
    yield MEMBERS, {"_id": _ERASED, "role": "member", "erasing_at": 1, "created_at": 0}
    yield MEMBER_SEGMENTS, {"_id": SERVING, "owner": SERVING, "slot": 1, "run": run_of(RUNS_COUNT - 1)}


def rows_of(owner: str, number: int) -> Iterator[tuple[str, Document]]:
    """Yield the memberships of one member of the sample, in both slots."""
    group = "champions" if number % 4 else "new"
    measured = {"days": number % 365, "purchases": 1, "spent": {"GBP": number}}
    for slot in SLOTS:
        row = {"_id": row_id(slot, owner), "owner": owner, "slot": slot, "run": run_of(RUNS_COUNT - 2 + slot)}
        yield MEMBER_SEGMENTS, {**row, "segments": [group], "group": group, "measured": measured}


def cases(owners: Sequence[str], orders: Sequence[str]) -> Cases:
    """Yield cases of these queries for some members and events of the sample."""
    first, last, run = min(owners), max(owners), run_of(RUNS_COUNT - 1)
    many = sorted(owners)
    yield "segments.list", "50 of 100", {"status": "active", "limit": SEGMENTS_MAX}
    for case, name in (("found", "segment-07"), ("not found", "none")):
        yield "segments.get", case, {"id": name}
        yield "segments.replace", case, {"id": name, "count": 1}
        yield "segment_versions.get", case, {"id": f"{name}/1"}
    for case, number in (("found", RUNS_COUNT), ("not found", RUNS_COUNT + 1)):
        yield "segment_runs.get", case, {"id": run_of(number)}
        yield "segment_runs.move", case, {"id": run_of(number), "page": 3}
    yield "segment_runs.first", "newest page", {"limit": 51}
    yield "segment_runs.page", "deepest page", {"before": run_of(51), "limit": 51}
    yield "segment_runs.waiting", "one", {"status": "waiting"}
    yield "segment_runs.nightly", "of this night", {"day": "2027-01-25"}
    yield "segment_runs.open", "one", {"limit": 100}
    yield "segment_runs.take", "the oldest", {"id": run_of(RUNS_COUNT)}
    of_many = sorted({each for member in many for each in segment_ids(member)})
    yield "batch.member_segments", "1 member", {"ids": segment_ids(first)}
    yield "batch.member_segments", f"{len(many)} members", {"ids": of_many}
    yield "member_segments.get", "found", {"id": row_id(1, first)}
    for query in ("member_segments.of_member", "member_segments.count", "member_segments.erase"):
        yield query, "found", {"ids": segment_ids(first)[1:]}
    yield "member_segments.page", "newest page", {"slot": 1, "name": "champions", "after": "1/", "limit": 51}
    yield "member_segments.page", "a rare segment", {"slot": 1, "name": "none", "after": "1/", "limit": 51}
    yield "member_segments.measure", "found", {"id": row_id(0, first)}
    yield "member_segments.assign", "found", {"id": row_id(1, first), "run": run}
    yield "member_segments.values", "all", {"slot": 1, "run": run, "days": 365}
    yield "member_segments.run", "a page", {"first": "1/", "last": "1/~", "run": run, "limit": 1000}
    yield "member_segments.clear", "all", {"first": "0/", "last": "0/~", "run": run}
    yield "member_segments.counts", "all", {"slot": 1, "run": run}
    yield "members.all", "a page", {"after": "", "limit": 1000}
    yield "members.erased", "a page", {"after": "", "last": last}
    yield "members.profiles", f"{len(many)} members", {"ids": many, "limit": len(many)}
    yield "standings.purchases", f"{len(many)} members", {"ids": many}
    yield "events.spent", "a page", {"first": first, "last": last, "types": ["purchase", "refund"], "since": 0, "at": 2**52}
    yield "refunds.of_members", "a page", {"first": f"{first}/", "last": f"{last}0"}
    yield "events.refunded_in", "some", {"ids": sorted(orders), "type": "purchase", "since": 0, "at": 2**52}
    yield "verify.segments", "all", {}
    yield "verify.segment_versions", "all", {}
