"""What the rooms keep: every collection with its indexes, what erasures delete, and what the master keys have sealed."""

from guerdon import outbox
from guerdon.audit import models as audit_models
from guerdon.factors import models as factors_models
from guerdon.identity import models as identity_models
from guerdon.identity import vault as identity_vault
from guerdon.ledger import checkpoints as ledger_checkpoints
from guerdon.ledger import store as ledger_store
from guerdon.privacy import models as privacy_models
from guerdon.recovery import models as recovery_models
from guerdon.rewards import models as rewards_models
from guerdon.sessions import models as sessions_models
from guerdon.simulated_clock import models as simulated_clock_models
from guerdon.vouchers import models as vouchers_models
from guerdon.wallets import models as wallets_models
from guerdon.whatif import models as whatif_models
from guerdon.workers import models as workers_models

INDEXES = {
    **identity_models.INDEXES,
    **sessions_models.INDEXES,
    **factors_models.INDEXES,
    **outbox.INDEXES,
    **recovery_models.INDEXES,
    **audit_models.INDEXES,
    **ledger_store.INDEXES,
    **ledger_checkpoints.INDEXES,
    **wallets_models.INDEXES,
    **rewards_models.INDEXES,
    **vouchers_models.INDEXES,
    **whatif_models.INDEXES,
    **privacy_models.INDEXES,
    **simulated_clock_models.INDEXES,
    **workers_models.INDEXES,
}
MASTER_SEALED = [*identity_vault.MASTER_SEALED, *outbox.MASTER_SEALED]
"""What a rotation of the master keys seals again."""
BELONGINGS = [
    *sessions_models.BELONGINGS,
    *factors_models.BELONGINGS,
    *outbox.BELONGINGS,
    *recovery_models.BELONGINGS,
    *privacy_models.BELONGINGS,
]
"""What an erasure deletes besides the profile, the claims and the key."""
