"""Wire and stored shapes of events, and of what is known about a member because of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.http import ExternalId, Text
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING, Amount
from guerdon.rewards.campaign_models import CAMPAIGN_VERSIONS, CAMPAIGNS, Clawback, EventType, Expiry, ItemsOf
from guerdon.rewards.tier_models import TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS, TierStep

EVENTS, REFUNDS, STANDINGS = "events", "refunds", "standings"
INDEXES: dict[str, list[IndexModel]] = {
    # What is kept about a member is asked for by the member.
    EVENTS: [
        IndexModel([("owner", 1), ("_id", 1)], name="owner"),
        # The past is walked through in its order, each moment in the order in which it was recorded.
        IndexModel([("occurred_at", 1), ("recorded_at", 1)], name="occurred"),
    ],
    REFUNDS: [],
    # Only who may lose a tier has the field; the review finds them by it.
    STANDINGS: [IndexModel([("due_at", 1)], name="due_at", partialFilterExpression={"due_at": {"$gt": 0}})],
    TIER_SETS: [],
    TIER_SET_VERSIONS: [],
    TIER_CHANGES: [],
    # Events ask for the active campaigns every second; paused ones and drafts pile up.
    CAMPAIGNS: [IndexModel([("status", 1), ("_id", -1)], name="status")],
    CAMPAIGN_VERSIONS: [],
}
REFERRERS = "referrer:"
"""What stands before the asset of the referrer's wallet."""
ITEMS_MAX, EVENTS_BULK_MAX = 1000, 500
PURCHASE, REFUND = "purchase", "refund"

# Visible ASCII, but nothing that could not stand as the last part of `/v1/events/{event_id}`.
_EVENT_ID = r"^(?!preview$|bulk$|\.{1,2}$)[\u0021-\u002e\u0030-\u007e]+$(?!\n)"
EventId = Annotated[str, Meta(min_length=1, max_length=128, pattern=_EVENT_ID, examples=["order-1001"])]
MemberId = Annotated[str, Meta(max_length=40, pattern=r"^mem_[0-9a-f]{32}$(?!\n)")]
Currency = Annotated[str, Meta(pattern=r"^[A-Z]{3}$(?!\n)", examples=["GBP"])]
AttributeName = Annotated[str, Meta(min_length=1, max_length=40, pattern=r"^[A-Za-z_][A-Za-z0-9_]*$(?!\n)")]
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


class DecisionView(Struct, frozen=True):
    """What one campaign said about the event, and why."""

    campaign: str
    version: int
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]


# --- events: domain and stored --------------------------------------------------------------------------------------


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line as it is kept. Imports may hold what the API refuses: returned quantities, free lines."""

    sku: str
    quantity: int
    unit_price: int = 0
    category: str | None = None


class ShopEvent(Struct, frozen=True, kw_only=True):
    """An event on its way to the ledger. `amount` may be zero or negative here: history is recorded as it was."""

    id: str
    type: str
    occurred_at: int
    amount: int
    currency: str
    refund_of: str | None = None
    external_id: str | None = None
    member_id: str | None = None
    items: tuple[Item, ...] = ()
    attributes: dict[str, str | int | bool] = {}
    confirms: str | UnsetType = UNSET
    """Nothing where it confirms nothing, so that what tells an event from another one is what it was before there was this."""

    @property
    def about(self) -> str | None:
        """The purchase that it refunds or confirms."""
        return self.refund_of if self.confirms is UNSET else self.confirms


class Waiting(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What an award waits for, and how long it lives from then on."""

    event_type: str
    expiry: Expiry | None = None


class Award(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What a campaign paid, or took back (negative), as stored: enough to take it back in turn, whatever the campaign says by then."""

    campaign: str
    version: int
    asset: str
    amount: int
    transaction_id: str | None = None
    available_at: int | None = None
    expires_at: int | None = None
    counted: tuple[str, ...] = ()
    """The accounts of the caps and the budget that it counts against."""
    clawback: Clawback = "debt"
    items: ItemsOf | None = None
    """The lines that it was worked out on."""
    to: str | None = None
    """Whoever has been paid instead of the member: their referrer."""
    achievement: bool = False
    """It rests on several events, and is taken back when one of them stops counting."""
    waits: Waiting | None = None
    """It cannot be spent before it is released, and lapses at `expires_at`."""


class Release(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was made spendable of an award that waited, as stored."""

    campaign: str
    version: int
    asset: str
    amount: int
    expires_at: int | None = None
    to: str | None = None
    transaction_id: str | None = None


class Released(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """By which event an award was released, and when it lapses now."""

    event: str
    expires_at: int | None = None


class Mark(Struct, frozen=True, kw_only=True):
    """An event that counts for an achievement: when, and a digest of its id."""

    unit: int
    event: str


class Reached(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A goal that was achieved: by what, and what was paid for it, if anything was."""

    kind: str
    marks: tuple[Mark, ...]
    occurred_at: int
    recorded_at: int
    award: Award | None = None


class Achieved(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a member is with one campaign's achievement."""

    kind: str = ""
    """What its window is counted in."""
    marks: tuple[Mark, ...] = ()
    times: int = 0
    reached: tuple[Reached, ...] = ()


class Returned(Struct, frozen=True, kw_only=True):
    """How much of an article has come back."""

    sku: str
    quantity: int


class Refunded(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What has been refunded of one purchase, which may not have arrived yet, and what has confirmed it."""

    id: str = field(name="_id")
    """`{member}/{purchase}`"""
    owner: str
    count: int = 0
    """How often it has changed."""
    amount: int = 0
    taken: dict[str, int] = {}
    """By campaign: what its award has been made smaller by."""
    itemised: int = 0
    """How much of `amount` is of refunds that name their items, which are these."""
    items: tuple[Returned, ...] = ()
    spared: dict[str, int] = {}
    """By campaign: what of `taken` was left in the wallet all the same."""
    confirmed: dict[str, str] = {}
    """By type: the first event that confirmed it."""
    released: dict[str, Released] = {}
    """By campaign: what has become of an award that waited."""


class WalletState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What matters of a wallet for an award."""

    balance: int = 0
    available: int = 0
    """What may be taken back without making a debt; a credit line is none of it."""
    owed: int = 0
    """What has to arrive before anything is available."""
    status: str = "open"
    ceiling: int = BALANCE_CEILING
    full: tuple[tuple[str, int | None, int | None], ...] | None = None
    """The lots of a wallet that has no room for further ones."""


class Inputs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that an event was judged on besides itself and the campaigns' versions, so that it can be judged again."""

    judged_at: int
    """`now`, as conditions saw it."""
    decided_at: int = 0
    tier: str | None = None
    """What the member had when the event occurred, as far as it was known."""
    tier_versions: tuple[int, ...] = ()
    """The versions of the tiers that it was looked up in, and by asset and month what was earned until then."""
    qualifying: dict[str, dict[str, int]] = {}
    purchases: int = 0
    last_purchase_at: int | None = None
    achieved: dict[str, Achieved] = {}
    """By campaign: how far the member was."""
    referrer: str | None = None
    """Who has referred the member."""
    wallets: dict[str, WalletState] = {}
    used: dict[str, int] = {}
    """By account: what was counted against caps and budgets."""
    waiting: dict[str, int] | None = None
    """By name of the lot: what lay in those from which a confirmation releases. None sets no bounds."""
    person: bytes | None = None
    """What conditions could read of the member's profile, under the member's own key."""
    before: Refunded | None = None
    """What had been refunded before: of this purchase before it arrived, or of the purchase that this refund is about."""
    awaits: bool = False
    """The purchase that it refunds had not arrived."""
    engine: str = ""
    """What has judged: see `engine.py`."""
    zone: str = "UTC"
    """The programme's time zone."""
    place: int = 0
    """Of the events of one commit, which are of one moment, the first has the lowest."""


class Standing(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is known about a member because of their events; `count` says how often it has changed."""

    id: str = field(name="_id")
    """The member's."""
    owner: str = ""
    count: int = 0
    purchases: int = 0
    last_purchase_at: int | None = None
    qualifying: dict[str, dict[str, int]] = {}
    """By asset and month: what was earned in it, less what was refunded of that."""
    tier: str | None = None
    """The tier when somebody last looked; `tiers.py` tells the one of any moment."""
    tier_since: int | None = None
    tier_seen_at: int = 0
    tier_version: int = 0
    """The count of the tiers by which `tier` and `due_at` were found."""
    tier_changes: int = 0
    referrer: str | None = None
    """Who has referred the member, and when."""
    referred_at: int | None = None
    achieved: dict[str, Achieved] = {}
    """By campaign."""
    due_at: int | None = None
    """When the tier changes by itself; the review finds the member by it."""


class RecordedEvent(Struct, frozen=True, kw_only=True):
    """An event as stored, with what was decided. It never changes."""

    id: str = field(name="_id")
    owner: str
    type: str
    occurred_at: int
    amount: int
    currency: str
    items: list[Item]
    attributes: dict[str, Any]
    fingerprint: bytes
    recorded_at: int
    recorded_by: str
    awards: list[Award]
    decisions: list[DecisionView]
    refund_of: str | None = None
    note: str | None = None
    inputs: Inputs | None = None
    tier_change: TierStep | None = None
    preview: bool = False
    confirms: str | None = None
    releases: list[Release] = []

    @property
    def about(self) -> str | None:
        """The purchase that it refunds or confirms."""
        return self.refund_of or self.confirms
