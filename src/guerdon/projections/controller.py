"""Routes of the views."""

from typing import Any

from guerdon.clock import rfc3339
from guerdon.errors import NotFound
from guerdon.http.operation import Request, Response, note, operation, send
from guerdon.permissions import scope
from guerdon.projections.status import RebuildView, ViewGroupList, ViewStatus


class ViewsResource:
    """`/v1/views` and `/v1/views/{group}/rebuild`"""

    def __init__(self, status: ViewStatus) -> None:
        self._status = status

    @operation("listViews", scope("reports:read"), tag="reports", answers={200: ViewGroupList})
    async def on_get(self, _req: Request, resp: Response) -> None:
        """Return the state of the views that reports are read from: how far they are, and whether a document stops them."""
        send(resp, ViewGroupList([await self._status.read()]))

    @operation("rebuildViews", scope("views:write"), tag="reports", answers={202: RebuildView}, errors=(NotFound,), audited=True)
    async def on_post_rebuild(self, req: Request, resp: Response, group: str) -> None:
        """Build the views again beside those that are read. Workers do it, and switch when the new ones are complete.

        If views are being built already, they are the answer.
        """
        generation = await self._status.rebuild(group)
        note(req, version=str(generation.version))
        send(resp, RebuildView(group, generation.version, rfc3339(generation.created_at)), 202)


def routes(status: ViewStatus) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of the views."""
    resource = ViewsResource(status)
    return [("/v1/views", resource, None), ("/v1/views/{group}/rebuild", resource, "rebuild")]
