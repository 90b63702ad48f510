"""Wire structs of transactions and reversals."""

from msgspec import Struct

from guerdon.money import Amount
from guerdon.transactions.models import TransactionDetails
from guerdon.types import Metadata, Reason, Reference


class ReversalCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value of a transaction to reverse."""

    amount: Amount | None = None
    """Amount to reverse in minor units; null for all that is left."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


class TransactionState(Struct, frozen=True):
    """A transaction, and the amount of it that was reversed."""

    transaction: TransactionDetails
    """The transaction as it was first answered."""
    reversed: int
    """Amount reversed so far, in minor units. Of a transaction of several postings, that of its first entry."""
    left: int
    """Amount that can still be reversed, in minor units; 0 for a transaction that moved no value."""
