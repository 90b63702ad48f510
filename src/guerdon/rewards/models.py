"""Wire and stored shapes of events, and of what is known about a member because of them."""

from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.errors import GuerdonError
from guerdon.http import ExternalId, Text, problem_of
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING, Amount
from guerdon.rewards.campaign_models import CAMPAIGN_VERSIONS, CAMPAIGNS, Clawback, EventType, ItemsOf
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

    A purchase and a refund have both; anything else may leave them out. A refund names its purchase in `refund_of`, if it has one.
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
    attributes: Attributes = {}


class EventsCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 500 events, each recorded or refused by itself."""

    events: Annotated[list[EventCreate], Meta(min_length=1, max_length=EVENTS_BULK_MAX)]


class AwardView(Struct, frozen=True):
    """What a campaign paid, or took back (negative). `pending` until `available_at`; it lapses at `expires_at`."""

    campaign: str
    version: int
    asset: str
    amount: int
    status: Literal["paid", "pending", "preview"]
    transaction_id: str | None
    available_at: str | None
    expires_at: str | None
    to: Literal["referrer"] | UnsetType = UNSET
    """There where it is not the member who was paid."""


class DecisionView(Struct, frozen=True):
    """What one campaign said about the event, and why."""

    campaign: str
    version: int
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]


class WalletStateView(Struct, frozen=True):
    """What mattered of a wallet."""

    balance: int
    available: int
    status: str
    ceiling: int


class InputsView(Struct, frozen=True):
    """What an event was judged on besides itself and the campaigns' versions; with it the decision can be made again."""

    judged_at: str
    decided_at: str
    time_zone: str
    tier: str | None
    qualifying: dict[str, dict[str, int]]
    """By asset and month: what counted for the tier before."""
    purchases: int
    """How many the member had made before."""
    last_purchase_at: str | None
    wallets: dict[str, WalletStateView]
    used: dict[str, int]
    """By cap and budget: what was counted against it before."""
    refunded_before: int | None
    """What had been refunded of this purchase, or of the one that this refunds."""
    personal: bool
    """A campaign read the member's profile; what it could see is kept sealed, and nobody is shown it."""


class EventView(Struct, frozen=True):
    """A recorded event with its awards and every campaign's decision."""

    id: str
    member_id: str | None
    type: str
    amount: int
    currency: str | None
    refund_of: str | None
    occurred_at: str
    recorded_at: str
    awards: list[AwardView]
    decisions: list[DecisionView]
    note: str | None
    """What is to be known besides the decisions."""
    engine: str | None
    """The versions that decided: of this program's judging, and of the library that evaluates conditions."""
    inputs: InputsView | None
    """What was known when it was judged; the use of budgets is nothing for members."""
    tier_change: TierStep | None
    """What the event has made of the member's tier."""


class EventResult(Struct, frozen=True, omit_defaults=True):
    """The outcome of one event of a bulk request: 201 when it was recorded, 200 when it had been before, or a problem."""

    status: int
    event: EventView | None = None
    problem: dict[str, Any] | None = None
    replayed: bool = False


class EventResults(Struct, frozen=True):
    """One result for each event, in their order."""

    results: list[EventResult]


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
    """What has been refunded of one purchase, which may not have arrived yet."""

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


def view_event(event: RecordedEvent, *, whole: bool) -> EventView:
    """Show an event; `whole` with the use of budgets, which is nothing for members."""
    inputs = event.inputs
    return EventView(
        event.id,
        event.owner or None,
        event.type,
        event.amount,
        event.currency or None,
        event.refund_of,
        rfc3339(event.occurred_at),
        rfc3339(event.recorded_at),
        [view_award(award, preview=event.preview) for award in event.awards],
        event.decisions,
        event.note,
        None if inputs is None else inputs.engine or None,
        None if inputs is None else _view_inputs(inputs, event.owner, whole=whole),
        event.tier_change,
    )


def _view_inputs(inputs: Inputs, owner: str, *, whole: bool) -> InputsView:
    last = inputs.last_purchase_at
    return InputsView(
        judged_at=rfc3339(inputs.judged_at),
        decided_at=rfc3339(inputs.decided_at),
        time_zone=inputs.zone,
        tier=inputs.tier,
        qualifying=inputs.qualifying,
        purchases=inputs.purchases,
        last_purchase_at=None if last is None else rfc3339(last),
        wallets={
            asset: WalletStateView(wallet.balance, wallet.available, wallet.status, wallet.ceiling)
            for asset, wallet in inputs.wallets.items()
            if whole or not asset.startswith(REFERRERS)
        },
        used={name: amount for name, amount in inputs.used.items() if whole or name.startswith(f"{owner}:")},
        refunded_before=None if inputs.before is None else inputs.before.amount,
        personal=inputs.person is not None,
    )


def view_award(award: Award, *, preview: bool = False) -> AwardView:
    waits = None if award.available_at is None else rfc3339(award.available_at)
    lapses = None if award.expires_at is None else rfc3339(award.expires_at)
    status = "preview" if preview else "pending" if waits else "paid"
    return AwardView(
        award.campaign,
        award.version,
        award.asset,
        award.amount,
        status,
        award.transaction_id,
        waits,
        lapses,
        UNSET if award.to is None else "referrer",
    )


def view_result(result: tuple[RecordedEvent, bool] | GuerdonError, *, whole: bool) -> EventResult:
    if isinstance(result, GuerdonError):
        return EventResult(result.status, problem=problem_of(result))
    event, before = result
    return EventResult(200 if before else 201, view_event(event, whole=whole), replayed=before)
