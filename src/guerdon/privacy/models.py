"""Stored and wire shapes of erasures and exports."""

from typing import Annotated

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.audit_log.models import RecordView
from guerdon.campaigns.domain import MemberState, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.evaluation import Subject
from guerdon.clock import optional_rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ERASURES, ErasableRows
from guerdon.events.views import EventView, VoidView, view_event, view_void
from guerdon.history.models import EntryView
from guerdon.holds.models import HoldView
from guerdon.ledger.models import Account
from guerdon.members.models import PASSWORD_LENGTH_MAX, MemberView
from guerdon.quantities import AnyQuantity
from guerdon.second_factor.models import FactorView
from guerdon.segments.models import SegmentMemberView
from guerdon.sessions.models import SessionView
from guerdon.tiers.models import MemberTierView, TierChangeView
from guerdon.vouchers.models import VoucherView
from guerdon.vouchers.pos.models import StepView
from guerdon.wallets.models import LotView, WalletView

ERASING, EXPORTS = "erasing", "exports"
INDEXES: dict[str, list[IndexModel]] = {ERASING: [], ERASURES: [], EXPORTS: []}
"""No secondary index: each row is found by its member, and `erasing` has few rows."""


def _of_member(member_id: str) -> Document:
    return {"_id": member_id}


ERASABLE_ROWS = [ErasableRows("exports", EXPORTS, _of_member)]


# --- stored ---------------------------------------------------------------------------------------------------------


class Head(Struct, frozen=True):
    """The last entry of a wallet at a time."""

    wallet: str
    """Id of the wallet."""
    seq: int
    """Number of the entry."""
    head: bytes
    """Hash of the entry."""


class ErasureTask(Struct, frozen=True, kw_only=True):
    """An erasure that was requested and is not complete. If the process that began it stops, a worker completes it."""

    id: str = field(name="_id")
    """Id of the member."""
    asked_at: int
    """Time of the request, milliseconds since the epoch."""
    asked_by: str
    request_id: str
    found: dict[str, int]
    """Number of items to destroy, by name."""
    heads: list[Head]


class StoredCertificate(Struct, frozen=True, kw_only=True):
    """The certificate of an erasure. It never changes. After a restore from a backup, all certificates are applied again."""

    id: str = field(name="_id")
    """Id of the member."""
    asked_at: int
    asked_by: str
    request_id: str
    completed_at: int
    destroyed: dict[str, int]
    external_id_until: int | None
    """Time until which the digest of the external id is kept. None without an external id."""
    before: list[Head]
    after: list[Head]


class ExportLimit(Struct, frozen=True, kw_only=True):
    """The time from which a member may export again."""

    id: str = field(name="_id")
    """Id of the member."""
    not_before: int
    """Milliseconds since the epoch."""


# --- wire: erasures -------------------------------------------------------------------------------------------------


class OwnErasure(Struct, frozen=True, forbid_unknown_fields=True):
    """The confirmation of an erasure by the member's password."""

    current_password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]
    """Current password of the caller."""


class WalletProof(Struct, frozen=True, forbid_unknown_fields=True):
    """The last entry of a wallet before and after an erasure. They differ only if a late event was booked meanwhile."""

    wallet: str
    """Id of the wallet."""
    seq_before: int
    """Number of the last entry when the erasure was requested."""
    head_before: str
    """Hash of that entry, hexadecimal."""
    seq_after: int
    """Number of the last entry when the erasure was complete."""
    head_after: str
    """Hash of that entry, hexadecimal."""


class Certified(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The certified data of an erasure."""

    member_id: str
    """Id of the erased member."""
    asked_at: str
    """Time of the request, RFC 3339 in UTC."""
    asked_by: str
    """Id of the member or staff person who requested the erasure, or `key_` and the id of a service key."""
    request_id: str
    """Id of the request."""
    completed_at: str
    """Time of the completion, RFC 3339 in UTC."""
    destroyed: dict[str, int]
    """Number of destroyed items, by name."""
    external_id_until: str | None
    """Time until which the keyed digest of the external id is kept, so that late events are still assigned to this member. Null without one."""
    wallets: list[WalletProof]
    """The last entries of the member's wallets, which the erasure has not changed."""


class CertificateView(Certified, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The certificate of an erasure."""

    sha256: str
    """SHA-256 over the other members as JSON with sorted keys, hexadecimal. The audit log contains it."""


# --- wire: exports --------------------------------------------------------------------------------------------------


class ItemExport(Struct, frozen=True):
    """A line item of an event."""

    sku: str
    """SKU of the article."""
    quantity: AnyQuantity
    """Quantity of the article."""
    unit_price: int
    """Price of one unit, in minor units of the event's currency."""
    category: str | None
    """Category of the article, or null."""


class PersonExport(Struct, frozen=True):
    """Personal data that campaigns have read when an event was evaluated."""

    external_id: str | None
    """External id of the member at that time."""
    attributes: dict[str, str | int | bool]
    """Attributes of the member at that time."""


class EventExport(EventView, frozen=True, kw_only=True):
    """An event with all data that is stored about it."""

    items: list[ItemExport]
    """Line items of the event."""
    attributes: dict[str, str | int | bool]
    """Attributes of the event."""
    recorded_by: str
    """Id of the caller that sent the event."""
    person: PersonExport | None
    """Personal data that campaigns have read for this event. Null if they have read none."""
    segments: list[str]
    """Names of the member's segments when the event was recorded."""


class WalletExport(Struct, frozen=True):
    """A wallet with its complete history."""

    wallet: WalletView
    """The wallet."""
    lots: list[LotView]
    """Lots of the balance."""
    entries: list[EntryView]
    """Entries of the wallet, oldest first."""


class VoucherExport(Struct, frozen=True):
    """A voucher with its complete history."""

    voucher: VoucherView
    """The voucher."""
    steps: list[StepView]
    """Changes of the voucher, oldest first."""


class StandingExport(Struct, frozen=True):
    """The state of a member that is derived from their events."""

    purchases: int
    """Number of purchases."""
    last_purchase_at: str | None
    """Time of the last purchase, RFC 3339 in UTC. Null without a purchase."""
    qualifying: dict[str, dict[str, int]]
    """Qualifying points in minor units, by asset and month."""
    referrer_id: str | None
    """Id of the member who has referred this member, or null."""
    achievements: dict[str, int]
    """Number of times that each achievement was reached, by campaign."""


class CounterExport(Struct, frozen=True):
    """The used part of a cap of a campaign, or the number of redemptions of an offer, for one member and one period."""

    id: str
    """Id of the counter, which contains the period and the campaign or the offer."""
    used: int
    """Used amount of the cap, to which the awards in `events` add up, or number of redemptions."""


class RefundExport(Struct, frozen=True):
    """The refunds and confirmations of a purchase, which may not have arrived yet."""

    event_id: str
    """Id of the purchase event."""
    amount: int
    """Refunded amount, in minor units of the purchase's currency. 0 if the purchase has not arrived."""
    early: dict[str, int]
    """By currency: amount of the refunds that arrived before the purchase, in minor units. Those in its currency are part of `amount` since its arrival."""
    taken: dict[str, int]
    """Amount that refunds have taken from the award, by campaign."""
    confirmed: dict[str, str]
    """Ids of the events that have confirmed the purchase, by event type."""
    released: dict[str, str]
    """Ids of the events that have released an award, by campaign."""
    voided: VoidView | None
    """Void of the event, or null."""


class ExportHead(Struct, frozen=True):
    """The first members of an export."""

    format: str
    """Version of the format."""
    exported_at: str
    """Time of the export, RFC 3339 in UTC."""
    member: MemberView
    """The member with their personal data."""
    second_factor: FactorView
    """State of the second factor."""
    tier: MemberTierView
    """Tier of the member."""
    sessions: list[SessionView]
    """Sessions of the member."""
    standing: StandingExport | None
    """State of the member that is derived from events. Null without an event."""
    segments: list[SegmentMemberView]
    """Segments of the member in the last run, with what they follow from. Empty for a member who is newer than the run."""


class ExportView(ExportHead, frozen=True):
    """All data about a member. It is streamed, so a document without `complete` is incomplete."""

    wallets: list[WalletExport]
    """Wallets with their entries."""
    holds: list[HoldView]
    """Holds on the wallets."""
    events: list[EventExport]
    """Events of the member."""
    refunds: list[RefundExport]
    """Refunds and confirmations of purchases."""
    counters: list[CounterExport]
    """Counters of caps and redemptions."""
    tier_changes: list[TierChangeView]
    """Changes of the tier."""
    vouchers: list[VoucherExport]
    """Vouchers with their steps."""
    audit: list[RecordView]
    """Records of the audit log about the member."""
    complete: bool
    """True, as the last member of a complete export."""


def view_member_state(state: MemberState | None) -> StandingExport | None:
    """Return the wire shape of a member state."""
    if state is None:
        return None
    last = optional_rfc3339(state.last_purchase_at)
    times = {campaign: achieved.times for campaign, achieved in state.achieved.items()}
    return StandingExport(state.purchases, last, state.qualifying, state.referrer, times)


def view_refund(refunds: PurchaseRefunds) -> RefundExport:
    """Return the wire shape of the refunds of a purchase."""
    released = {campaign: release.event for campaign, release in refunds.released.items()}
    early = {currency: each.amount for currency, each in refunds.early.items()}
    voided = None if refunds.voided is None else view_void(refunds.voided)
    return RefundExport(refunds.id.partition("/")[2], refunds.amount, early, refunds.taken, refunds.confirmed, released, voided)


def view_counter(account: Account) -> CounterExport:
    """Return the wire shape of a counter."""
    return CounterExport(account.id, account.balance)


def view_event_export(event: RecordedEvent, person: Subject | None) -> EventExport:
    """Return the wire shape of an event in an export."""
    view = view_event(event, whole=False)
    return EventExport(
        *(getattr(view, name) for name in EventView.__struct_fields__),
        items=[ItemExport(item.sku, item.quantity, item.unit_price, item.category) for item in event.items],
        attributes=event.attributes,
        recorded_by=event.recorded_by,
        person=None if person is None else PersonExport(person.external_id, person.attributes),
        segments=[] if event.inputs is None else list(event.inputs.segments),
    )
