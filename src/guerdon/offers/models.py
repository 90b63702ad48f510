"""Wire and stored shapes of offers."""

from datetime import datetime
from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.campaigns.models import TierCode
from guerdon.clock import rfc3339
from guerdon.ledger.models import Account
from guerdon.money import BALANCE_CEILING, Amount, AssetCode, Rounding
from guerdon.types import DefinitionStatus, LongText, PageQuery, Text

OFFERS, OFFER_VERSIONS = "offers", "offer_versions"
OFFERS_LIVE_MAX = 200
"""So many offers are on sale at once: a catalogue shows all of them."""
IMAGES_MAX, TIERS_MAX = 8, 20
STOCK = "stock"
"""The kind of the account that counts what was issued of an offer, and the second half of its name."""
INDEXES: dict[str, list[IndexModel]] = {
    OFFERS: [IndexModel([("status", 1), ("_id", 1)], name="status")],
    OFFER_VERSIONS: [],
}

OfferKind = Literal["discount", "item", "gift_card", "external_code"]
LimitPeriod = Literal["day", "month", "ever"]
Count = Annotated[int, Meta(ge=0, le=10**12, description="A number of units.", examples=[100])]
PerMember = Annotated[int, Meta(ge=1, le=10**6, description="A number of units.", examples=[1])]
Eligibility = Annotated[str, Meta(min_length=1, max_length=2000, description="A CEL condition over member and now.")]
ImageUrl = Annotated[
    str,
    Meta(
        max_length=500,
        pattern=r"^[!-~]+$(?!\n)",
        description="An https address that is public.",
        examples=["https://192.0.0.9/cup.png"],
    ),
]
CodePattern = Annotated[str, Meta(max_length=64, pattern=r"^[A-Za-z0-9#-]+$(?!\n)", examples=["SUMMER-#####-#####-#####"])]
Percent = Annotated[
    str,
    Meta(
        pattern=r"^(100(\.0{1,4})?|[1-9]?[0-9](\.[0-9]{1,4})?)$(?!\n)",
        description="A decimal of at most 100, with at most four places.",
        examples=["12.5"],
    ),
]


# --- what a voucher is worth ----------------------------------------------------------------------------------------


class FixedValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="fixed"):
    """So much off the basket, or on the gift card, in minor units."""

    amount: Amount
    currency: AssetCode


class PercentValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="percent"):
    """So many percent off the basket, rounded once; at most `maximum` minor units, for baskets in `currency` only where that is said."""

    percent: Percent
    rounding: Rounding = "floor"
    maximum: Amount | None = None
    currency: AssetCode | None = None


class ItemValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="item"):
    """Things that are handed over."""

    sku: Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!-~]+$(?!\n)", examples=["85123A"])]
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1


Value = FixedValue | PercentValue | ItemValue


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """What a voucher costs its member."""

    asset: AssetCode
    amount: Amount


class BasketMinimum(Struct, frozen=True, forbid_unknown_fields=True):
    """The smallest basket that a voucher is good for."""

    amount: Amount
    currency: AssetCode


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a voucher may be given back, and for how many days after it was issued; None is as long as it lives."""

    allowed: bool = True
    days: Annotated[int, Meta(ge=1, le=3660)] | None = None


class Unuse(Struct, frozen=True, forbid_unknown_fields=True):
    """Whether a use may be undone, and for how many minutes after it; None is as long as the voucher lives."""

    allowed: bool = True
    minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None


# --- offers ---------------------------------------------------------------------------------------------------------


class OfferCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Something in the catalogue. Without a price it is free, without a stock there is no end of it."""

    name: Text
    kind: OfferKind
    value: Value | None = None
    """None for external codes only: what those are worth another house knows."""
    price: Price | None = None
    stock: Count | None = None
    per_member_limit: PerMember | None = None
    per_member_day_limit: PerMember | None = None
    per_member_month_limit: PerMember | None = None
    eligibility: Eligibility = "true"
    tiers: Annotated[list[TierCode], Meta(max_length=TIERS_MAX)] = []
    """Whoever has one of these tiers may redeem; empty is everybody."""
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    voucher_valid_days: Annotated[int, Meta(ge=1, le=3660)] | None = None
    """A voucher lapses at the midnight that follows so many days; None is never."""
    code_pattern: CodePattern | None = None
    minimum_basket: BasketMinimum | None = None
    description: LongText | None = None
    images: Annotated[list[ImageUrl], Meta(max_length=IMAGES_MAX)] = []
    cancellation: Cancellation = Cancellation()
    unuse: Unuse = Unuse()


class Offer(Struct, frozen=True, kw_only=True):
    """One version of an offer as stored; times in milliseconds. Stock and what was issued of it stand on the stock account."""

    id: str = field(name="_id")
    owner: str
    """Its own id: by it the document lies beside the stock account."""
    version: int
    count: int
    """How often the document has changed."""
    status: DefinitionStatus
    name: str
    kind: OfferKind
    value: Value | None
    price: Price | None
    per_member_limit: int | None
    per_member_day_limit: int | None
    per_member_month_limit: int | None
    eligibility: str
    tiers: list[str]
    starts_at: int | None
    ends_at: int | None
    voucher_valid_days: int | None
    code_pattern: str | None
    minimum_basket: BasketMinimum | None
    description: str | None
    images: list[str]
    cancellation: Cancellation
    unuse: Unuse
    created_at: int
    created_by: str
    changed_at: int

    @property
    def stock_account(self) -> str:
        return f"{self.id}:{STOCK}"


class OfferVersion(Struct, frozen=True, kw_only=True):
    """The archive of what a version said: vouchers refer to it for ever."""

    id: str = field(name="_id")
    """`{offer}/{version}`"""
    owner: str
    offer: Offer


class OfferView(Struct, frozen=True):
    """An offer, and how much of it is left. `stock` is None where there is no end of it."""

    id: str
    version: int
    status: DefinitionStatus
    name: str
    kind: OfferKind
    value: Value | None
    price: Price | None
    stock: int | None
    issued: int
    left: int | None
    per_member_limit: int | None
    per_member_day_limit: int | None
    per_member_month_limit: int | None
    eligibility: str
    tiers: list[str]
    starts_at: str | None
    ends_at: str | None
    voucher_valid_days: int | None
    code_pattern: str | None
    minimum_basket: BasketMinimum | None
    description: str | None
    images: list[str]
    cancellation: Cancellation
    unuse: Unuse
    created_at: str
    changed_at: str


class OfferPage(Struct, frozen=True):
    """Offers, newest first."""

    items: list[OfferView]
    next_cursor: str | None


class OfferQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filter by status."""

    status: DefinitionStatus | None = None


# --- the catalogue, as a member sees it -----------------------------------------------------------------------------


class CatalogueItem(Struct, frozen=True):
    """An offer for one member. `available` says whether they could redeem it now; `why_not` names the problem where not."""

    id: str
    name: str
    kind: OfferKind
    value: Value | None
    price: Price | None
    minimum_basket: BasketMinimum | None
    description: str | None
    images: list[str]
    starts_at: str | None
    ends_at: str | None
    voucher_valid_days: int | None
    left: int | None
    """How many are left of the stock; None where there is no end of it."""
    left_for_you: int | None
    """How many this member may still redeem by the offer's limits, now; None where there are none."""
    affordable: bool
    eligible: bool
    available: bool
    why_not: str | None
    """The code of the problem that a redemption would get."""


class Catalogue(Struct, frozen=True):
    """Everything that is on sale, newest first."""

    items: list[CatalogueItem]
    next_cursor: None = None


def stock_of(account: Account | None) -> int | None:
    """The stock that a stock account says; None is no end of it."""
    return None if account is None or account.ceiling == BALANCE_CEILING else account.ceiling


def left_of(account: Account | None) -> int | None:
    """How many are left of a stock; None where there is no end of it."""
    return None if account is None or account.ceiling == BALANCE_CEILING else max(0, account.ceiling - account.balance)


def view_offer(offer: Offer, account: Account | None) -> OfferView:
    return OfferView(
        id=offer.id,
        version=offer.version,
        status=offer.status,
        name=offer.name,
        kind=offer.kind,
        value=offer.value,
        price=offer.price,
        stock=stock_of(account),
        issued=0 if account is None else account.balance,
        left=left_of(account),
        per_member_limit=offer.per_member_limit,
        per_member_day_limit=offer.per_member_day_limit,
        per_member_month_limit=offer.per_member_month_limit,
        eligibility=offer.eligibility,
        tiers=offer.tiers,
        starts_at=optional_time(offer.starts_at),
        ends_at=optional_time(offer.ends_at),
        voucher_valid_days=offer.voucher_valid_days,
        code_pattern=offer.code_pattern,
        minimum_basket=offer.minimum_basket,
        description=offer.description,
        images=offer.images,
        cancellation=offer.cancellation,
        unuse=offer.unuse,
        created_at=rfc3339(offer.created_at),
        changed_at=rfc3339(offer.changed_at),
    )


def optional_time(at_ms: int | None) -> str | None:
    return None if at_ms is None else rfc3339(at_ms)
