"""Stored and wire shapes of erasures and exports."""

from typing import Annotated

from msgspec import Meta, Struct, field
from pymongo import IndexModel

from guerdon.audit_log.models import RecordView
from guerdon.campaigns.domain import MemberState, PurchaseRefunds, RecordedEvent
from guerdon.campaigns.evaluation import Subject
from guerdon.clock import rfc3339
from guerdon.database import Document
from guerdon.erasable_data import ErasableRows
from guerdon.events.views import EventView, view_event
from guerdon.history.models import EntryView
from guerdon.holds.models import HoldView
from guerdon.ledger.models import Account
from guerdon.members.models import PASSWORD_LENGTH_MAX, MemberView
from guerdon.second_factor.models import FactorView
from guerdon.sessions.models import SessionView
from guerdon.tiers.models import MemberTierView, TierChangeView
from guerdon.vouchers.models import VoucherView
from guerdon.vouchers.pos.models import StepView
from guerdon.wallets.models import LotView, WalletView

ERASING, ERASURES, EXPORTS = "erasing", "erasures", "exports"
INDEXES: dict[str, list[IndexModel]] = {ERASING: [], ERASURES: [], EXPORTS: []}
"""No secondary index: each row is found by its member, and those of `erasing` are few."""


def _of_member(member_id: str) -> Document:
    return {"_id": member_id}


BELONGINGS = [ErasableRows("exports", EXPORTS, _of_member)]


# --- stored ---------------------------------------------------------------------------------------------------------


class Head(Struct, frozen=True):
    """How far a wallet's chain had come."""

    wallet: str
    seq: int
    head: bytes


class ErasureTask(Struct, frozen=True, kw_only=True):
    """An erasure that was asked for and is not finished. It outlives whoever began it; a worker ends it."""

    id: str = field(name="_id")
    """The member's."""
    asked_at: int
    asked_by: str
    request_id: str
    found: dict[str, int]
    """What there was to destroy, by name."""
    heads: list[Head]


class StoredCertificate(Struct, frozen=True, kw_only=True):
    """What was destroyed, when, and for whom. Never changed; all of them together are the log that a restored backup is held to."""

    id: str = field(name="_id")
    """The member's."""
    asked_at: int
    asked_by: str
    request_id: str
    completed_at: int
    destroyed: dict[str, int]
    external_id_until: int | None
    """How long the digest of the external id is kept; None when there was none."""
    before: list[Head]
    after: list[Head]


class ExportMark(Struct, frozen=True, kw_only=True):
    """When a member may export again."""

    id: str = field(name="_id")
    not_before: int


# --- wire: erasures -------------------------------------------------------------------------------------------------


class OwnErasure(Struct, frozen=True, forbid_unknown_fields=True):
    """The proof that it is the member who wants to be forgotten."""

    current_password: Annotated[str, Meta(min_length=1, max_length=PASSWORD_LENGTH_MAX)]


class WalletProof(Struct, frozen=True, forbid_unknown_fields=True):
    """A wallet's chain when the erasure was asked for and when it was finished: the same, unless a late event was booked meanwhile."""

    wallet: str
    seq_before: int
    head_before: str
    seq_after: int
    head_after: str


class Certified(Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a certificate says."""

    member_id: str
    asked_at: str
    asked_by: str
    """A member's id (perhaps the person's own), or `key_` and a service key's id."""
    request_id: str
    completed_at: str
    destroyed: dict[str, int]
    """How much there was of everything that is gone."""
    external_id_until: str | None
    """Until then the keyed digest of the external id is kept, so that late events find the books they belong to."""
    wallets: list[WalletProof]


class CertificateView(Certified, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The proof of an erasure. `sha256` is over the other members as JSON with sorted keys; the audit log holds it in its chain."""

    sha256: str


# --- wire: exports --------------------------------------------------------------------------------------------------


class ItemExport(Struct, frozen=True):
    """A line of an event."""

    sku: str
    quantity: int
    unit_price: int
    category: str | None


class PersonExport(Struct, frozen=True):
    """What campaigns could read of the person when an event was judged."""

    external_id: str | None
    attributes: dict[str, str | int | bool]


class EventExport(EventView, frozen=True, kw_only=True):
    """An event with everything that is kept of it."""

    items: list[ItemExport]
    attributes: dict[str, str | int | bool]
    recorded_by: str
    person: PersonExport | None
    """None where no campaign has looked."""


class WalletExport(Struct, frozen=True):
    """A wallet with its whole history, oldest first."""

    wallet: WalletView
    lots: list[LotView]
    entries: list[EntryView]


class VoucherExport(Struct, frozen=True):
    """A voucher with everything that has happened to it, oldest first."""

    voucher: VoucherView
    steps: list[StepView]


class StandingExport(Struct, frozen=True):
    """What the member's events have made of them, for campaigns that ask for it."""

    purchases: int
    last_purchase_at: str | None
    qualifying: dict[str, dict[str, int]]
    """By asset and month: what counts for tiers."""
    referrer_id: str | None
    """Who has referred the member."""
    achievements: dict[str, int]
    """By campaign: how often it was achieved."""


class CounterExport(Struct, frozen=True):
    """How much of a campaign's cap for one member and one period is used. Its steps are the awards of `events`."""

    id: str
    used: int


class RefundExport(Struct, frozen=True):
    """What has been refunded of a purchase, which may not have arrived yet, and by campaign what that took from its award.

    `confirmed` are the events by type that have confirmed it, and `released` those that made an award spendable, by campaign.
    """

    event_id: str
    amount: int
    taken: dict[str, int]
    confirmed: dict[str, str]
    released: dict[str, str]


class ExportHead(Struct, frozen=True):
    """The beginning of an export."""

    format: str
    exported_at: str
    member: MemberView
    second_factor: FactorView
    tier: MemberTierView
    sessions: list[SessionView]
    standing: StandingExport | None


class ExportView(ExportHead, frozen=True):
    """Everything that is kept about a member. It is sent while it is read, so a document without `complete` was cut off."""

    wallets: list[WalletExport]
    holds: list[HoldView]
    events: list[EventExport]
    refunds: list[RefundExport]
    counters: list[CounterExport]
    tier_changes: list[TierChangeView]
    vouchers: list[VoucherExport]
    audit: list[RecordView]
    complete: bool


def view_standing(standing: MemberState | None) -> StandingExport | None:
    if standing is None:
        return None
    last = None if standing.last_purchase_at is None else rfc3339(standing.last_purchase_at)
    times = {campaign: state.times for campaign, state in standing.achieved.items()}
    return StandingExport(standing.purchases, last, standing.qualifying, standing.referrer, times)


def view_refund(refunded: PurchaseRefunds) -> RefundExport:
    released = {campaign: each.event for campaign, each in refunded.released.items()}
    return RefundExport(refunded.id.partition("/")[2], refunded.amount, refunded.taken, refunded.confirmed, released)


def view_counter(account: Account) -> CounterExport:
    return CounterExport(account.id, account.balance)


def view_event_export(event: RecordedEvent, person: Subject | None) -> EventExport:
    view = view_event(event, whole=False)
    return EventExport(
        *(getattr(view, name) for name in EventView.__struct_fields__),
        items=[ItemExport(item.sku, item.quantity, item.unit_price, item.category) for item in event.items],
        attributes=event.attributes,
        recorded_by=event.recorded_by,
        person=None if person is None else PersonExport(person.external_id, person.attributes),
    )
