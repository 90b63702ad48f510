"""Routes that redeem offers and read vouchers."""

from typing import Any

from guerdon.errors import (
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    LimitReached,
    NotEligible,
    NotFound,
    OfferUnavailable,
    Overloaded,
    ReferenceReused,
    SoldOut,
    WalletClosed,
    WalletFrozen,
)
from guerdon.http.body import read_optional
from guerdon.http.idempotency import request_of
from guerdon.http.operation import Request, Response, actor_of, operation, send
from guerdon.http.query import read_query
from guerdon.offers.models import Catalogue
from guerdon.permissions import OWN, scope
from guerdon.vouchers.models import RedeemCreate, Redeemed, VoucherPage, VoucherQuery, VoucherView
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
        """Get a voucher by its code. A member gets only their own vouchers."""
        send(resp, await self._vouchers.get_voucher(actor_of(req), code))


class RedeemResource:
    """`/v1/offers/{offer_id}/redeem` and `/v1/me/offers`"""

    def __init__(self, vouchers: Vouchers) -> None:
        self._vouchers = vouchers

    @operation(
        "redeemOffer",
        scope("vouchers:write", own=True),
        tag="offers",
        body=RedeemCreate,
        body_optional=True,
        answers={201: Redeemed},
        errors=(
            IdempotencyKeyMissing,
            IdempotencyKeyReused,
            ReferenceReused,
            NotFound,
            OfferUnavailable,
            NotEligible,
            LimitReached,
            SoldOut,
            InsufficientFunds,
            WalletFrozen,
            WalletClosed,
            Overloaded,
        ),
        idempotent=True,
        dry_run=(
            "voucher.id",
            "voucher.code",
            "voucher.transaction_id",
            "transaction.id",
            "transaction.seq",
            "transaction.hold.id",
            "transaction.metadata.voucher",
        ),
        example={"member_id": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"},
    )
    async def on_post(self, req: Request, resp: Response, offer_id: str) -> None:
        """Issue a voucher and take its price in one commit. Members redeem for themselves; service keys name the member."""
        body, raw = await read_optional(req, RedeemCreate)
        request = request_of(req, f"POST /v1/offers/{offer_id}/redeem", raw)
        redeemed, before = await self._vouchers.redeem(request, offer_id, body)
        send(resp, redeemed, 201, replayed=before)

    @operation("listMyOffers", OWN, tag="offers", answers={200: Catalogue}, errors=(NotFound,))
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """List the active offers for the calling member, with the reason why an offer cannot be redeemed now."""
        send(resp, Catalogue(await self._vouchers.list_catalog(actor_of(req))))


def routes(vouchers: Vouchers) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route that redeems offers or shows vouchers."""
    redeem, voucher = RedeemResource(vouchers), VouchersResource(vouchers)
    return [
        ("/v1/offers/{offer_id}/redeem", redeem, None),
        ("/v1/me/offers", redeem, "mine"),
        ("/v1/me/vouchers", voucher, "mine"),
        ("/v1/members/{member_id}/vouchers", voucher, "of_member"),
        ("/v1/vouchers/{code}", voucher, "one"),
    ]
