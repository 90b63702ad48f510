"""Queries of the views: which generation is read, and how far it is. The queries of the projector read whole collections by design."""

from collections.abc import Iterator
from typing import Any

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS
from guerdon.clock import to_datetime
from guerdon.database import Document
from guerdon.projections.models import Feed
from guerdon.projections.positions import GENERATIONS, POSITIONS, VIEW_WORKERS
from guerdon.views.group import books_group
from tools.query_plans.notation import AFTER, ID, IDS, UP, Query, find, one, update
from tools.query_plans.shapes import AGGREGATE, DELETE, FIND_AND_MODIFY

Cases = Iterator[tuple[str, str, dict[str, Any]]]
WORKERS_MAX = 100
"""Number of rows that the list of workers may have: those that run, and those that ended within a minute."""
_REPORTS = "GET /v1/reports/…, GET /v1/views"

_PROJECTOR = "guerdon worker --pool views, guerdon reports rebuild"
_GROUP = books_group(Calendar())
_WRITTEN = (*(source.states for source in _GROUP.sources), *(each.collection for each in _GROUP.aggregates))


def _scan(collection: str) -> Query:
    stages: list[Document] = [{"$match": AFTER}, {"$sort": UP}, {"$project": {"owner": 1}}, {"$match": {}}, {"$limit": 1_000}]
    return Query(f"{collection}.subjects", "job", _PROJECTOR, {AGGREGATE: collection, "pipeline": stages, "cursor": {}})


def _documents(feed: Feed) -> Query:
    where: Document = {"owner": {"$in": ":owners"}} if feed.collection == EVENTS else IDS
    return Query(f"{feed.collection}.folded", "job", _PROJECTOR, find(feed.collection, where, fields=("owner", *feed.fields)))


VIEW_QUERIES = [
    Query("view_generations.get", "request", _REPORTS, one(GENERATIONS, {"_id": ":id"})),
    Query(
        "view_positions.progress",
        "request",
        _REPORTS,
        {
            AGGREGATE: POSITIONS,
            "pipeline": [
                {"$match": {"_id": {"$in": ":ids"}}},
                {"$project": {"fault": 1, "at_ms": 1, "age_ms": {"$subtract": [{"$toLong": "$$NOW"}, "$at_ms"]}}},
            ],
            "cursor": {},
        },
    ),
    Query(
        "view_positions.of_version",
        "request",
        "GET /v1/views",
        find(POSITIONS, {"_id": {"$gt": ":after", "$lt": ":before"}}, limit=True),
    ),
    Query(
        "view_workers.live",
        "request",
        "GET /v1/views",
        {
            AGGREGATE: VIEW_WORKERS,
            "pipeline": [
                {"$match": {"_id": {"$gt": ":after", "$lt": ":before"}}},
                {"$project": {"live": {"$gt": ["$expires_at", "$$NOW"]}}},
                {"$match": {"live": True}},
            ],
            "cursor": {},
        },
        bound=WORKERS_MAX,
    ),
    Query(
        "view_workers.expire",
        "server",
        "MongoDB, for indexes with an expiry",
        {DELETE: VIEW_WORKERS, "deletes": [{"q": {"expires_at": {"$lte": ":moment"}}, "limit": 0}]},
    ),
    Query("view_generations.change", "job", _PROJECTOR, update(GENERATIONS, {"_id": ":id", "count": ":count"})),
    Query(
        "view_positions.move",
        "job",
        _PROJECTOR,
        update(POSITIONS, {"_id": ":id", "epoch": ":epoch", "writes": ":writes"}),
    ),
    Query(
        "view_positions.take_over",
        "job",
        _PROJECTOR,
        {FIND_AND_MODIFY: POSITIONS, "query": ID, "update": {"$set": {"touched": True}}, "upsert": True},
    ),
    *(Query(f"{name}.write", "job", _PROJECTOR, update(name, ID, upsert=True)) for name in _WRITTEN),
    *(Query(f"{source.states}.known", "job", _PROJECTOR, find(source.states, IDS)) for source in _GROUP.sources),
    *(_scan(source.subjects) for source in _GROUP.sources),
    *(_documents(feed) for source in _GROUP.sources for feed in source.feeds),
]


def cases() -> Cases:
    """Yield (query, case, parameters)."""
    yield "view_generations.get", "the only group", {"id": "books"}
    yield "view_positions.progress", "16 partitions", {"ids": [f"books@1/{part}" for part in range(16)]}
    yield "view_positions.of_version", "16 partitions", {"after": "books@1/", "before": "books@10", "limit": 16}
    yield "view_workers.live", "no worker", {"after": "books/", "before": "books0"}
    yield "view_workers.expire", "nothing expired", {"moment": to_datetime(0)}
    yield "view_generations.change", "the only group", {"id": "books", "count": 1}
    yield "view_positions.move", "a position", {"id": "books@1/0", "epoch": 1, "writes": 1}
    yield "view_positions.take_over", "a position", {"id": "books@1/0"}
    for name in _WRITTEN:
        yield f"{name}.write", "a row", {"id": "1|0|none"}
    for source in _GROUP.sources:
        yield f"{source.states}.known", "20 subjects", {"ids": [f"1|none-{number}" for number in range(20)]}
        yield f"{source.subjects}.subjects", "a page", {"after": ""}
        for feed in source.feeds:
            names = [f"none-{number}" for number in range(20)]
            yield f"{feed.collection}.folded", "20 subjects", {"owners": names} if feed.collection == EVENTS else {"ids": names}
