"""Queries of the timeline of a member, and their cases."""

from collections.abc import Iterator

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS
from tools.query_plans.notation import IDS, Query, find
from tools.query_plans.plans import Parameters

_ROUTES = "GET /v1/members/{member_id}/timeline, GET /v1/me/timeline"
_NEWEST_FIRST = {"recorded_at": -1, "proof.number": -1}

TIMELINE_QUERIES = [
    Query("events.timeline", "request", _ROUTES, find(EVENTS, {"owner": ":owner"}, sort=_NEWEST_FIRST, limit=True)),
    Query(
        "events.timeline_next",
        "request",
        _ROUTES,
        find(EVENTS, {"owner": ":owner", "recorded_at": {"$lt": ":before"}}, sort=_NEWEST_FIRST, limit=True),
    ),
    Query(
        "events.timeline_same",
        "request",
        f"{_ROUTES}, after an event",
        find(
            EVENTS,
            {"owner": ":owner", "recorded_at": ":at", "proof.number": {"$lt": ":number"}},
            sort=_NEWEST_FIRST,
            limit=True,
        ),
    ),
    Query("event_voids.some", "request", _ROUTES, find(EVENT_VOIDS, IDS, limit=True)),
]


def cases(hot: str, unknown: str, voids: list[str], at_ms: int) -> Iterator[tuple[str, str, Parameters]]:
    """Yield the cases of every query, for a member with an event recorded at `at_ms` and for one without."""
    for case, owner in (("found", hot), ("not found", unknown)):
        yield "events.timeline", case, {"owner": owner, "limit": 101}
        yield "events.timeline_next", case, {"owner": owner, "before": at_ms + 1, "limit": 101}
        yield "events.timeline_same", case, {"owner": owner, "at": at_ms, "number": 5, "limit": 101}
    yield "event_voids.some", "100, all found", {"ids": voids, "limit": len(voids)}
