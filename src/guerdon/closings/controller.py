"""Routes of the month close."""

from typing import Any

from guerdon.closings.models import ClosingCreate, ClosingList, ClosingQuery, ClosingView
from guerdon.closings.service import Closings
from guerdon.closings.store import summarise, view_closing
from guerdon.errors import ClosingOrder, DatabaseUnavailable, MonthNotOver, NotFound, ViewsBehind, ViewsNotBuilt
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope


class ClosingsResource:
    """`/v1/closings` and `/v1/closings/{month}`"""

    def __init__(self, closings: Closings) -> None:
        self._closings = closings

    @operation("listClosings", scope("closings:read"), tag="closings", query=ClosingQuery, answers={200: ClosingList})
    async def on_get_all(self, req: Request, resp: Response) -> None:
        """List the closed months, newest first, with their digests."""
        closings, cursor = await self._closings.list_closings(read_query(req, ClosingQuery))
        send(resp, ClosingList([summarise(each) for each in closings], cursor))

    @operation("getClosing", scope("closings:read"), tag="closings", answers={200: ClosingView}, errors=(NotFound,))
    async def on_get(self, _req: Request, resp: Response, month: str) -> None:
        """Return a closed month with all its figures. The answer has the same bytes every time."""
        send(resp, view_closing(await self._closings.get_closing(month)))

    @operation(
        "closeMonth",
        scope("closings:write"),
        tag="closings",
        body=ClosingCreate,
        answers={200: ClosingView, 201: ClosingView},
        errors=(MonthNotOver, ClosingOrder, ViewsBehind, ViewsNotBuilt, DatabaseUnavailable),
        example={"month": "2026-11"},
        audited=True,
    )
    async def on_post_all(self, req: Request, resp: Response) -> None:
        """Close a month: freeze its figures. A month that is closed already is returned with 200. A closed month is never opened again."""
        body, _ = await read(req, ClosingCreate)
        closing, made = await self._closings.close(actor_of(req).id, body.month, req.context.request_id)
        note(req, month=closing.id, sha256=closing.sha256)
        send(resp, view_closing(closing), 201 if made else 200)


def routes(closings: Closings) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = ClosingsResource(closings)
    return [("/v1/closings", resource, "all"), ("/v1/closings/{month}", resource, None)]
