"""Queries of the views: which generation is read, and how far it is. The queries of the projector read whole collections by design."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS
from guerdon.clock import to_datetime
from guerdon.database import Document
from guerdon.projections.models import PARTITIONS, Feed
from guerdon.projections.positions import GENERATIONS, POSITIONS, VIEW_WORKERS, position_id
from guerdon.views.group import books_group
from guerdon.views.models import BOOKS
from tools.query_plans.notation import AFTER, ID, IDS, UP, Query, find, one, update
from tools.query_plans.shapes import AGGREGATE, DELETE, FIND_AND_MODIFY

Cases = Iterator[tuple[str, str, dict[str, Any]]]
AT_MS = 1_798_761_600_000
"""Time of the positions of the sample: 2027-01-01."""
WORKERS_MAX = 100
"""Number of rows that the list of workers may have: those that run, and those that ended within a minute."""


class Subjects(NamedTuple):
    """Ids of documents that the projector reads."""

    owners: list[str]
    entries: list[str]
    voids: list[str]
    tier_changes: list[str]


_REPORTS = "GET /v1/reports/…, GET /v1/views"

_PROJECTOR = "guerdon worker --pool views, guerdon reports rebuild"
_ROW = "0|0|row"
"""Id of the row that each view has in the sample."""
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


def fixed_rows() -> Iterator[tuple[str, Document]]:
    """Yield the documents of the sample: one generation, its partitions, a worker, and a row of each view."""
    yield GENERATIONS, {"_id": BOOKS, "count": 1, "newest": 1}
    for part in range(PARTITIONS):
        yield POSITIONS, {"_id": position_id(BOOKS, 1, part), "group": BOOKS, "epoch": 1, "writes": 1, "at_ms": AT_MS}
    yield VIEW_WORKERS, {"_id": f"{BOOKS}/wrk_1", "expires_at": to_datetime(2 * AT_MS)}
    for name in _WRITTEN:
        yield name, {"_id": _ROW, "version": 0}


def cases(subjects: Subjects) -> Cases:
    """Yield (query, case, parameters)."""
    yield "view_generations.get", "the only group", {"id": BOOKS}
    yield "view_positions.progress", "16 partitions", {"ids": [position_id(BOOKS, 1, part) for part in range(PARTITIONS)]}
    yield "view_positions.of_version", "16 partitions", {"after": "books@1/", "before": "books@10", "limit": PARTITIONS}
    yield "view_workers.live", "one worker", {"after": "books/", "before": "books0"}
    yield "view_workers.expire", "nothing expired", {"moment": to_datetime(0)}
    yield "view_generations.change", "the only group", {"id": BOOKS, "count": 1}
    yield "view_positions.move", "a position", {"id": position_id(BOOKS, 1, 0), "epoch": 1, "writes": 1}
    yield "view_positions.take_over", "a position", {"id": position_id(BOOKS, 1, 0)}
    for name in _WRITTEN:
        yield f"{name}.write", "a row", {"id": _ROW}
    for source in _GROUP.sources:
        yield f"{source.states}.known", "one of 20 subjects", {"ids": [_ROW, *(f"1|none-{number}" for number in range(19))]}
        yield f"{source.subjects}.subjects", "a page", {"after": ""}
    yield "events.folded", "20 members", {"owners": subjects.owners}
    yield "entries.folded", "20 entries", {"ids": subjects.entries}
    yield "event_voids.folded", "20 voids", {"ids": subjects.voids}
    yield "tier_changes.folded", "20 changes", {"ids": subjects.tier_changes}
