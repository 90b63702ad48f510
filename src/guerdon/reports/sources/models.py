"""Wire structs of the sources of a spend."""

from msgspec import Struct

from guerdon.ledger.models import Source


class SpendSource(Struct, frozen=True):
    """Part of a spend, and the transaction that brought it."""

    wallet: str
    """Id of the wallet that it left."""
    transaction_id: str | None
    """Transaction that brought the value. Null for a part that the wallet did not have and owes since then."""
    kind: str | None
    """Kind of that transaction, such as `award`; null for a debt."""
    amount: int
    """Part of the spend in minor units. The parts add up to the spend."""
    source: Source
    """`paid` or `promotional`: the source of the lot that the value was in."""
    campaign: str | None
    """Id of the campaign that awarded the value; null for other value."""
    version: int | None
    """Version of the campaign; null for other value."""
    month: str
    """Month in which the value came into the wallet, in the programme's time zone; for a debt the month of the spend."""
    earned_at: str | None
    """Time at which the value came into the wallet, RFC 3339 in UTC; null for a debt."""


class SpendSources(Struct, frozen=True):
    """The value that a transaction took, by the transactions that brought it."""

    transaction_id: str
    """Id of the transaction that took the value."""
    amount: int
    """Value that it took from wallets, in minor units; 0 for a transaction that takes nothing."""
    items: list[SpendSource]
    """Parts in the order in which they left: by lot in spend order, and first in first out within a lot. Empty if nothing was taken."""
    next_cursor: None = None
    """Always null: the list is complete."""
