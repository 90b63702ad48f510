"""Wire and stored shapes of events and campaigns."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.http import ExternalId, PageQuery, Text
from guerdon.money import Amount, AssetCode, Rounding

EVENTS, CAMPAIGNS, CAMPAIGN_VERSIONS = "events", "campaigns", "campaign_versions"
INDEXES: dict[str, list[IndexModel]] = {
    # What is kept about a member is asked for by the member.
    EVENTS: [IndexModel([("owner", 1), ("_id", 1)], name="owner")],
    # Events ask for the active campaigns every second; paused ones and drafts pile up.
    CAMPAIGNS: [IndexModel([("status", 1), ("_id", -1)], name="status")],
    CAMPAIGN_VERSIONS: [],
}
ITEMS_MAX = 1000
CAMPAIGNS_LIVE_MAX = 200

EventType = Literal["purchase", "refund"]
CampaignStatus = Literal["draft", "active", "paused"]
Clawback = Literal["none", "up_to_balance", "debt"]
Expression = Annotated[str, Meta(min_length=1, max_length=2000, description="A CEL condition over event, member and now.")]
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

    `id`, `items` and `attributes` are kept for ever, whatever is erased: nothing personal belongs there.
    """

    id: EventId
    type: EventType
    member: MemberRef
    occurred_at: datetime
    amount: Amount
    currency: Currency
    items: Annotated[list[ItemCreate], Meta(max_length=ITEMS_MAX)] = []
    refund_of: Annotated[None, Meta(description="Linked refunds are not available yet: leave it out or null.")] = None
    attributes: Attributes = {}


class AwardView(Struct, frozen=True):
    """What a campaign paid, or took back (negative)."""

    campaign: str
    version: int
    asset: str
    amount: int
    status: Literal["paid", "preview"]
    transaction_id: str | None


class DecisionView(Struct, frozen=True):
    """What one campaign said about the event, and why."""

    campaign: str
    version: int
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]


class EventView(Struct, frozen=True):
    """A recorded event with its awards and every campaign's decision."""

    id: str
    member_id: str | None
    type: str
    amount: int
    currency: str
    occurred_at: str
    recorded_at: str
    awards: list[AwardView]
    decisions: list[DecisionView]


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
    type: EventType
    occurred_at: int
    amount: int
    currency: str
    external_id: str | None = None
    member_id: str | None = None
    items: tuple[Item, ...] = ()
    attributes: dict[str, str | int | bool] = {}


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
    awards: list[AwardView]
    decisions: list[DecisionView]


# --- campaigns ------------------------------------------------------------------------------------------------------


class FixedAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="fixed"):
    """The same amount for every event."""

    amount: Amount


class PerAmountAward(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="per_amount"):
    """event.amount x points / per, rounded once."""

    points: Amount
    per: Amount
    rounding: Rounding = "floor"


class NeverExpires(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="never"):
    """The award does not expire; other expiries are not available yet."""


class Stacking(Struct, frozen=True, forbid_unknown_fields=True):
    """Every matching campaign pays; other policies are not available yet."""

    group: None = None
    policy: Literal["all"] = "all"
    priority: Annotated[int, Meta(ge=0, le=0)] = 0


_LATER = "Not available yet: leave it out or send the neutral value."


class CampaignCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """An earn rule. Fields marked as not available yet accept only their neutral value, so that nothing is silently ignored."""

    name: Text
    asset: AssetCode
    event_types: Annotated[list[EventType], Meta(min_length=1, max_length=2)]
    award: FixedAward | PerAmountAward
    starts_at: datetime | None = None
    ends_at: datetime | None = None
    audience: Expression = "true"
    condition: Expression = "true"
    clawback: Clawback = "debt"
    schedule: Annotated[None, Meta(description=_LATER)] = None
    tier_multipliers: Annotated[dict[str, str], Meta(max_length=0, description=_LATER)] = {}
    stacking: Stacking = Stacking()
    caps: Annotated[list[dict[str, str]], Meta(max_length=0, description=_LATER)] = []
    budget: Annotated[None, Meta(description=_LATER)] = None
    partial_award: Annotated[bool, Meta(description="Says nothing until caps and budgets are available.")] = True
    pending: Annotated[None, Meta(description=_LATER)] = None
    expiry: NeverExpires | None = None


class Campaign(Struct, frozen=True, kw_only=True):
    """One version of a campaign as stored; times in milliseconds."""

    id: str = field(name="_id")
    version: int
    status: CampaignStatus
    name: str
    asset: str
    event_types: list[EventType]
    award: FixedAward | PerAmountAward
    starts_at: int | None
    ends_at: int | None
    audience: str
    condition: str
    clawback: Clawback
    created_at: int
    created_by: str
    changed_at: int


class CampaignVersion(Struct, frozen=True, kw_only=True):
    """The archive of what a version said: decisions refer to it for ever."""

    id: str = field(name="_id")
    """`{campaign}/{version}`"""
    campaign: Campaign


class CampaignView(Struct, frozen=True):
    """A campaign's newest version."""

    id: str
    version: int
    status: CampaignStatus
    name: str
    asset: str
    event_types: list[EventType]
    award: FixedAward | PerAmountAward
    starts_at: str | None
    ends_at: str | None
    audience: str
    condition: str
    clawback: Clawback
    created_at: str
    changed_at: str


class CampaignPage(Struct, frozen=True):
    """Campaigns, newest first."""

    items: list[CampaignView]
    next_cursor: str | None


class CampaignQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filter by status."""

    status: CampaignStatus | None = None


def view_event(event: RecordedEvent) -> EventView:
    return EventView(
        event.id,
        event.owner or None,
        event.type,
        event.amount,
        event.currency,
        rfc3339(event.occurred_at),
        rfc3339(event.recorded_at),
        event.awards,
        event.decisions,
    )


def view_campaign(campaign: Campaign) -> CampaignView:
    return CampaignView(
        campaign.id,
        campaign.version,
        campaign.status,
        campaign.name,
        campaign.asset,
        campaign.event_types,
        campaign.award,
        None if campaign.starts_at is None else rfc3339(campaign.starts_at),
        None if campaign.ends_at is None else rfc3339(campaign.ends_at),
        campaign.audience,
        campaign.condition,
        campaign.clawback,
        rfc3339(campaign.created_at),
        rfc3339(campaign.changed_at),
    )
