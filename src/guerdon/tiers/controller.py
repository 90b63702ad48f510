"""Routes of tiers."""

from typing import Any

from guerdon.changes import changed_fields
from guerdon.errors import InvalidState, NotFound, Validation
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import OWN, scope
from guerdon.tiers.models import MemberTierView, TierChangePage, TierChangeQuery, TierSetCreate, TierSetView, view_tiers
from guerdon.tiers.service import Tiers

_TIERS = {
    "asset": "PTS",
    "window": {"type": "rolling", "months": 12},
    "tiers": [
        {"code": "silver", "name": "Silver", "points": 1000},
        {"code": "gold", "name": "Gold", "points": 5000},
    ],
    "grace_months": 0,
    "grace_days": 30,
    "effective_at": None,
}
_NOT_COMPARED = ("version", "created_at", "created_by")
"""Fields that differ between any two versions."""


class TiersResource:
    """`/v1/tiers`"""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    @operation(
        "replaceTiers",
        scope("campaigns:write"),
        tag="tiers",
        body=TierSetCreate,
        answers={200: TierSetView},
        errors=(Validation, InvalidState),
        example=_TIERS,
    )
    async def on_put(self, req: Request, resp: Response) -> None:
        """Replace the tier set. Members keep their tier for the grace period if the new set still contains it."""
        body, _ = await read(req, TierSetCreate)
        change = await self._tiers.replace(actor_of(req), body)
        note(req, version=str(change.after.version), **changed_fields(change.before, change.after, left_out=_NOT_COMPARED))
        send(resp, view_tiers(*await self._tiers.get_tiers()))

    @operation("getTiers", scope("campaigns:read"), tag="tiers", answers={200: TierSetView})
    async def on_get(self, req: Request, resp: Response) -> None:
        """Read the tier set in force."""
        send(resp, view_tiers(*await self._tiers.get_tiers()))


class MemberTierResource:
    """`/v1/members/{member_id}/tier` and `/v1/me/tier`"""

    def __init__(self, tiers: Tiers) -> None:
        self._tiers = tiers

    @operation("getMemberTier", scope("members:read", own=True), tag="tiers", answers={200: MemberTierView}, errors=(NotFound,))
    async def on_get(self, req: Request, resp: Response, member_id: str) -> None:
        """Read a member's tier, the points missing to the next tier, and the points needed to keep it."""
        send(resp, await self._tiers.get_member_tier(actor_of(req), member_id))

    @operation("getMyTier", OWN, tag="tiers", answers={200: MemberTierView})
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """Read the caller's own tier."""
        actor = actor_of(req)
        send(resp, await self._tiers.get_member_tier(actor, actor.id))

    @operation(
        "listMemberTierChanges",
        scope("members:read", own=True),
        tag="tiers",
        query=TierChangeQuery,
        answers={200: TierChangePage},
        errors=(NotFound,),
    )
    async def on_get_changes(self, req: Request, resp: Response, member_id: str) -> None:
        """List the changes of a member's tier with their reasons, newest first."""
        send(resp, TierChangePage(*await self._tiers.list_changes(actor_of(req), member_id, read_query(req, TierChangeQuery))))

    @operation("listMyTierChanges", OWN, tag="tiers", query=TierChangeQuery, answers={200: TierChangePage})
    async def on_get_my_changes(self, req: Request, resp: Response) -> None:
        """List the changes of the caller's own tier, newest first."""
        actor = actor_of(req)
        send(resp, TierChangePage(*await self._tiers.list_changes(actor, actor.id, read_query(req, TierChangeQuery))))


def routes(tiers: Tiers) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of tiers."""
    member = MemberTierResource(tiers)
    return [
        ("/v1/tiers", TiersResource(tiers), None),
        ("/v1/members/{member_id}/tier", member, None),
        ("/v1/members/{member_id}/tier/changes", member, "changes"),
        ("/v1/me/tier", member, "mine"),
        ("/v1/me/tier/changes", member, "my_changes"),
    ]
