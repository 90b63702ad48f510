"""Wire and stored shapes of vouchers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.ledger.models import Account
from guerdon.offers.models import BasketMinimum, FixedValue, OfferKind, Price, Value, optional_time
from guerdon.types import MemberId, PageQuery, Reference
from guerdon.wallets.models import TransactionView

VOUCHERS, VOUCHER_CODES, DEALT_CODES, POOL_CODES = "vouchers", "voucher_codes", "dealt_codes", "pool_codes"
VOUCHER, GIFT_CARD, REDEMPTIONS = "voucher", "gift_card", "redemptions"
"""Kinds of accounts: uses that a voucher has left, money on a gift card, and what a member has redeemed of an offer."""
ISSUED_EVENT = "voucher.issued"
INDEXES: dict[str, list[IndexModel]] = {
    VOUCHERS: [IndexModel([("owner", 1), ("_id", 1)], name="owner")],
    # Those of members have no batch, and are not in it.
    VOUCHER_CODES: [IndexModel([("batch", 1), ("_id", 1)], name="batch", partialFilterExpression={"batch": {"$gt": ""}})],
    DEALT_CODES: [],
    POOL_CODES: [],
}

VoucherState = Literal["issued", "partly_used", "used", "cancelled"]
VoucherStatus = Literal["issued", "partly_used", "reserved", "used", "cancelled", "expired"]
OfferId = Annotated[str, Meta(max_length=40, pattern=r"^off_[0-9a-f]{32}$(?!\n)")]


# --- stored ---------------------------------------------------------------------------------------------------------


class Reserved(Struct, frozen=True):
    """Whom a reservation is for. The hold `seq` on the voucher's account says how much it is, and until when."""

    seq: int
    member: str | None = None


class Voucher(Struct, frozen=True, kw_only=True):
    """One voucher as stored: what it is for ever, and `state` and `reserved_until` for lists. What is left on it its account says."""

    id: str = field(name="_id")
    owner: str
    """Whose account it is on: the member's, or nobody's but its own."""
    member: str | None
    offer: str
    offer_version: int
    name: str
    kind: OfferKind
    code: str | None
    """As it is shown. None for external codes: those are looked up by `number`."""
    number: int | None = None
    """Which code of the offer's pool it is."""
    batch: str | None = None
    value: Value | None
    minimum_basket: BasketMinimum | None = None
    uses: int = 1
    """How often it could be used when it was issued; of a gift card, the money that was on it."""
    price: Price | None = None
    transaction: str | None = None
    """That of the price."""
    counted: tuple[str, ...] = ()
    """The accounts that it counts against, the stock among them."""
    account: str
    issued_at: int
    expires_at: int | None = None
    state: VoucherState = "issued"
    reserved_until: int | None = None
    """Until when all that is left of it is reserved."""
    reserved: tuple[Reserved, ...] = ()
    last_use: str | None = None
    """The transaction of its newest use, unless that was taken back."""


class CodeRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A code. Its `_id`, the normalised code, is what makes it unique."""

    id: str = field(name="_id")
    owner: str
    """The member, or the offer where there is none."""
    offer: str
    voucher: str | None = None
    """None while nobody has opened it."""
    number: int | None = None
    batch: str | None = None


class DealtCode(Struct, frozen=True, kw_only=True):
    """Which voucher a code of a pool was dealt to. It is never dealt again."""

    id: str = field(name="_id")
    """`{offer}#{number}` with nine digits."""
    owner: str
    """The offer."""
    voucher: str
    member: str


class PoolCode(Struct, frozen=True, kw_only=True):
    """An imported code that another house has made."""

    id: str = field(name="_id")
    """`{offer}#{number}` with nine digits."""
    owner: str
    """The offer."""
    code: str
    """As it is shown."""


def pool_id(offer_id: str, number: int) -> str:
    return f"{offer_id}#{number:09d}"


# --- wire -----------------------------------------------------------------------------------------------------------


class RedeemCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Who redeems. Members leave it out: they redeem for themselves."""

    member_id: MemberId | None = None
    reference: Reference | None = None


class VoucherView(Struct, frozen=True):
    """A voucher. `uses_left`, and `balance` of a gift card, are what its account holds at this moment."""

    id: str
    code: str | None
    status: VoucherStatus
    kind: OfferKind
    name: str
    offer: str
    offer_version: int
    member_id: str | None
    value: Value | None
    minimum_basket: BasketMinimum | None
    price: Price | None
    transaction_id: str | None
    issued_at: str
    expires_at: str | None
    reserved_until: str | None
    uses_left: int
    balance: int | None


class Redeemed(Struct, frozen=True):
    """What a redemption has issued, and what it has cost; free vouchers have no transaction."""

    voucher: VoucherView
    transaction: TransactionView | None


class VoucherPage(Struct, frozen=True):
    """Vouchers, newest first. With a filter a page may hold fewer than `limit`, or none, and still have a `next_cursor`."""

    items: list[VoucherView]
    next_cursor: str | None


class VoucherQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filter by status, offer and kind."""

    status: VoucherStatus | None = None
    offer: OfferId | None = None
    kind: OfferKind | None = None


def status_of(voucher: Voucher, now_ms: int) -> VoucherStatus:
    """What a voucher is at a moment. A reservation that holds it keeps it from lapsing."""
    if voucher.state in {"used", "cancelled"}:
        return voucher.state
    if voucher.reserved_until is not None and voucher.reserved_until > now_ms:
        return "reserved"
    return "expired" if voucher.expires_at is not None and voucher.expires_at <= now_ms else voucher.state


def view_voucher(voucher: Voucher, account: Account | None, now_ms: int, *, code: str | None = None) -> VoucherView:
    """Show a voucher with its account as it is now, or as it was when it was issued; `code` is that of a pool."""
    left = voucher.uses if account is None else account.balance - account.held
    is_card = voucher.kind == "gift_card" and isinstance(voucher.value, FixedValue)
    return VoucherView(
        id=voucher.id,
        code=voucher.code if code is None else code,
        status=status_of(voucher, now_ms),
        kind=voucher.kind,
        name=voucher.name,
        offer=voucher.offer,
        offer_version=voucher.offer_version,
        member_id=voucher.member,
        value=voucher.value,
        minimum_basket=voucher.minimum_basket,
        price=voucher.price,
        transaction_id=voucher.transaction,
        issued_at=rfc3339(voucher.issued_at),
        expires_at=optional_time(voucher.expires_at),
        reserved_until=optional_time(voucher.reserved_until),
        uses_left=min(left, 1) if is_card else left,
        balance=left if is_card else None,
    )
