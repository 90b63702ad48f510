"""Routes of referrals."""

from typing import Any

from guerdon.errors import NotFound, Overloaded, ReferralRefused
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.permissions import OWN, scope
from guerdon.referrals.models import ReferralCreate, ReferralView
from guerdon.referrals.service import Referrals


class ReferralResource:
    """`/v1/members/{member_id}/referral` and `/v1/me/referral`"""

    def __init__(self, referrals: Referrals) -> None:
        self._referrals = referrals

    @operation(
        "recordReferral",
        scope("events:write"),
        tag="referrals",
        body=ReferralCreate,
        answers={201: ReferralView, 200: ReferralView},
        errors=(NotFound, ReferralRefused, Overloaded),
        example={"code": "R0NdVkGqZzCbhfcUPYcEVDa"},
    )
    async def on_post(self, req: Request, resp: Response, member_id: str) -> None:
        """Record the referrer of a member, once and before the member's first purchase. A repetition answers 200."""
        body, _ = await read(req, ReferralCreate)
        referral, before = await self._referrals.record(member_id, body.code)
        send(resp, referral, 200 if before else 201, replayed=before)

    @operation("getReferral", scope("members:read", own=True), tag="referrals", answers={200: ReferralView}, errors=(NotFound,))
    async def on_get(self, req: Request, resp: Response, member_id: str) -> None:
        """Read a member's own code and their referrer."""
        send(resp, await self._referrals.get_referral(actor_of(req), member_id))

    @operation("getMyReferral", OWN, tag="referrals", answers={200: ReferralView})
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """Read the caller's own code and their referrer."""
        actor = actor_of(req)
        send(resp, await self._referrals.get_referral(actor, actor.id))


def routes(referrals: Referrals) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of referrals."""
    resource = ReferralResource(referrals)
    return [("/v1/members/{member_id}/referral", resource, None), ("/v1/me/referral", resource, "mine")]
