"""Wire and stored shapes of offers."""

from datetime import datetime
from typing import Annotated, ClassVar, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.campaigns.models import TierCode
from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.ledger.models import Account
from guerdon.money import BALANCE_CEILING, Amount, AssetCode, Rounding
from guerdon.proofs import ArchivedVersion
from guerdon.types import EXPECTED, DefinitionStatus, DefinitionWarning, LongText, PageQuery, Sku, Text

OFFERS, OFFER_VERSIONS, OFFER_REFUSALS = "offers", "offer_versions", "offer_refusals"
OFFERS_LIVE_MAX = 200
"""Maximum number of active offers. The catalog shows all of them on one page."""
IMAGES_MAX, TIERS_MAX = 8, 20
STOCK = "stock"
"""Kind of the account that counts the issued vouchers of an offer, and the second part of its id."""
INDEXES: dict[str, list[IndexModel]] = {
    OFFERS: [IndexModel([("status", 1), ("_id", 1)], name="status")],
    OFFER_VERSIONS: [],
    OFFER_REFUSALS: [IndexModel([("offer", 1), ("day", 1)], name="offer")],
}

OfferKind = Literal["discount", "item", "gift_card", "external_code"]
LimitPeriod = Literal["day", "month", "ever"]
Count = Annotated[int, Meta(ge=0, le=10**12, description="A number of units.", examples=[100])]
PerMember = Annotated[int, Meta(ge=1, le=10**6, description="A number of units.", examples=[1])]
Eligibility = Annotated[str, Meta(min_length=1, max_length=2000, description="A CEL condition over `member` and `now`.")]
ImageUrl = Annotated[
    str,
    Meta(
        max_length=500,
        pattern=r"^[!-~]+$(?!\n)",
        extra={EXPECTED: "must be visible ASCII characters"},
        description="A public https address.",
        examples=["https://192.0.0.9/cup.png"],
    ),
]
CodePattern = Annotated[
    str,
    Meta(
        max_length=64,
        pattern=r"^[A-Za-z0-9#-]+$(?!\n)",
        extra={EXPECTED: "must consist of letters, digits, # and -"},
        examples=["SUMMER-#####-#####-#####"],
    ),
]
Percent = Annotated[
    str,
    Meta(
        pattern=r"^(100(\.0{1,4})?|[1-9]?[0-9](\.[0-9]{1,4})?)$(?!\n)",
        extra={EXPECTED: 'must be a decimal from 0 to 100 with at most four places, such as "12.5"'},
        description="A decimal number of at most 100, with at most four decimal places.",
        examples=["12.5"],
    ),
]


# --- values -----------------------------------------------------------------------------------------------------------


class FixedValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="fixed"):
    """A fixed discount on a basket, or the money on a gift card."""

    amount: Amount
    """Amount in minor units of `currency`."""
    currency: AssetCode
    """Asset code of the amount."""


class PercentValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="percent"):
    """A percentage of a basket, rounded once."""

    percent: Percent
    """Percentage of the basket's amount, with at most four decimal places."""
    rounding: Rounding = "floor"
    """Rounding of the discount to minor units."""
    maximum: Amount | None = None
    """Largest discount in minor units of `currency`. Null for no maximum."""
    currency: AssetCode | None = None
    """Currency that the basket must have. Null for any; required with `maximum`."""


class ItemValue(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="item"):
    """An item that is handed over."""

    sku: Sku
    """Stock keeping unit of the item."""
    quantity: Annotated[int, Meta(ge=1, le=1000)] = 1
    """Number of items."""


Value = FixedValue | PercentValue | ItemValue


class Price(Struct, frozen=True, forbid_unknown_fields=True):
    """Price of a voucher, taken from the member's wallet."""

    asset: AssetCode
    """Asset code of the wallet."""
    amount: Amount
    """Amount in minor units of `asset`."""


class BasketMinimum(Struct, frozen=True, forbid_unknown_fields=True):
    """Smallest basket that a voucher applies to."""

    amount: Amount
    """Amount in minor units of `currency`."""
    currency: AssetCode
    """Currency that the basket must have."""


class Cancellation(Struct, frozen=True, forbid_unknown_fields=True):
    """Rule for cancelling a voucher and refunding its price."""

    allowed: bool = True
    """True to allow cancellations."""
    days: Annotated[int, Meta(ge=1, le=3660)] | None = None
    """Number of days after the issue in which a voucher can be cancelled. Null for no time limit."""


class Unuse(Struct, frozen=True, forbid_unknown_fields=True):
    """Rule for undoing a use."""

    allowed: bool = True
    """True to allow undoing."""
    minutes: Annotated[int, Meta(ge=1, le=525_600)] | None = None
    """Number of minutes after a use in which it can be undone. Null for no time limit."""


# --- offers -----------------------------------------------------------------------------------------------------------


class OfferCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """An offer. Without a price it is free; without a stock it is unlimited."""

    name: Text
    """Name that members see."""
    kind: OfferKind
    """Kind of the vouchers. It cannot change in later versions."""
    value: Value | None = None
    """Value of a voucher. Required, except for external codes, whose value the issuer of the codes defines."""
    price: Price | None = None
    """Price that a redemption takes. Null for a free offer."""
    stock: Count | None = None
    """Number of vouchers that can be issued in total. Null for no limit."""
    per_member_limit: PerMember | None = None
    """Number of vouchers that a member can redeem in total. Null for no limit."""
    per_member_day_limit: PerMember | None = None
    """Number of vouchers that a member can redeem in a calendar day. Null for no limit."""
    per_member_month_limit: PerMember | None = None
    """Number of vouchers that a member can redeem in a calendar month. Null for no limit."""
    eligibility: Eligibility = "true"
    """CEL condition that a member must meet to redeem."""
    tiers: Annotated[list[TierCode], Meta(max_length=TIERS_MAX)] = []
    """Codes of the tiers whose members can redeem. Empty for all members."""
    starts_at: datetime | None = None
    """Time at which the offer begins, RFC 3339. Null for an offer that has begun."""
    ends_at: datetime | None = None
    """Time at which the offer ends, RFC 3339. Null for an offer without an end."""
    voucher_valid_days: Annotated[int, Meta(ge=1, le=3660)] | None = None
    """Number of days after which a voucher expires, at the end of the day. Null for vouchers that do not expire."""
    code_pattern: CodePattern | None = None
    """Pattern of the codes: each `#` is a random character, the last one a check character. Null for the default pattern."""
    minimum_basket: BasketMinimum | None = None
    """Smallest basket that a voucher applies to. Null for no minimum."""
    description: LongText | None = None
    """Description that members see."""
    images: Annotated[list[ImageUrl], Meta(max_length=IMAGES_MAX)] = []
    """Addresses of images that members see."""
    cancellation: Cancellation = Cancellation()
    """Rule for cancelling a voucher."""
    unuse: Unuse = Unuse()
    """Rule for undoing a use."""


class Offer(Struct, frozen=True, kw_only=True):
    """One version of an offer as stored; times in milliseconds. The stock account counts the stock and the vouchers that are issued."""

    NOT_CONTENT: ClassVar = frozenset({"status", "changed_at", "count"})
    """Fields that change without a new version."""

    id: str = field(name="_id")
    owner: str
    """The offer's own id, by which the document is stored beside the stock account."""
    version: int
    count: int
    """Number of changes of the document, by which concurrent changes are detected."""
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
        return stock_account(self.id)


class OfferVersion(ArchivedVersion, frozen=True, kw_only=True):
    """A version in the archive. It never changes, because vouchers refer to it."""

    id: str = field(name="_id")
    """`{offer}/{version}`"""
    owner: str
    offer: Offer

    @property
    def definition(self) -> Offer:
        return self.offer


class OfferView(Struct, frozen=True):
    """An offer with the state of its stock."""

    id: str
    """Offer id."""
    version: int
    """Number of the current version, from 1."""
    status: DefinitionStatus
    """Status of the offer."""
    name: str
    """Name that members see."""
    kind: OfferKind
    """Kind of the vouchers."""
    value: Value | None
    """Value of a voucher. Null for external codes."""
    price: Price | None
    """Price that a redemption takes. Null for a free offer."""
    stock: int | None
    """Number of vouchers that can be issued in total. Null for no limit."""
    issued: int
    """Number of vouchers that are issued, including the codes of batches."""
    left: int | None
    """Number of vouchers that can still be issued. Null for no limit."""
    per_member_limit: int | None
    """Number of vouchers that a member can redeem in total. Null for no limit."""
    per_member_day_limit: int | None
    """Number of vouchers that a member can redeem in a calendar day. Null for no limit."""
    per_member_month_limit: int | None
    """Number of vouchers that a member can redeem in a calendar month. Null for no limit."""
    eligibility: str
    """CEL condition that a member must meet to redeem."""
    tiers: list[str]
    """Codes of the tiers whose members can redeem. Empty for all members."""
    starts_at: str | None
    """Time at which the offer begins, RFC 3339 in UTC. Null for an offer that has begun."""
    ends_at: str | None
    """Time at which the offer ends, RFC 3339 in UTC. Null for an offer without an end."""
    voucher_valid_days: int | None
    """Number of days after which a voucher expires, at the end of the day. Null for vouchers that do not expire."""
    code_pattern: str | None
    """Pattern of the codes. Null for the default pattern."""
    minimum_basket: BasketMinimum | None
    """Smallest basket that a voucher applies to. Null for no minimum."""
    description: str | None
    """Description that members see."""
    images: list[str]
    """Addresses of images that members see."""
    cancellation: Cancellation
    """Rule for cancelling a voucher."""
    unuse: Unuse
    """Rule for undoing a use."""
    created_at: str
    """Time at which the offer was created, RFC 3339 in UTC."""
    changed_at: str
    """Time of the last change, RFC 3339 in UTC."""
    warnings: list[DefinitionWarning] | UnsetType = UNSET
    """Warnings about values that are valid and probably not meant. Present after the offer was created or replaced."""


class OfferPage(Struct, frozen=True):
    """A page of offers, newest first."""

    items: list[OfferView]
    """Offers of the page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class OfferQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page and filter of a list of offers."""

    status: DefinitionStatus | None = None
    """Only offers with this status."""


# --- catalog ----------------------------------------------------------------------------------------------------------


class CatalogueItem(Struct, frozen=True):
    """An offer as one member sees it."""

    id: str
    """Offer id."""
    name: str
    """Name of the offer."""
    kind: OfferKind
    """Kind of the voucher."""
    value: Value | None
    """Value of the voucher. Null for external codes."""
    price: Price | None
    """Price that a redemption takes. Null for a free offer."""
    minimum_basket: BasketMinimum | None
    """Smallest basket that the voucher applies to. Null for no minimum."""
    description: str | None
    """Description of the offer."""
    images: list[str]
    """Addresses of images."""
    starts_at: str | None
    """Time at which the offer begins, RFC 3339 in UTC. Null for an offer that has begun."""
    ends_at: str | None
    """Time at which the offer ends, RFC 3339 in UTC. Null for an offer without an end."""
    voucher_valid_days: int | None
    """Number of days after which the voucher expires, at the end of the day. Null for a voucher that does not expire."""
    left: int | None
    """Number of vouchers left in the stock. Null for no limit."""
    left_for_you: int | None
    """Number of vouchers that the offer's limits leave to this member now. Null for an offer without limits per member."""
    affordable: bool
    """True when the member's wallet covers the price."""
    eligible: bool
    """True when the member has one of the tiers and meets the condition."""
    available: bool
    """True when the member can redeem the offer now."""
    why_not: str | None
    """Code of the problem that a redemption would return now. Null when `available` is true."""


class Catalogue(Struct, frozen=True):
    """The active offers, newest first."""

    items: list[CatalogueItem]
    """All active offers whose window has not ended."""
    next_cursor: None = None
    """Always null: the catalog has one page."""


def stock_account(offer_id: str) -> str:
    """Return the id of the stock account of an offer."""
    return f"{offer_id}:{STOCK}"


def stock_of(account: Account | None) -> int | None:
    """Return the stock of a stock account, or None for no limit."""
    return None if account is None or account.ceiling == BALANCE_CEILING else account.ceiling


def left_of(account: Account | None) -> int | None:
    """Return the number of vouchers left in a stock, or None for no limit."""
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
        starts_at=optional_rfc3339(offer.starts_at),
        ends_at=optional_rfc3339(offer.ends_at),
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
