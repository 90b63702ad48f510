"""Wire and stored shapes of vouchers."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.ledger.models import COUNTED, ISSUER, Account, Lot, Posting
from guerdon.offers.models import BasketMinimum, FixedValue, OfferKind, Price, Value
from guerdon.types import EXPECTED, MemberId, PageQuery, Reference
from guerdon.wallets.models import TransactionView

VOUCHERS, VOUCHER_CODES, DEALT_CODES, POOL_CODES = "vouchers", "voucher_codes", "dealt_codes", "pool_codes"
VOUCHER, GIFT_CARD, REDEMPTIONS = "voucher", "gift_card", "redemptions"
"""Kinds of accounts: the uses left on a voucher, the money on a gift card, and a member's redemptions of an offer."""
ISSUED_EVENT = "voucher.issued"
INDEXES: dict[str, list[IndexModel]] = {
    VOUCHERS: [IndexModel([("owner", 1), ("_id", 1)], name="owner")],
    # Codes of redeemed vouchers have no batch and are not in this index.
    VOUCHER_CODES: [IndexModel([("batch", 1), ("_id", 1)], name="batch", partialFilterExpression={"batch": {"$gt": ""}})],
    DEALT_CODES: [],
    POOL_CODES: [],
}

VoucherState = Literal["issued", "partly_used", "used", "cancelled"]
VoucherStatus = Literal["issued", "partly_used", "reserved", "used", "cancelled", "expired"]
OfferId = Annotated[
    str,
    Meta(
        max_length=40, pattern=r"^off_[0-9a-f]{32}$(?!\n)", extra={EXPECTED: "must be an offer id: off_ and 32 hexadecimal digits"}
    ),
]


# --- stored ---------------------------------------------------------------------------------------------------------


class Reserved(Struct, frozen=True):
    """Member of a reservation. The hold `seq` on the voucher's account has its size and its end."""

    seq: int
    member: str | None = None


class Voucher(Struct, frozen=True, kw_only=True):
    """One voucher as stored. `state`, `expires_at`, `reserved_until`, `reserved` and `last_use` change; the other fields do not.

    The uses or the money left are the balance of `account`.
    """

    id: str = field(name="_id")
    owner: str
    """The member; the voucher's own id when it has no member."""
    member: str | None
    offer: str
    offer_version: int
    name: str
    kind: OfferKind
    code: str | None
    """Code as it is shown. None for external codes, which `number` names."""
    number: int | None = None
    """Number of the code in the offer's pool, from 1."""
    batch: str | None = None
    value: Value | None
    minimum_basket: BasketMinimum | None = None
    uses: int = 1
    """Uses at the issue; the amount in minor units for a gift card."""
    price: Price | None = None
    transaction: str | None = None
    """Transaction of the price."""
    counted: tuple[str, ...] = ()
    """Accounts that count the voucher: the redemption counters and the stock."""
    account: str
    issued_at: int
    expires_at: int | None = None
    state: VoucherState = "issued"
    reserved_until: int | None = None
    """Earliest end of a reservation, while reservations hold all that is left."""
    reserved: tuple[Reserved, ...] = ()
    last_use: str | None = None
    """Transaction of the newest use. None before the first use and after that use was undone."""


class CodeRow(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A code. Its `_id` is the normalised code, so a code exists once."""

    id: str = field(name="_id")
    owner: str
    """The member; the offer when the code has no member."""
    offer: str
    voucher: str | None = None
    """None before the first step of the code."""
    number: int | None = None
    """Number of the code in the offer's pool."""
    batch: str | None = None


class DealtCode(Struct, frozen=True, kw_only=True):
    """Voucher that received a code of a pool. A code is dealt once."""

    id: str = field(name="_id")
    """`{offer}#{number}` with nine digits."""
    owner: str
    """The offer."""
    voucher: str
    member: str


class PoolCode(Struct, frozen=True, kw_only=True):
    """A code that a third party generated and an operator imported."""

    id: str = field(name="_id")
    """`{offer}#{number}` with nine digits."""
    owner: str
    """The offer."""
    code: str
    """Code as it is shown."""


def pool_id(offer_id: str, number: int) -> str:
    return f"{offer_id}#{number:09d}"


def account_of(voucher: Voucher) -> Account:
    """Return the account of a voucher before its issue."""
    owner, _, asset = voucher.account.partition(":")
    return Account(voucher.account, owner, asset, GIFT_CARD if voucher.kind == GIFT_CARD else VOUCHER, opened_at=voucher.issued_at)


def filling_of(voucher: Voucher) -> Posting:
    """Return the posting that issues a voucher: its uses or money, as a lot that expires with the voucher."""
    lots = () if voucher.expires_at is None else (Lot(voucher.uses, expires_at=voucher.expires_at),)
    return Posting(voucher.account, voucher.uses, ISSUER if voucher.kind == GIFT_CARD else COUNTED, lots=lots)


# --- wire -----------------------------------------------------------------------------------------------------------


class RedeemCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A redemption of an offer."""

    member_id: MemberId | None = None
    """Member who redeems. Required for service keys and staff; a member omits it."""
    reference: Reference | None = None
    """Your own name of the redemption, accepted once per member, and again after the voucher was cancelled."""


class VoucherView(Struct, frozen=True):
    """A voucher with the state of its account."""

    id: str
    """Voucher id."""
    code: str | None
    """Code as it is shown. Null when the pool of external codes has no code for the voucher."""
    status: VoucherStatus
    """Current status. `reserved` means that reservations hold all that is left."""
    kind: OfferKind
    """Kind of the offer."""
    name: str
    """Name of the offer when the voucher was issued."""
    offer: str
    """Id of the offer."""
    offer_version: int
    """Version of the offer that issued the voucher; its terms apply."""
    member_id: str | None
    """Member who owns the voucher. Null for a voucher of a code batch."""
    value: Value | None
    """Value of the voucher. Null for external codes, whose value the issuer of the codes defines."""
    minimum_basket: BasketMinimum | None
    """Smallest basket that the voucher applies to. Null for no minimum."""
    price: Price | None
    """Price that the member paid. Null for a free voucher."""
    transaction_id: str | None
    """Transaction of the price. Null for a free voucher."""
    issued_at: str
    """Time of the issue, RFC 3339 in UTC."""
    expires_at: str | None
    """Time of the expiry, RFC 3339 in UTC. Null for a voucher that does not expire."""
    reserved_until: str | None
    """Time at which the first reservation ends, RFC 3339 in UTC. Null unless the status is `reserved`."""
    uses_left: int
    """Uses that are left and not reserved. For a gift card 1 while it has money that is not reserved, otherwise 0."""
    balance: int | None
    """Money on a gift card that is not reserved, in minor units of its currency. Null for other kinds."""


class Redeemed(Struct, frozen=True):
    """Result of a redemption."""

    voucher: VoucherView
    """Voucher as it was issued."""
    transaction: TransactionView | None
    """Transaction of the price. Null for a free voucher."""


class VoucherPage(Struct, frozen=True):
    """A page of vouchers, newest first."""

    items: list[VoucherView]
    """Vouchers of the page. A page of a filtered list can have fewer than `limit` and still have a `next_cursor`."""
    next_cursor: str | None
    """Cursor of the next page. Null on the last page."""


class VoucherQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page and filters of a list of vouchers."""

    status: VoucherStatus | None = None
    """Only vouchers with this status."""
    offer: OfferId | None = None
    """Only vouchers of this offer."""
    kind: OfferKind | None = None
    """Only vouchers of this kind."""


def status_of(voucher: Voucher, now_ms: int) -> VoucherStatus:
    """Return the status at a time. A voucher that is reserved does not expire before the reservation ends."""
    if voucher.state in {"used", "cancelled"}:
        return voucher.state
    if voucher.reserved_until is not None and voucher.reserved_until > now_ms:
        return "reserved"
    return "expired" if voucher.expires_at is not None and voucher.expires_at <= now_ms else voucher.state


def view_voucher(voucher: Voucher, account: Account | None, now_ms: int, *, code: str | None = None) -> VoucherView:
    """Return the view of a voucher. Without an account it is the view at the issue; `code` is the code from the offer's pool."""
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
        expires_at=optional_rfc3339(voucher.expires_at),
        reserved_until=optional_rfc3339(voucher.reserved_until),
        uses_left=min(left, 1) if is_card else left,
        balance=left if is_card else None,
    )
