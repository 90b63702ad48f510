"""Routes of offers."""

from typing import Any

from msgspec.structs import replace

from guerdon.changes import changed_fields
from guerdon.errors import (
    InvalidState,
    NotFound,
    Overloaded,
    StockBelowIssued,
    Validation,
)
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.offers.models import Offer, OfferCreate, OfferPage, OfferQuery, OfferView, view_offer
from guerdon.offers.service import Offers, OfferState
from guerdon.permissions import scope
from guerdon.types import DefinitionStatus

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
_NOT_COMPARED = Offer.NOT_CONTENT | {"_id", "owner", "version", "created_at", "created_by"}
"""Fields that differ between any two versions, or belong to none."""


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
        """Create an offer as a draft. The eligibility is compiled and the addresses of the images are checked."""
        body, _ = await read(req, OfferCreate)
        warnings = await self._offers.find_warnings(body)
        state = await self._offers.create(actor_of(req), body)
        note(req, offer=state.offer.id)
        send(resp, replace(_view(state), warnings=warnings), 201)

    @operation("listOffers", scope("offers:read"), tag="offers", query=OfferQuery, answers={200: OfferPage})
    async def on_get(self, req: Request, resp: Response) -> None:
        """List offers, newest first."""
        offers, cursor = await self._offers.list_offers(read_query(req, OfferQuery))
        send(resp, OfferPage([_view(state) for state in offers], cursor))

    @operation("getOffer", scope("offers:read"), tag="offers", answers={200: OfferView}, errors=(NotFound,))
    async def on_get_one(self, req: Request, resp: Response, offer_id: str) -> None:
        """Get the current version of an offer, with the state of its stock."""
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
        """Replace an offer by a new version at once, for example to change its stock. Issued vouchers keep their version."""
        body, _ = await read(req, OfferCreate)
        warnings = await self._offers.find_warnings(body)
        change = await self._offers.replace(actor_of(req), offer_id, body)
        offer = change.after.offer
        note(req, version=str(offer.version), **changed_fields(change.before, offer, left_out=_NOT_COMPARED, stock=change.stock))
        send(resp, replace(_view(change.after), warnings=warnings))

    async def _set_status(self, req: Request, resp: Response, offer_id: str, status: DefinitionStatus) -> None:
        change = await self._offers.set_status(offer_id, status)
        note(req, before=change.before.status, after=change.after.offer.status)
        send(resp, _view(change.after))

    @operation("activateOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_activate(self, req: Request, resp: Response, offer_id: str) -> None:
        """Activate an offer, so that members can redeem it."""
        await self._set_status(req, resp, offer_id, "active")

    @operation("pauseOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_pause(self, req: Request, resp: Response, offer_id: str) -> None:
        """Pause an offer. Issued vouchers stay valid."""
        await self._set_status(req, resp, offer_id, "paused")

    @operation("endOffer", scope("offers:write"), tag="offers", answers={200: OfferView}, errors=_STEP)
    async def on_post_end(self, req: Request, resp: Response, offer_id: str) -> None:
        """End an offer permanently. Issued vouchers stay valid."""
        await self._set_status(req, resp, offer_id, "ended")


def _view(state: OfferState) -> OfferView:
    return view_offer(state.offer, state.account)


def routes(offers: Offers) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of offers."""
    offer = OffersResource(offers)
    return [
        ("/v1/offers", offer, None),
        ("/v1/offers/{offer_id}", offer, "one"),
        ("/v1/offers/{offer_id}/activate", offer, "activate"),
        ("/v1/offers/{offer_id}/pause", offer, "pause"),
        ("/v1/offers/{offer_id}/end", offer, "end"),
    ]
