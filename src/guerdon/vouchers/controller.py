"""Routes that show vouchers."""

from typing import Any

from guerdon.errors import NotFound
from guerdon.http import Request, Response, actor_of, operation, read_query, send
from guerdon.security import OWN, scope
from guerdon.vouchers.models import VoucherPage, VoucherQuery, VoucherView
from guerdon.vouchers.service import Vouchers


class VouchersResource:
    """`/v1/me/vouchers`, `/v1/members/{member_id}/vouchers` and `/v1/vouchers/{code}`"""

    def __init__(self, vouchers: Vouchers) -> None:
        self._vouchers = vouchers

    @operation("listMyVouchers", OWN, tag="vouchers", query=VoucherQuery, answers={200: VoucherPage})
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """List the caller's own vouchers, newest first."""
        actor = actor_of(req)
        send(resp, VoucherPage(*await self._vouchers.list_vouchers(actor, actor.id, read_query(req, VoucherQuery))))

    @operation(
        "listMemberVouchers",
        scope("vouchers:read", own=True),
        tag="vouchers",
        query=VoucherQuery,
        answers={200: VoucherPage},
        errors=(NotFound,),
    )
    async def on_get_of_member(self, req: Request, resp: Response, member_id: str) -> None:
        """List a member's vouchers, newest first."""
        send(resp, VoucherPage(*await self._vouchers.list_vouchers(actor_of(req), member_id, read_query(req, VoucherQuery))))

    @operation(
        "getVoucher",
        scope("vouchers:read", own=True),
        tag="vouchers",
        answers={200: VoucherView},
        errors=(NotFound,),
        guesses=True,
    )
    async def on_get_one(self, req: Request, resp: Response, code: str) -> None:
        """Read the voucher that a code stands for; one that is not the caller's is none."""
        send(resp, await self._vouchers.get_voucher(actor_of(req), code))


def routes(vouchers: Vouchers) -> list[tuple[str, Any, str | None]]:
    """(path, resource, suffix) of every route that shows vouchers."""
    resource = VouchersResource(vouchers)
    return [
        ("/v1/me/vouchers", resource, "mine"),
        ("/v1/members/{member_id}/vouchers", resource, "of_member"),
        ("/v1/vouchers/{code}", resource, "one"),
    ]
