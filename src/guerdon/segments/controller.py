"""Routes of segments."""

from typing import Any

from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.segments.models import (
    SegmentMemberPage,
    SegmentMemberQuery,
    SegmentPage,
    SegmentRunPage,
    SegmentRunView,
    SegmentSet,
    SegmentView,
    view_run,
)
from guerdon.segments.service import Segments
from guerdon.types import PageQuery

_SEGMENT: dict[str, Any] = {
    "condition": "'champions' in member.segments && member.attributes.country == 'GB'",
    "description": "Best customers at home",
}


class SegmentsResource:
    """`/v1/segments` and below"""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    @operation("listSegments", scope("segments:read"), tag="segments", query=PageQuery, answers={200: SegmentPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List all segments by name: the eleven groups that Guerdon computes, and those of your own."""
        send(resp, await self._segments.list_segments(read_query(req, PageQuery)))

    @operation("getSegment", scope("segments:read"), tag="segments", answers={200: SegmentView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, segment: str) -> None:
        """Return a segment, with the number of its members in the last run."""
        send(resp, await self._segments.get_segment(segment))

    @operation(
        "setSegment",
        scope("segments:write"),
        tag="segments",
        body=SegmentSet,
        answers={200: SegmentView},
        errors=(Validation, InvalidState),
        example=_SEGMENT,
    )
    async def on_put_one(self, req: Request, resp: Response, segment: str) -> None:
        """Create a segment, or a new version of it. Its members change with the next run: in the next night, or by a refresh."""
        body, _ = await read(req, SegmentSet)
        view = await self._segments.set_segment(actor_of(req), segment, body)
        note(req, version=str(view.version))
        send(resp, view)

    @operation("deleteSegment", scope("segments:write"), tag="segments", answers={204: None}, errors=(NotFound, InvalidState))
    async def on_delete_one(self, req: Request, resp: Response, segment: str) -> None:
        """Delete a segment of your own. A run that removes its members is requested; until its end conditions still see them."""
        await self._segments.delete(actor_of(req), segment)
        resp.status = 204

    @operation(
        "listSegmentMembers",
        scope("segments:read"),
        tag="segments",
        query=SegmentMemberQuery,
        answers={200: SegmentMemberPage},
        errors=(NotFound,),
    )
    async def on_get_members(self, req: Request, resp: Response, segment: str) -> None:
        """List the members of a segment in the last run, ordered by id. Pages that are read after another run has ended are of that run."""
        send(resp, await self._segments.list_members(segment, read_query(req, SegmentMemberQuery)))

    @operation("refreshSegment", scope("segments:write"), tag="segments", answers={202: SegmentRunView}, errors=(NotFound,))
    async def on_post_refresh(self, req: Request, resp: Response, segment: str) -> None:
        """Request a run by a worker. It computes all segments as of its start; a run that is waiting already is returned."""
        run = await self._segments.refresh(actor_of(req), segment)
        resp.set_header("Location", f"/v1/segment-runs/{run.id}")
        send(resp, view_run(run), 202)


class SegmentRunsResource:
    """`/v1/segment-runs`"""

    def __init__(self, segments: Segments) -> None:
        self._segments = segments

    @operation("listSegmentRuns", scope("segments:read"), tag="segments", query=PageQuery, answers={200: SegmentRunPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List the runs, newest first, with the bounds of their scores."""
        runs, cursor = await self._segments.list_runs(read_query(req, PageQuery))
        send(resp, SegmentRunPage([view_run(run) for run in runs], cursor))

    @operation("getSegmentRun", scope("segments:read"), tag="segments", answers={200: SegmentRunView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, run_id: str) -> None:
        """Return a run, with its progress."""
        send(resp, view_run(await self._segments.get_run(run_id)))


def routes(segments: Segments) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource, runs = SegmentsResource(segments), SegmentRunsResource(segments)
    return [
        ("/v1/segments", resource, None),
        ("/v1/segments/{segment}", resource, "one"),
        ("/v1/segments/{segment}/members", resource, "members"),
        ("/v1/segments/{segment}/refresh", resource, "refresh"),
        ("/v1/segment-runs", runs, None),
        ("/v1/segment-runs/{run_id}", runs, "one"),
    ]
