"""Queries of the views: which generation is read, and how far it is. The queries of the projector read whole collections by design."""

from collections.abc import Iterator
from typing import Any

from guerdon.projections.positions import GENERATIONS, POSITIONS, VIEW_WORKERS
from tools.query_plans.notation import Query, find, one
from tools.query_plans.shapes import AGGREGATE

Cases = Iterator[tuple[str, str, dict[str, Any]]]
WORKERS_MAX = 100
"""Number of rows that the list of workers may have: those that run, and those that ended within a minute."""
_REPORTS = "GET /v1/reports/…, GET /v1/views"

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
]


def cases() -> Cases:
    """Yield (query, case, parameters)."""
    yield "view_generations.get", "the only group", {"id": "books"}
    yield "view_positions.progress", "16 partitions", {"ids": [f"books@1/{part}" for part in range(16)]}
    yield "view_positions.of_version", "16 partitions", {"after": "books@1/", "before": "books@10", "limit": 16}
    yield "view_workers.live", "no worker", {"after": "books/", "before": "books0"}
