"""Routes of offers."""

from typing import Any

from guerdon.errors import (
    IdempotencyKeyMissing,
    IdempotencyKeyReused,
    InsufficientFunds,
    InvalidState,
    LimitReached,
    NotEligible,
    NotFound,
    OfferUnavailable,
    Overloaded,
    ReferenceReused,
    SoldOut,
    StockBelowIssued,
    Validation,
    WalletClosed,
    WalletFrozen,
)
from guerdon.http import Request, Response, actor_of, operation, read, read_optional, read_query, send
from guerdon.security import OWN, scope
from guerdon.vouchers.models import RedeemCreate, Redeemed
from guerdon.vouchers.offer_models import Catalogue, OfferCreate, OfferPage, OfferQuery, OfferStatus, OfferView, view_offer
from guerdon.vouchers.offers import Offers, OfferState
from guerdon.vouchers.service import Vouchers
from guerdon.wallets.controller import request_of

_OFFER = {
    "name": "5 pounds off",
    "kind": "discount",
    "value": {"type": "fixed", "amount": 500, "currency": "GBP"},
    "price": {"asset": "PTS", "amount": 500},
    "stock": 100,
    "per_member_limit": 1,
    "eligibility": "true",
    "starts_at": None,
    "ends_at": None,
    "voucher_valid_days": 90,
    "code_pattern": None,
}
_STEP = (NotFound, InvalidState)


class OffersResource:
    """`/v1/offers`"""

    def __init__(self, offers: Offers) -> None:
        self._offers = offers

    @operation(
        "createOffer",
        scope("offers:write"),
        tag="offers",
        body=OfferCreate,
        answers={201: OfferView},
        errors=(Validation, Overloaded),
        example=_OFFER,
    )
    async def on_post(self, req: Request, resp: Response) -> None:
        """Draft an offer; its eligibility is compiled and type-checked now, and its images are looked at."""
        body, _ = await read(req, OfferCreate)
        send(resp, _view(await self._offers.create(actor_of(req), body)), 201)

    @operation("listOffers", scope("offers:read"), tag="offers", query=OfferQuery, answers={200: OfferPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List offers, newest first."""
        offers, cursor = await self._offers.list_offers(read_query(req, OfferQuery))
        send(resp, OfferPage([_view(state) for state in offers], cursor))

    @operation("getOffer", scope("offers:read"), tag="offers", answers={200: OfferView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, offer_id: str) -> None:
        """Read an offer's version in force, and how much of it is left."""
        send(resp, _view(await self._offers.get_offer(offer_id)))

    @operation(
        "replaceOffer",
        scope("offers:write"),
        tag="offers",
        body=OfferCreate,
        answers={200: OfferView},
        errors=(NotFound, InvalidState, StockBelowIssued, Overloaded),
        example=_OFFER,
    )
    async def on_put_one(self, req: Request, resp: Response, offer_id: str) -> None:
        """Make a new version, in force at once: also to raise or lower the stock. What was issued keeps the version that issued it."""
        body, _ = await read(req, OfferCreate)
        send(resp, _view(await self._offers.replace(actor_of(req), offer_id, body)))

    async def _set_status(self, resp: Response, offer_id: str, status: OfferStatus) -> None:
        send(resp, _view(await self._offers.set_status(offer_id, status)))

    @operation("activateOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_activate(self, _req: Request, resp: Response, offer_id: str) -> None:
        """Put an offer on sale."""
        await self._set_status(resp, offer_id, "active")

    @operation("pauseOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_pause(self, _req: Request, resp: Response, offer_id: str) -> None:
        """Take an offer off sale for a time; vouchers stay good."""
        await self._set_status(resp, offer_id, "paused")

    @operation("endOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_end(self, _req: Request, resp: Response, offer_id: str) -> None:
        """Take an offer off sale for good; vouchers stay good."""
        await self._set_status(resp, offer_id, "ended")


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
        example={"member_id": "mem_019a7f3c2d1e4b5a69788796a5b4c3d2"},
    )
    async def on_post(self, req: Request, resp: Response, offer_id: str) -> None:
        """Issue a voucher and take its price, in one commit. Members redeem for themselves, a service for whom it names."""
        body, raw = await read_optional(req, RedeemCreate)
        request = request_of(req, f"POST /v1/offers/{offer_id}/redeem", raw)
        redeemed, before = await self._vouchers.redeem(request, offer_id, body)
        send(resp, redeemed, 201, replayed=before)

    @operation("listMyOffers", OWN, tag="offers", answers={200: Catalogue}, errors=(NotFound,))
    async def on_get_mine(self, req: Request, resp: Response) -> None:
        """See what is on sale: what the caller could redeem now, and why not the rest."""
        send(resp, Catalogue(await self._vouchers.list_catalogue(actor_of(req))))


def _view(state: OfferState) -> OfferView:
    return view_offer(state.offer, state.account)


def routes(offers: Offers, vouchers: Vouchers) -> list[tuple[str, Any, str | None]]:
    """(path, resource, suffix) of every route of offers."""
    offer, redeem = OffersResource(offers), RedeemResource(vouchers)
    return [
        ("/v1/offers", offer, None),
        ("/v1/offers/{offer_id}", offer, "one"),
        ("/v1/offers/{offer_id}/activate", offer, "activate"),
        ("/v1/offers/{offer_id}/pause", offer, "pause"),
        ("/v1/offers/{offer_id}/end", offer, "end"),
        ("/v1/offers/{offer_id}/redeem", redeem, None),
        ("/v1/me/offers", redeem, "mine"),
    ]
