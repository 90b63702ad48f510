"""What every collection says of people: where an export shows it, and what becomes of it when somebody is erased.

Tests hold this against the collections that there are, what stands in them, an export and an erasure; docs/operations.md has it as a table.
"""

from typing import Literal

from msgspec import Struct

from guerdon.access.models import SERVICE_KEYS
from guerdon.audit_log.models import AUDIT
from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, REFUNDS
from guerdon.campaigns.models import CAMPAIGN_VERSIONS, CAMPAIGNS
from guerdon.ledger.contention import CONTENTION_LEASES
from guerdon.ledger.expiry import HOLD_DOCUMENTS
from guerdon.ledger.store import ACCOUNTS, ENTRIES, REVERSALS
from guerdon.members.models import CLAIMS, LOOKUP_KEYS, MEMBERS, PERSON_KEYS
from guerdon.offers.models import OFFER_VERSIONS, OFFERS
from guerdon.outbox import OUTBOX
from guerdon.password_reset.models import RESETS
from guerdon.privacy.models import ERASING, ERASURES, EXPORTS
from guerdon.second_factor.models import FACTORS
from guerdon.sessions.models import SESSIONS
from guerdon.simulated_clock.models import CLOCKS
from guerdon.simulations.models import SIMULATED_MEMBERS, SIMULATED_PURCHASES, SIMULATIONS
from guerdon.tiers.models import TIER_CHANGES, TIER_SET_VERSIONS, TIER_SETS
from guerdon.verification.checkpoints import CHECKPOINTS
from guerdon.vouchers.codes.models import CODE_BATCHES, STAGED_CODES
from guerdon.vouchers.models import DEALT_CODES, POOL_CODES, VOUCHER_CODES, VOUCHERS
from guerdon.wallets.models import ASSETS
from guerdon.workers.models import LEASES

Fate = Literal["deleted", "emptied", "kept"]


class Kept(Struct, frozen=True):
    """What a collection says of a person."""

    fate: Fate
    """`kept`: under the random id, which leads to nobody any more."""
    exported: tuple[str, ...]
    """The members of an export that show it."""
    unshown: str = ""
    """Why no member does."""


PEOPLE: dict[str, Kept | None] = {
    MEMBERS: Kept("emptied", ("member",)),
    PERSON_KEYS: Kept("deleted", (), "opens what `member` and `sessions` show"),
    CLAIMS: Kept("emptied", (), "digests of what `member` shows; that of the external id stays for a time"),
    SESSIONS: Kept("deleted", ("sessions",)),
    FACTORS: Kept("deleted", ("second_factor",)),
    OUTBOX: Kept("deleted", (), "letters that are still to be sent, for half an hour"),
    RESETS: Kept("deleted", (), "a digest, for half an hour"),
    EXPORTS: Kept("deleted", (), "when the person may export again"),
    ERASING: Kept("deleted", (), "only while the person is being erased"),
    ERASURES: Kept("kept", (), "the certificate, which the person has got"),
    ACCOUNTS: Kept("kept", ("wallets", "counters", "vouchers")),
    ENTRIES: Kept("kept", ("wallets", "vouchers")),
    HOLD_DOCUMENTS: Kept("kept", ("holds",)),
    REVERSALS: Kept("kept", (), "sums of what the entries show"),
    EVENTS: Kept("kept", ("events",)),
    REFUNDS: Kept("kept", ("refunds",)),
    MEMBER_STATES: Kept("kept", ("standing", "tier")),
    TIER_CHANGES: Kept("kept", ("tier_changes",)),
    TIER_SETS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    TIER_SET_VERSIONS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    AUDIT: Kept("kept", ("audit",)),
    CONTENTION_LEASES: Kept("kept", (), "which process moves a wallet at this moment"),
    CAMPAIGNS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    CAMPAIGN_VERSIONS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    OFFERS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    OFFER_VERSIONS: Kept("kept", (), "who has made it, by id, where it was somebody who works here"),
    VOUCHERS: Kept("kept", ("vouchers",)),
    CODE_BATCHES: Kept("kept", (), "who has asked for it, by id, where it was somebody who works here"),
    VOUCHER_CODES: Kept("kept", (), "the codes that `vouchers` shows"),
    DEALT_CODES: Kept("kept", (), "the codes that `vouchers` shows"),
    SIMULATIONS: Kept("kept", (), "for 30 days: who would have got the most, in a past that never was, and who has asked"),
    SIMULATED_MEMBERS: Kept("kept", (), "while a simulation runs: what never was"),
    SIMULATED_PURCHASES: Kept("kept", (), "while a simulation runs: what never was"),
    SERVICE_KEYS: None,
    LOOKUP_KEYS: None,
    ASSETS: None,
    POOL_CODES: None,
    STAGED_CODES: None,
    CHECKPOINTS: None,
    LEASES: None,
    CLOCKS: None,
}
"""By collection; None where nobody is named."""
