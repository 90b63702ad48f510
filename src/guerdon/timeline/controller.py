"""Routes of timelines."""

from typing import Any

from guerdon.errors import NotFound
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import OWN, scope
from guerdon.timeline.models import TimelinePage, TimelineQuery
from guerdon.timeline.service import Timelines


class TimelineResource:
    """`/v1/members/{member_id}/timeline`"""

    def __init__(self, timelines: Timelines) -> None:
        self._timelines = timelines

    @operation(
        "listTimeline",
        scope("members:read", own=True),
        tag="members",
        query=TimelineQuery,
        answers={200: TimelinePage},
        errors=(NotFound,),
    )
    async def on_get(self, req: Request, resp: Response, member_id: str) -> None:
        """List what happened to a member, newest first by the time of recording: entries, events, vouchers and tier changes, each with its cause.

        A service or a staff person also needs the scope of each type: `wallets:read`, `events:read` and `vouchers:read`.
        """
        send(resp, TimelinePage(*await self._timelines.list_items(actor_of(req), member_id, read_query(req, TimelineQuery))))

    @operation("listMyTimeline", OWN, tag="members", query=TimelineQuery, answers={200: TimelinePage}, errors=(NotFound,))
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """List what happened to the caller, newest first by the time of recording."""
        actor = actor_of(req)
        send(resp, TimelinePage(*await self._timelines.list_items(actor, actor.id, read_query(req, TimelineQuery))))


def routes(timelines: Timelines) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = TimelineResource(timelines)
    return [("/v1/members/{member_id}/timeline", resource, None), ("/v1/me/timeline", resource, "mine")]
