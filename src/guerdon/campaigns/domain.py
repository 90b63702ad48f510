"""Domain types of events, awards and member state, shared by campaigns, tiers and events."""

from collections.abc import Sequence
from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType, field

from guerdon.campaigns.models import Clawback, Expiry, ItemsOf, RefundRule
from guerdon.money import BALANCE_CEILING


class TierStep(Struct, frozen=True):
    """From one tier to another; null is none."""

    before: str | None = field(name="from")
    after: str | None = field(name="to")


EVENTS, REFUNDS, MEMBER_STATES = "events", "refunds", "standings"
REFERRERS = "referrer:"
"""What stands before the asset of the referrer's wallet."""
PURCHASE, REFUND = "purchase", "refund"


class DecisionView(Struct, frozen=True):
    """What one campaign said about the event, and why."""

    campaign: str
    version: int
    outcome: Literal["awarded", "capped", "refused", "not_matched"]
    amount: int
    reasons: list[str]


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


class AwaitedEvent(Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    waits: AwaitedEvent | None = None
    """It cannot be spent before it is released, and lapses at `expires_at`."""
    refund_rule: RefundRule = "proportional"
    """Rule that says which share of it a refund takes back."""


class Refundable(Struct, frozen=True):
    """A purchase to refund."""

    amount: int
    awards: Sequence[Award]
    items: Sequence[Item] = ()


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


class CountedEvent(Struct, frozen=True, kw_only=True):
    """An event that counts for an achievement: when, and a digest of its id."""

    unit: int
    event: str


class AchievementReached(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A goal that was achieved: by what, and what was paid for it, if anything was."""

    kind: str
    marks: tuple[CountedEvent, ...]
    occurred_at: int
    recorded_at: int
    award: Award | None = None


class AchievementProgress(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How far a member is with one campaign's achievement."""

    kind: str = ""
    """What its window is counted in."""
    marks: tuple[CountedEvent, ...] = ()
    times: int = 0
    reached: tuple[AchievementReached, ...] = ()


class ReturnedItem(Struct, frozen=True, kw_only=True):
    """How much of an article has come back."""

    sku: str
    quantity: int


class PurchaseRefunds(Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    items: tuple[ReturnedItem, ...] = ()
    spared: dict[str, int] = {}
    """By campaign: what of `taken` was left in the wallet all the same."""
    confirmed: dict[str, str] = {}
    """By type: the first event that confirmed it."""
    released: dict[str, Released] = {}
    """By campaign: what has become of an award that waited."""


class AwardWallet(Struct, frozen=True, kw_only=True, omit_defaults=True):
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


class EvaluationInputs(Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    achieved: dict[str, AchievementProgress] = {}
    """By campaign: how far the member was."""
    referrer: str | None = None
    """Who has referred the member."""
    wallets: dict[str, AwardWallet] = {}
    used: dict[str, int] = {}
    """By account: what was counted against caps and budgets."""
    waiting: dict[str, int] | None = None
    """By name of the lot: what lay in those from which a confirmation releases. None sets no bounds."""
    person: bytes | None = None
    """What conditions could read of the member's profile, under the member's own key."""
    before: PurchaseRefunds | None = None
    """What had been refunded before: of this purchase before it arrived, or of the purchase that this refund is about."""
    awaits: bool = False
    """The purchase that it refunds had not arrived."""
    engine: str = ""
    """What has judged: see `engine.py`."""
    zone: str = "UTC"
    """The programme's time zone."""
    place: int = 0
    """Of the events of one commit, which are of one moment, the first has the lowest."""


class MemberState(Struct, frozen=True, kw_only=True, omit_defaults=True):
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
    achieved: dict[str, AchievementProgress] = {}
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
    inputs: EvaluationInputs | None = None
    tier_change: TierStep | None = None
    preview: bool = False
    confirms: str | None = None
    releases: list[Release] = []

    @property
    def about(self) -> str | None:
        """The purchase that it refunds or confirms."""
        return self.refund_of or self.confirms
