"""Wire structs of the timeline."""

from typing import Literal

from msgspec import Struct

from guerdon.campaigns.domain import DecisionView
from guerdon.events.views import AwardView
from guerdon.history.models import EntryView
from guerdon.tiers.models import TierChangeView
from guerdon.types import PageQuery
from guerdon.vouchers.models import VoucherView

ItemType = Literal["entry", "event", "voucher", "tier"]


class Why(Struct, frozen=True, kw_only=True):
    """Cause of an item, as far as it is recorded."""

    event: str | None = None
    """Id of the event that caused the item. For the award of a referrer it is an event of the referred member."""
    campaign: str | None = None
    """Id of the campaign that awarded the value or took it back."""
    version: int | None = None
    """Number of the version of the campaign, of the offer, or of the tier set."""
    name: str | None = None
    """Name of the campaign in that version. Null where there is no campaign, and for members."""
    offer: str | None = None
    """Id of the offer that was redeemed."""
    voucher: str | None = None
    """Id of the voucher that was paid for."""
    transaction_id: str | None = None
    """Transaction that paid for a voucher, or that an entry reverses."""
    reason: str | None = None
    """Reason in the caller's words for an entry; `earned`, `refunded`, `lapsed` or `rules` for a tier change; `voided` for value that the void of
    an event took back."""


class EntryItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="entry"):
    """A change of a wallet."""

    at: str
    """Time at which the entry was recorded, RFC 3339 in UTC."""
    wallet: str
    """Id of the wallet."""
    asset: str
    """Code of the asset."""
    why: Why
    """Cause of the entry."""
    entry: EntryView
    """The entry."""


class TimelineEvent(Struct, frozen=True, kw_only=True):
    """A recorded event, without its items and inputs. `GET /v1/events/{event_id}` shows all of it."""

    id: str
    """Id of the event."""
    type: str
    """Type of the event."""
    amount: int
    """Amount in minor units of `currency`."""
    currency: str | None
    """Currency of the amount. Null: none."""
    occurred_at: str
    """Time of the event, RFC 3339 in UTC."""
    refund_of: str | None
    """Id of the purchase that the event refunds. Null: none."""
    confirms: str | None
    """Id of the purchase that the event confirms. Null: none."""
    awards: list[AwardView]
    """Awards and clawbacks of the event."""
    decisions: list[DecisionView]
    """Decisions of the campaigns that matched: all but those with the outcome `not_matched`."""
    voided_at: str | None
    """Time at which the event was voided, RFC 3339 in UTC. Null: it was not."""


class EventItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="event"):
    """An event of the member."""

    at: str
    """Time at which the event was recorded, RFC 3339 in UTC. It may be later than the event itself."""
    why: Why
    """The purchase that the event refunds or confirms, as `event`."""
    event: TimelineEvent
    """The event, with the decisions of the campaigns."""


class VoucherItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="voucher"):
    """The issue of a voucher, with its current status."""

    at: str
    """Time at which the redemption began, RFC 3339 in UTC."""
    why: Why
    """The offer and its version, and the transaction that paid for the voucher."""
    voucher: VoucherView
    """The voucher as it is now."""


class TierItem(Struct, frozen=True, kw_only=True, tag_field="type", tag="tier"):
    """A change of the member's tier."""

    at: str
    """Time at which the change was recorded, RFC 3339 in UTC. `change.at` is the time of the change itself."""
    why: Why
    """The event that caused the change, or null, the version of the tier set, and the reason."""
    change: TierChangeView
    """The change."""


Item = EntryItem | EventItem | VoucherItem | TierItem


class TimelinePage(Struct, frozen=True):
    """Items of a timeline, newest first."""

    items: list[Item]
    """Items of the page."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class TimelineQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Page and filter of a timeline."""

    type: ItemType | None = None
    """Only items of this type."""
