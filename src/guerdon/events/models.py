"""Wire shapes of events, and the indexes of their collections."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from pymongo import IndexModel

from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, EXPIRED_LOTS, REFUNDS
from guerdon.campaigns.models import EventType
from guerdon.money import AMOUNT_MAX
from guerdon.quantities import Quantity
from guerdon.types import EXPECTED, Category, EventId, ExternalId, MemberId, Reason, Sku, Text

INDEXES: dict[str, list[IndexModel]] = {
    # The data of one member is read by owner.
    EVENTS: [
        IndexModel([("owner", 1), ("_id", 1)], name="owner"),
        # The timeline of a member is read by the time of recording, and within one time in the order of the member's chain.
        IndexModel([("owner", 1), ("recorded_at", 1), ("proof.number", 1)], name="timeline"),
        # History is read in the order of occurrence, and within one time in the order of recording.
        IndexModel([("occurred_at", 1), ("recorded_at", 1)], name="occurred"),
    ],
    REFUNDS: [],
    EVENT_VOIDS: [],
    EXPIRED_LOTS: [],
}
ITEMS_MAX, EVENTS_BULK_MAX = 1000, 500

Currency = Annotated[
    str, Meta(pattern=r"^[A-Z]{3}$(?!\n)", extra={EXPECTED: "must be a three-letter currency code in capitals"}, examples=["GBP"])
]
AttributeName = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=40,
        pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)",
        extra={EXPECTED: "must consist of letters, digits and _, and not begin with a digit"},
    ),
]
AttributeInt = Annotated[int, Meta(ge=-(2**53), le=2**53)]
Attributes = Annotated[dict[AttributeName, Text | AttributeInt | bool], Meta(max_length=20)]
UnitPrice = Annotated[int, Meta(ge=-AMOUNT_MAX, le=AMOUNT_MAX, examples=[255])]


class MemberRef(Struct, frozen=True, forbid_unknown_fields=True):
    """A member, identified by exactly one of the two ids."""

    external_id: ExternalId | UnsetType = UNSET
    """The shop's own id of the member. An unknown one creates the member."""
    id: MemberId | UnsetType = UNSET
    """Guerdon's id of the member."""


class ItemCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A line item of a purchase or refund."""

    sku: Sku
    """SKU of the article."""
    quantity: Quantity
    """Number of units. A quantity with decimals is text with at most six places, for example "0.352"."""
    unit_price: UnitPrice | UnsetType = UNSET
    """Price of one unit in minor units of the event's currency; 0 for a free unit, below 0 for a discount. Left out: the line item has no price."""
    category: Category | None = None
    """Category of the article. Null: no category."""


class EventCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened in the shop.

    A purchase and a refund have an amount and a currency; for other types both are optional. An event with `confirms` is not evaluated; it
    releases awards of the purchase that wait for its type. `id`, `items` and `attributes` are kept permanently, even after an erasure, so they
    must not hold personal data.
    """

    id: EventId
    """Business key of the event. An event with the same id and content is recorded once, permanently."""
    type: EventType
    """`purchase`, `refund`, or a type of your own."""
    member: MemberRef
    """Member whose event it is."""
    occurred_at: datetime
    """Time of the event, RFC 3339 with an offset."""
    amount: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, examples=[13912])] | UnsetType = UNSET
    """Amount in minor units of `currency`. Needed for a purchase and a refund; 0 if vouchers or gift cards have paid the purchase."""
    currency: Currency | None = None
    """Currency of the amounts, three letters. Needed for a purchase, for a refund, and with an amount."""
    items: Annotated[list[ItemCreate], Meta(max_length=ITEMS_MAX)] = []
    """Line items of the purchase, or those that a refund returns."""
    refund_of: EventId | None = None
    """Id of the purchase that a refund is for. Null: a refund without a purchase."""
    confirms: EventId | None = None
    """Id of the purchase that the event confirms, for example by its delivery."""
    attributes: Attributes = {}
    """Further facts for conditions."""


class EventVoidCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Correction of an event that should not have been recorded as it was."""

    reason: Reason
    """Reason for the void."""


class EventsCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 500 events. Each is recorded or refused on its own."""

    events: Annotated[list[EventCreate], Meta(min_length=1, max_length=EVENTS_BULK_MAX)]
    """Events to record, in order."""
