"""Wire shapes of what happens to a voucher at the till."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from guerdon.money import Amount, AssetCode
from guerdon.types import MemberId, PageQuery, Reason, Reference
from guerdon.vouchers.models import VoucherView

RESERVATION_SECONDS_MAX = 7 * 86_400
ITEMS_MAX = 200
ReservationId = Annotated[
    str, Meta(max_length=140, pattern=r"^hld_[\u0021-\u007e]+$(?!\n)", description="As `reserve` has answered it.")
]
UseId = Annotated[
    str, Meta(max_length=140, pattern=r"^txn_[\u0021-\u007e]+$(?!\n)", description="The `transaction_id` of the use.")
]
Sku = Annotated[str, Meta(min_length=1, max_length=64, pattern=r"^[!-~]+$(?!\n)", examples=["85123A"])]


class BasketItem(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of a basket; the price is in minor units of the basket's currency."""

    sku: Sku
    quantity: Annotated[int, Meta(ge=1, le=1_000_000)]
    unit_price: Annotated[int, Meta(ge=0, le=10**12)]


class Basket(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What is to be paid for. `member_id` says who pays, where a voucher is good only so often for each member."""

    amount: Amount | None = None
    currency: AssetCode | None = None
    items: Annotated[list[BasketItem], Meta(max_length=ITEMS_MAX)] = []
    member_id: MemberId | None = None


class ValidateCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket that a voucher is tried on."""

    reservation: ReservationId | None = None


class ReserveCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket that a voucher is set aside for. Without an amount a gift card is set aside with all that it has."""

    expires_in_seconds: Annotated[int, Meta(ge=1, le=RESERVATION_SECONDS_MAX, description="At most 7 days.")] = 900
    reference: Reference | None = None


class UseCreate(Basket, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A basket that a voucher is used on. A `reference` is accepted once for each voucher."""

    reservation: ReservationId | None = None
    reference: Reference | None = None


class ReleaseCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Which reservation is given up; it may be left out where there is one."""

    reservation: ReservationId | None = None
    reason: Reason | None = None


class UnuseCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Which use is taken back; null is the newest one."""

    use: UseId | None = None
    reason: Reason | None = None


class CancelCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Why the voucher is given back."""

    reason: Reason | None = None


class LoadCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a gift card goes into a wallet; null is all of it. Members leave out who they are."""

    member_id: MemberId | None = None
    amount: Amount | None = None
    reference: Reference | None = None


class StepAnswer(Struct, frozen=True, kw_only=True):
    """A voucher right after a step, and what the step has come to."""

    voucher: VoucherView
    step: str
    transaction_id: str
    discount: int | None = None
    """What is taken off the basket, in minor units. Null where only the till knows it: the price of an item, or of another house's code."""
    currency: str | None = None
    reservation: str | None = None
    reserved: int | None = None
    """What was set aside: money of a gift card, or one use."""
    wallet: str | None = None
    """Where a gift card was loaded into."""
    loaded: int | None = None
    refunded: int | None = None
    """What of the price has gone back into the member's wallet."""
    reference: str | None = None
    reason: str | None = None
    created_at: str


class ValidateAnswer(Struct, frozen=True, kw_only=True):
    """Whether a use would be accepted at this moment, and what it would come to. `problem` is what it would be answered."""

    valid: bool
    voucher: VoucherView
    discount: int | None = None
    currency: str | None = None
    problem: dict[str, Any] | None = None


class StepView(Struct, frozen=True):
    """One line of a voucher's history. `amount` is the signed change: money of a gift card, or uses."""

    id: str
    transaction_id: str
    step: str
    amount: int
    balance_after: int
    held_after: int
    seq: int
    discount: int | None
    currency: str | None
    reservation: str | None
    reference: str | None
    reason: str | None
    created_at: str


class StepPage(Struct, frozen=True):
    """A voucher's history, newest first."""

    items: list[StepView]
    next_cursor: str | None


class StepQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A page of a voucher's history."""
