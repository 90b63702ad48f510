"""Personal data of every collection: the parts of an export that contain it, and the effect of an erasure.

Tests compare this table with the existing collections, their content, an export and an erasure; docs/operations.md contains it as a table.
"""

from typing import Literal

from msgspec import Struct

from guerdon.access.models import SERVICE_KEYS
from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENT_VOIDS, EVENTS, EXPIRED_LOTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.exchanges.models import RATE_VERSIONS, RATES
from guerdon.exports.models import EXPORT_CHUNKS, EXPORT_JOBS
from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.members.models import CLAIMS, LOOKUP_KEYS, MEMBERS, PERSON_KEYS
from guerdon.offers.models import OFFER_REFUSALS, OFFER_VERSIONS, OFFERS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.privacy.models import ERASING, ERASURES, EXPORTS
from guerdon.projections.positions import GENERATIONS, POSITIONS, VIEW_WORKERS
from guerdon.report_settings.models import REPORT_SETTINGS
from guerdon.second_factor.models import FACTORS
from guerdon.segments.models import SEGMENT_RUNS, SEGMENT_VERSIONS, SEGMENTS
from guerdon.sessions.models import SESSIONS
from guerdon.simulated_clock.models import CLOCKS
from guerdon.simulations.models import SIMULATED_MEMBERS, SIMULATED_PURCHASES, SIMULATIONS
from guerdon.tiers.models import TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.verification.closings import CLOSINGS
from guerdon.views.models import ACCOUNT_STATES, AGGREGATES, RANKINGS
from guerdon.views.models import MEMBER_STATES as MEMBER_STATES_OF_VIEWS
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES
from guerdon.vouchers.models import DEALT_CODES, POOL_CODES, VOUCHER_CODES, VOUCHERS
from guerdon.wallets.models import ASSETS
from guerdon.workers.models import LEASES

Fate = Literal["deleted", "emptied", "kept"]


class PersonalData(Struct, frozen=True):
    """Personal data of one collection."""

    fate: Fate
    """Effect of an erasure. `kept` data is stored under the random id, which no longer identifies a person."""
    exported: tuple[str, ...]
    """Members of an export that contain the data."""
    reason_not_exported: str = ""
    """Reason why an export does not contain the data."""


PEOPLE: dict[str, PersonalData | None] = {
    MEMBERS: PersonalData("emptied", ("member",)),
    PERSON_KEYS: PersonalData("deleted", (), "the key that decrypts `member` and `sessions`"),
    CLAIMS: PersonalData("emptied", (), "digests of values in `member`; that of the external id is kept for some time"),
    SESSIONS: PersonalData("deleted", ("sessions",)),
    FACTORS: PersonalData("deleted", ("second_factor",)),
    OUTBOX: PersonalData("deleted", (), "mails to be sent, for half an hour"),
    RESETS: PersonalData("deleted", (), "a digest, for half an hour"),
    EXPORTS: PersonalData("deleted", (), "the time of the next allowed export"),
    EXPORT_JOBS: PersonalData("kept", (), "the caller who asked for a file, and the filters"),
    EXPORT_CHUNKS: PersonalData(
        "deleted", (), "sealed files of lists, for a day by default; an erasure deletes the key of those with members"
    ),
    ERASING: PersonalData("deleted", (), "only while the person is being erased"),
    ERASURES: PersonalData("kept", (), "the certificate, which the person has received"),
    ACCOUNTS: PersonalData("kept", ("wallets", "counters", "vouchers")),
    ENTRIES: PersonalData("kept", ("wallets", "vouchers")),
    HOLD_DOCUMENTS: PersonalData("kept", ("holds",)),
    REVERSALS: PersonalData("kept", (), "sums of the entries"),
    RATES: PersonalData("kept", (), "the id of the author, if staff"),
    RATE_VERSIONS: PersonalData("kept", (), "the id of the author, if staff"),
    EVENTS: PersonalData("kept", ("events",)),
    REFUNDS: PersonalData("kept", ("refunds",)),
    EVENT_VOIDS: PersonalData("kept", ("refunds",)),
    EXPIRED_LOTS: PersonalData("kept", (), "sums of the entries and refunds"),
    MEMBER_STATES: PersonalData("kept", ("standing", "tier")),
    TIER_CHANGES: PersonalData("kept", ("tier_changes",)),
    TIER_SETS: PersonalData("kept", (), "the id of the author, if staff"),
    TIER_SET_VERSIONS: PersonalData("kept", (), "the id of the author, if staff"),
    SEGMENTS: PersonalData("kept", (), "the id of the author, if staff"),
    SEGMENT_VERSIONS: PersonalData("kept", (), "the id of the author, if staff"),
    SEGMENT_RUNS: PersonalData("kept", (), "the id of the requester, if staff, and the position of a run"),
    MEMBER_SEGMENTS: PersonalData("deleted", ("segments",)),
    REPORT_SETTINGS: PersonalData("kept", (), "the id of the author, if staff"),
    CLOSINGS: PersonalData("kept", (), "the id of who closed the month, if staff; the figures name no member"),
    AUDIT: PersonalData("kept", ("audit",)),
    CONTENTION_LEASES: PersonalData("kept", (), "the processes that hold or await the lease of a wallet"),
    CAMPAIGNS: PersonalData("kept", (), "the id of the author, if staff"),
    CAMPAIGN_VERSIONS: PersonalData("kept", (), "the id of the author, if staff"),
    OFFERS: PersonalData("kept", (), "the id of the author, if staff"),
    OFFER_VERSIONS: PersonalData("kept", (), "the id of the author, if staff"),
    VOUCHERS: PersonalData("kept", ("vouchers",)),
    CODE_BATCHES: PersonalData("kept", (), "the id of the requester, if staff"),
    VOUCHER_CODES: PersonalData("kept", (), "the codes in `vouchers`"),
    DEALT_CODES: PersonalData("kept", (), "the codes in `vouchers`"),
    SIMULATIONS: PersonalData("kept", (), "for 30 days: the members with the largest simulated awards, and the requester"),
    SIMULATED_MEMBERS: PersonalData("kept", (), "simulated values, while a simulation runs"),
    SIMULATED_PURCHASES: PersonalData("kept", (), "simulated values, while a simulation runs"),
    ACCOUNT_STATES: PersonalData("kept", (), "derived of `wallets`, by the random id"),
    MEMBER_STATES_OF_VIEWS: PersonalData("kept", (), "derived of `events`, by the random id"),
    RANKINGS.collection: PersonalData("kept", (), "derived of `wallets`, by the random id"),
    **{each.collection: None for each in AGGREGATES if each is not RANKINGS},
    POSITIONS: None,
    GENERATIONS: None,
    VIEW_WORKERS: None,
    SERVICE_KEYS: None,
    LOOKUP_KEYS: None,
    ASSETS: None,
    POOL_CODES: None,
    OFFER_REFUSALS: None,
    STAGED_CODES: None,
    CHECKPOINTS: None,
    LEASES: None,
    CLOCKS: None,
}
"""By collection; None for a collection without references to persons."""
