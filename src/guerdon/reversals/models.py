"""Wire shapes of transactions as they are read and reversed."""

from msgspec import Struct

from guerdon.money import Amount
from guerdon.types import Metadata, Reason, Reference
from guerdon.wallets.models import TransactionView


class ReversalCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """How much of a transaction to take back; null is all that is left of it."""

    amount: Amount | None = None
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class TransactionState(Struct, frozen=True):
    """A transaction, and how much of it was reversed so far."""

    transaction: TransactionView
    reversed: int
    left: int
    """What can still be reversed; 0 where nothing has moved."""
