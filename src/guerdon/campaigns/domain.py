"""Domain types of events, awards and member state, shared by campaigns, tiers and events."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from guerdon.campaigns.models import Clawback, Expiry, ItemsOf, RefundRule
from guerdon.money import BALANCE_CEILING
from guerdon.quantities import AnyQuantity


class TierStep(Struct, frozen=True):
    """A change of tier."""

    before: str | None = field(name="from")
    """Tier before the event. Null: no tier."""
    after: str | None = field(name="to")
    """Tier after the event. Null: no tier."""


EVENTS, REFUNDS, EXPIRED_LOTS, MEMBER_STATES = "events", "refunds", "expired_lots", "standings"
EVENT_VOIDS, TIER_CHANGES = "event_voids", "tier_changes"
"""Collections of recorded events, of `PurchaseRefunds`, of `ExpiredLot` and of `MemberState`; of voids, and of changes of tier."""
REFERRERS = "referrer:"
"""Prefix of the asset in the key of a referrer's wallet."""
PURCHASE, REFUND = "purchase", "refund"


class ChainLink(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Position of an event, a void or a tier change in the chain of its member, see docs/verify.md."""

    number: int
    """1, 2, 3, without gaps."""
    prev: str
    """Digest of the document before it, in hexadecimal."""
    state: str | None = None
    """Digest of the points, purchases and achievements that the event or void leaves."""
    refunds: str | None = None
    """Digest of the refunds of its purchase that the event or void leaves; None if it does not change them."""


class DecisionView(Struct, frozen=True):
    """Decision of one campaign on an event."""

    campaign: str
    """Id of the campaign."""
    version: int
    """Number of its version."""
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    """`awarded`, `capped` (a cap or the budget left nothing), `refused`, or `not_matched`."""
    amount: int
    """Amount in minor units of the campaign's asset; negative if it was taken back."""
    reasons: list[str]
    """Reasons in words, in the order in which they applied."""


class Item(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A line item as stored. Imports may hold negative quantities, which the API refuses."""

    sku: str
    quantity: AnyQuantity
    unit_price: int = 0
    category: str | None = None


class ShopEvent(Struct, frozen=True, kw_only=True):
    """An event to record. Imports may hold negative amounts, which the API refuses."""

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
    """Unset if the event confirms no purchase, so that the fingerprint of older events stays the same."""

    @property
    def about(self) -> str | None:
        """Id of the purchase that the event refunds or confirms, or None."""
        return self.refund_of if self.confirms is UNSET else self.confirms


class AwaitedEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event that an award waits for, and the expiry of the award after it."""

    event_type: str
    expiry: Expiry | None = None


class Award(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """An award or a clawback (negative) as stored, with all that a refund needs, independent of later versions of the campaign."""

    campaign: str
    version: int
    asset: str
    amount: int
    transaction_id: str | None = None
    available_at: int | None = None
    expires_at: int | None = None
    counted: tuple[str, ...] = ()
    """Accounts of the caps and the budget that the award counts against."""
    clawback: Clawback = "debt"
    items: ItemsOf | None = None
    """Line items that the award was computed on. None: the whole event."""
    to: str | None = None
    """Id of the referrer, if the award was paid to the referrer and not to the member."""
    achievement: bool = False
    """True if the award was earned by several events. It is taken back when one of them stops counting."""
    waits: AwaitedEvent | None = None
    """Event that releases the award. Until then it cannot be spent, and it expires at `expires_at`."""
    refund_rule: RefundRule = "proportional"
    """Rule for the share that a refund takes back. The default is left out of the document, so awards from before this field have it."""


class Refundable(Struct, frozen=True):
    """A purchase to refund."""

    amount: int
    awards: Sequence[Award]
    items: Sequence[Item] = ()


class Release(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Release of a waiting award, as stored."""

    campaign: str
    version: int
    asset: str
    amount: int
    expires_at: int | None = None
    to: str | None = None
    transaction_id: str | None = None


class Released(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Event that released an award, and the expiry of the award since then."""

    event: str
    expires_at: int | None = None


class CountedEvent(Struct, frozen=True, kw_only=True):
    """An event that counts towards an achievement."""

    unit: int
    """Number of the day, week or month."""
    event: str
    """Digest of the event's id."""


class AchievementReached(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A goal that was reached: the events that count for it, and its award if there is one."""

    kind: str
    """Unit of `CountedEvent.unit`."""
    marks: tuple[CountedEvent, ...]
    """Counted events that completed the goal."""
    occurred_at: int
    recorded_at: int
    award: Award | None = None


class AchievementProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A member's progress in the achievement of one campaign."""

    kind: str = ""
    """Unit of `CountedEvent.unit`."""
    marks: tuple[CountedEvent, ...] = ()
    """Counted events that have not completed a goal."""
    times: int = 0
    """Number of times that the goal was reached."""
    reached: tuple[AchievementReached, ...] = ()
    """Goals that were reached last, oldest first."""


class ReturnedItem(Struct, frozen=True, kw_only=True):
    """Returned quantity of one article."""

    sku: str
    quantity: AnyQuantity


class EarlyRefunds(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Refunds of one purchase in one currency that arrived before it."""

    amount: int = 0
    itemised: int = 0
    items: tuple[ReturnedItem, ...] = ()
    without_items: bool = False


class EventVoid(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Void of an event: a correction that took back what the event had paid."""

    at: int
    by: str
    """Id of the caller."""
    reason: str
    awards: list[Award] = []
    """Clawbacks."""
    decisions: list[DecisionView] = []


class TakenBack(Struct, frozen=True, kw_only=True):
    """Amount that a void took back of an award of one campaign; 0 if nothing could be taken."""

    campaign: str
    version: int
    amount: int


class VoidedEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Facts of an event that is voided, so that sums over events can be corrected by its void alone."""

    type: str
    occurred_at: int
    amount: int
    currency: str
    refunded: int = 0
    """Amount of the refunds before the void."""
    taken: tuple[TakenBack, ...] = ()


class RecordedVoid(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Void of an event as a document of its own, inserted once. `proof.refunds` proves the refunds with what it took back."""

    id: str = field(name="_id")
    """`{member}/{event}`"""
    owner: str
    event: str
    recorded_at: int
    recorded_by: str
    reason: str
    voided: VoidedEvent | None = None
    """The event; None for a void that is older than this field."""
    proof: ChainLink | None = None


class PurchaseRefunds(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Refunds and confirmations of one purchase, which may not have arrived yet; and the void of any event."""

    id: str = field(name="_id")
    """`{member}/{purchase}`"""
    owner: str
    count: int = 0
    """Number of changes of this document."""
    amount: int = 0
    """Refunded amount in minor units."""
    taken: dict[str, int] = {}
    """By campaign: amount by which its award was reduced."""
    itemised: int = 0
    """Part of `amount` that belongs to refunds with line items, which are `items`."""
    items: tuple[ReturnedItem, ...] = ()
    spared: dict[str, int] = {}
    """By campaign: part of `taken` that stayed in the wallet."""
    without_items: bool = False
    """True if a refund without line items was recorded. It refunds a purchase of 0 as a whole."""
    confirmed: dict[str, str] = {}
    """By event type: id of the first event that confirmed the purchase."""
    released: dict[str, Released] = {}
    """By campaign: release of an award that waited."""
    early: dict[str, EarlyRefunds] = {}
    """By currency: refunds that arrived before their purchase. Those in its currency become part of `amount` when it arrives; others never do."""
    voided: EventVoid | None = None


class ExpiredLot(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Promotional value of one wallet that was granted with one expiry date and has expired, as far as refunds have counted it as taken back."""

    id: str = field(name="_id")
    """`{wallet}/{expires_at}`"""
    owner: str
    count: int = 0
    """Number of changes of this document."""
    counted: int = 0
    """Amount that refunds did not take back because it had expired."""


class AwardWallet(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """State of a wallet as far as an award depends on it."""

    balance: int = 0
    available: int = 0
    """Amount that can be taken back without a debt. A credit limit is not part of it."""
    owed: int = 0
    """Amount that has to arrive before value is available."""
    status: str = "open"
    ceiling: int = BALANCE_CEILING
    full: tuple[tuple[str, int | None, int | None], ...] | None = None
    """Dates of the lots, if the wallet has room for no further lot. None: it has room."""


class EvaluationInputs(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Everything that the decisions on an event depend on besides the event and the campaign versions, so that they can be made again."""

    judged_at: int
    """`now` in conditions."""
    decided_at: int = 0
    """Time of the commit."""
    tier: str | None = None
    """Tier of the member at the time of the event, as known when it was recorded."""
    tier_versions: tuple[int, ...] = ()
    """Versions of the tier sets that `tier` was derived from."""
    qualifying: dict[str, dict[str, int]] = {}
    """By asset and month: qualifying points before the event."""
    purchases: int = 0
    last_purchase_at: int | None = None
    """Time of the last purchase at or before the time of the event."""
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: progress in its achievement before the event."""
    referrer: str | None = None
    """Id of the member's referrer."""
    wallets: dict[str, AwardWallet] = {}
    """By asset, with `REFERRERS` before it for the referrer's: wallets before the event that the awards depend on."""
    used: dict[str, int] = {}
    """By account: amount counted against caps and budgets before the event."""
    waiting: dict[str, int] | None = None
    """By lot name: amount in the lots from which a confirmation releases. None: no bound."""
    expired: dict[str, int] | None = None
    """By lot name: expired value of the awards that a refund takes back, less what earlier refunds have counted. None: nothing has expired."""
    person: bytes | None = None
    """Profile fields that conditions could read, sealed under the member's own key."""
    before: PurchaseRefunds | None = None
    """Earlier refunds of this purchase, or of the purchase that this event refunds or confirms."""
    awaits: bool = False
    """True if the purchase that the event refunds or confirms had not arrived."""
    engine: str = ""
    """Version of the engine, see `engine.py`."""
    zone: str = "UTC"
    """Time zone of the programme."""
    place: int = 0
    """Position among the events of the same commit, which have the same time."""
    segments: tuple[str, ...] = ()
    """Segments of the member at the time of the commit. Left out for a member without segments, as in all earlier events."""


class MemberState(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """State of a member derived from events. `count` is the number of changes."""

    id: str = field(name="_id")
    """Id of the member."""
    owner: str = ""
    count: int = 0
    purchases: int = 0
    last_purchase_at: int | None = None
    qualifying: dict[str, dict[str, int]] = {}
    """By asset and month: points earned in the month, less the refunds of its purchases."""
    tier: str | None = None
    """Tier at the last look. `tiers/rules.py` derives the tier of any time."""
    tier_since: int | None = None
    tier_seen_at: int = 0
    tier_version: int = 0
    """Count of the tier sets that `tier` and `due_at` were derived from."""
    tier_changes: int = 0
    referrer: str | None = None
    """Id of the referrer."""
    referred_at: int | None = None
    """Time at which the referral was recorded."""
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: progress in its achievement."""
    due_at: int | None = None
    """Time of the next change of tier without an event; the review finds the member by it."""
    purchase_times: tuple[int, ...] = ()
    """Times of the newest purchases, oldest first. States from before this field have only `last_purchase_at`."""
    links: int = 0
    """Number of events and tier changes in the member's chain."""
    head: str | None = None
    """Digest of the newest of them, in hexadecimal."""


class RecordedEvent(Struct, frozen=True, kw_only=True):
    """An event as stored, with its decisions and awards. It never changes."""

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
    inputs: EvaluationInputs | None = None
    tier_change: TierStep | None = None
    preview: bool = False
    confirms: str | None = None
    releases: list[Release] = []
    proof: ChainLink | None = None
    """None for an event that is older than the chains of members, and for a preview."""

    @property
    def about(self) -> str | None:
        """Id of the purchase that the event refunds or confirms, or None."""
        return self.refund_of or self.confirms
