"""Wire and stored shapes of events, and of what is known about a member because of them."""

from datetime import datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType
from pymongo import IndexModel

from guerdon.campaigns.domain import EVENTS, REFUNDS
from guerdon.campaigns.models import EventType
from guerdon.money import AMOUNT_MAX, Amount
from guerdon.types import EXPECTED, EventId, ExternalId, MemberId, Text

INDEXES: dict[str, list[IndexModel]] = {
    # What is kept about a member is asked for by the member.
    EVENTS: [
        IndexModel([("owner", 1), ("_id", 1)], name="owner"),
        # The past is walked through in its order, each moment in the order in which it was recorded.
        IndexModel([("occurred_at", 1), ("recorded_at", 1)], name="occurred"),
    ],
    REFUNDS: [],
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
Quantity = Annotated[int, Meta(ge=1, le=1_000_000)]


# --- events: wire ---------------------------------------------------------------------------------------------------


class MemberRef(Struct, frozen=True, forbid_unknown_fields=True):
    """Exactly one of the two: the shop's own id (an unknown one creates the member) or ours."""

    external_id: ExternalId | UnsetType = UNSET
    id: MemberId | UnsetType = UNSET


class ItemCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A line of the purchase. Leave `unit_price` out for a line without a price."""

    sku: Text
    quantity: Quantity
    unit_price: Amount | UnsetType = UNSET
    category: Text | None = None


class EventCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Something that happened in the shop. `id` is its business key, for ever; `amount` is in minor units of `currency`.

    A purchase and a refund have both; anything else may leave them out. A refund names its purchase in `refund_of`, if it has one. Any other
    event may say in `confirms` which purchase has come so far (delivered, say): it is not judged, but makes awards that waited for it spendable.
    `id`, `items` and `attributes` are kept for ever, whatever is erased: nothing personal belongs there.
    """

    id: EventId
    type: EventType
    member: MemberRef
    occurred_at: datetime
    amount: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, examples=[13912])] = 0
    currency: Currency | None = None
    items: Annotated[list[ItemCreate], Meta(max_length=ITEMS_MAX)] = []
    refund_of: EventId | None = None
    confirms: EventId | None = None
    attributes: Attributes = {}


class EventsCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 500 events, each recorded or refused by itself."""

    events: Annotated[list[EventCreate], Meta(min_length=1, max_length=EVENTS_BULK_MAX)]


# --- events: domain and stored --------------------------------------------------------------------------------------
