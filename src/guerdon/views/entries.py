"""Stored entries as the folds read them: the fields that something is derived from."""

from msgspec import Struct, field

from guerdon.ledger.models import SEQ_DIGITS, Entry, HoldChange, Lot


class FoldedEntry(Struct, frozen=True):
    """Fields of a stored entry that the fold reads. Their names are those of `Entry`."""

    id: str = field(name="_id")
    owner: str
    asset: str
    kind: str
    amount: int
    balance_after: int
    held_after: int
    counterparty: str = field(name="counter")
    at: int
    transaction: str | None = None
    metadata: dict[str, str] = {}
    lots: tuple[Lot, ...] | None = None
    hold: HoldChange | None = None
    reverses: str | None = None
    key: str | None = None

    @property
    def account(self) -> str:
        return self.id[: -SEQ_DIGITS - 1]

    @property
    def seq(self) -> int:
        return int(self.id[-SEQ_DIGITS:])


AnyEntry = Entry | FoldedEntry
FOLDED_FIELDS = tuple(each for each in FoldedEntry.__struct_encode_fields__ if each not in ("_id", "owner"))
"""Stored names of the fields, without `_id`."""
