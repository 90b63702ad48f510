"""Wire shapes of vouchers at the point of sale."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from guerdon.money import Amount, AssetCode
from guerdon.types import EXPECTED, MemberId, PageQuery, Reason, Reference
from guerdon.vouchers.models import VoucherView

RESERVATION_SECONDS_MAX = 7 * 86_400
ITEMS_MAX = 200
ReservationId = Annotated[
    str,
    Meta(
        max_length=140,
        pattern=r"^hld_[\u0021-\u007e]+$(?!\n)",
        extra={EXPECTED: "must be the id of a reservation: hld_ and visible ASCII characters"},
        description="Id of a reservation, as `reserve` returned it.",
    ),
]
UseId = Annotated[
    str,
    Meta(
        max_length=140,
        pattern=r"^txn_[\u0021-\u007e]+$(?!\n)",
        extra={EXPECTED: "must be the id of a transaction: txn_ and visible ASCII characters"},
        description="The `transaction_id` that the use returned.",
    ),
]
Sku = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=64,
        pattern=r"^[!-~]+$(?!\n)",
        extra={EXPECTED: "must be visible ASCII characters"},
        examples=["85123A"],
    ),
]


class BasketItem(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a basket."""

    sku: Sku
    """Stock keeping unit of the item."""
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]
    """Number of items."""
    unit_price: Annotated[int, Meta(ge=0, le=10**12)]
    """Price of one item in minor units of the basket's currency."""


class Basket(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket to pay for."""

    amount: Amount | None = None
    """Total of the basket in minor units of `currency`. Required for vouchers whose discount depends on it."""
    currency: AssetCode | None = None
    """Currency of the basket."""
    items: Annotated[list[BasketItem], Meta(max_length=ITEMS_MAX)] = []
    """Lines of the basket. Required for the discount of an item voucher."""
    member_id: MemberId | None = None
    """Member who pays. Required for a shared code with limits per member."""


class ValidateCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket to validate a use on."""

    reservation: ReservationId | None = None
    """Reservation to use. Null to use what is not reserved."""


class ReserveCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket to reserve a voucher for. Without an amount the whole balance of a gift card is reserved."""

    expires_in_seconds: Annotated[int, Meta(ge=1, le=RESERVATION_SECONDS_MAX)] = 900
    """Number of seconds after which the reservation ends, at most 7 days."""
    reference: Reference | None = None
    """Your own name of the order."""


class UseCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket to use a voucher on."""

    reservation: ReservationId | None = None
    """Reservation to use. Null to use what is not reserved."""
    reference: Reference | None = None
    """Your own name of the order, accepted once per voucher, and again after the use was undone."""


class ReleaseCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A reservation to release."""

    reservation: ReservationId | None = None
    """Reservation to release. Null when the voucher has one reservation."""
    reason: Reason | None = None
    """Reason, kept with the transaction."""


class UnuseCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A use to undo."""

    use: UseId | None = None
    """Transaction of the use. Null for the newest use."""
    reason: Reason | None = None
    """Reason, kept with the transaction."""


class CancelCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A cancellation of a voucher."""

    reason: Reason | None = None
    """Reason, kept with the transaction."""


class LoadCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A transfer from a gift card to a wallet."""

    member_id: MemberId | None = None
    """Member whose wallet is credited. Required for service keys and staff; a member omits it."""
    amount: Amount | None = None
    """Amount in minor units of the card's currency. Null for the whole balance."""
    reference: Reference | None = None
    """Your own name of the transfer, accepted once per voucher."""


class StepAnswer(Struct, frozen=True, kw_only=True):
    """Result of a step, with the voucher right after it."""

    voucher: VoucherView
    """Voucher right after the step."""
    step: str
    """Kind of the step, such as `use`."""
    transaction_id: str
    """Transaction of the step."""
    discount: int | None = None
    """Discount on the basket in minor units of `currency`. Null when only the shop knows it: for an external code, or an item without a price."""
    currency: str | None = None
    """Currency of the discount."""
    reservation: str | None = None
    """Reservation that the step made, used or released."""
    reserved: int | None = None
    """Amount that was reserved: minor units of a gift card, or one use. Null unless the step is `reserve`."""
    wallet: str | None = None
    """Wallet that a gift card was loaded into."""
    loaded: int | None = None
    """Amount that was moved to the wallet, in minor units. Null unless the step is `load`."""
    refunded: int | None = None
    """Part of the price that returned to the member's wallet, in minor units. Null unless the step is `cancel`."""
    reference: str | None = None
    """Your own name of the order or transfer."""
    reason: str | None = None
    """Reason that the request gave."""
    created_at: str
    """Time of the step, RFC 3339 in UTC."""


class ValidateAnswer(Struct, frozen=True, kw_only=True):
    """Result of a validation."""

    valid: bool
    """True when the use would be accepted now."""
    voucher: VoucherView
    """Voucher with its current state."""
    discount: int | None = None
    """Discount on the basket in minor units of `currency`. Null when only the shop knows it."""
    currency: str | None = None
    """Currency of the discount."""
    problem: dict[str, Any] | None = None
    """Problem document that the use would return. Null when `valid` is true."""


class StepView(Struct, frozen=True):
    """An entry in the history of a voucher."""

    id: str
    """Entry id."""
    transaction_id: str
    """Transaction of the step."""
    step: str
    """Kind of the step, such as `use`."""
    amount: int
    """Signed change of the balance: minor units of a gift card, or uses."""
    balance_after: int
    """Balance after the entry: minor units of a gift card, or uses."""
    held_after: int
    """Part of the balance that is reserved after the entry."""
    seq: int
    """Sequence number of the entry on the voucher's account, from 1."""
    discount: int | None
    """Discount on the basket in minor units of `currency`."""
    currency: str | None
    """Currency of the discount."""
    reservation: str | None
    """Reservation that the step made, used or released."""
    reference: str | None
    """Your own name of the order or transfer."""
    reason: str | None
    """Reason that the request gave."""
    created_at: str
    """Time of the entry, RFC 3339 in UTC."""


class StepPage(Struct, frozen=True):
    """A page of a voucher's history, newest first."""

    items: list[StepView]
    """Entries of the page."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class StepQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page of a voucher's history."""
