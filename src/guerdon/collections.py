"""All collections with their indexes, the rows that an erasure deletes, and the fields that are sealed by a master key."""

from guerdon import outbox
from guerdon.access import models as access
from guerdon.audit_log import models as audit_log
from guerdon.campaigns import models as campaigns
from guerdon.closings import models as closings
from guerdon.events import models as events
from guerdon.exchanges import models as exchanges
from guerdon.exports import models as exports
from guerdon.ledger import store as ledger
from guerdon.members import models as members
from guerdon.members import vault
from guerdon.offers import models as offers
from guerdon.password_reset import models as password_reset
from guerdon.privacy import models as privacy
from guerdon.projections import positions as projections
from guerdon.report_settings import models as report_settings
from guerdon.second_factor import models as second_factor
from guerdon.segments import models as segments
from guerdon.sessions import models as sessions
from guerdon.simulated_clock import models as simulated_clock
from guerdon.simulations import models as simulations
from guerdon.tiers import models as tiers
from guerdon.verification import checkpoints
from guerdon.views import models as views
from guerdon.vouchers import models as vouchers
from guerdon.vouchers.codes import models as codes
from guerdon.wallets import models as wallets
from guerdon.workers import models as workers

INDEXES = {
    **members.INDEXES,
    **access.INDEXES,
    **sessions.INDEXES,
    **second_factor.INDEXES,
    **outbox.INDEXES,
    **password_reset.INDEXES,
    **audit_log.INDEXES,
    **ledger.INDEXES,
    **checkpoints.INDEXES,
    **wallets.INDEXES,
    **exchanges.INDEXES,
    **campaigns.INDEXES,
    **tiers.INDEXES,
    **segments.INDEXES,
    **events.INDEXES,
    **offers.INDEXES,
    **vouchers.INDEXES,
    **codes.INDEXES,
    **simulations.INDEXES,
    **exports.INDEXES,
    **privacy.INDEXES,
    **simulated_clock.INDEXES,
    **projections.INDEXES,
    **views.INDEXES,
    **report_settings.INDEXES,
    **closings.INDEXES,
    **workers.INDEXES,
}
SEALED_FIELDS = [*vault.SEALED_FIELDS, *outbox.SEALED_FIELDS, *exports.SEALED_FIELDS]
"""Fields that a rotation of the master keys seals with the new key."""
ERASABLE_ROWS = [
    *sessions.ERASABLE_ROWS,
    *second_factor.ERASABLE_ROWS,
    *outbox.ERASABLE_ROWS,
    *password_reset.ERASABLE_ROWS,
    *segments.ERASABLE_ROWS,
    *privacy.ERASABLE_ROWS,
]
"""Rows that an erasure deletes besides the profile, the claims and the key."""
