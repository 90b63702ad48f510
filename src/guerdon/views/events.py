"""Stored events and voids as the fold reads them: the fields that something is derived from."""

from typing import Any

from msgspec import Struct, field

from guerdon.campaigns.domain import ChainLink, DecisionView, Release, VoidedEvent


class FoldedRefunds(Struct, frozen=True):
    """Refunds of a purchase before an event."""

    amount: int = 0
    voided: dict[str, Any] | None = None


class FoldedInputs(Struct, frozen=True):
    """Inputs of the decisions on an event."""

    before: FoldedRefunds | None = None


class FoldedEvent(Struct, frozen=True, kw_only=True):
    """Fields of a recorded event that the fold reads."""

    id: str = field(name="_id")
    owner: str
    type: str
    occurred_at: int
    amount: int = 0
    currency: str = ""
    decisions: list[DecisionView] = []
    refund_of: str | None = None
    confirms: str | None = None
    releases: list[Release] = []
    inputs: FoldedInputs | None = None
    proof: ChainLink | None = None

    @property
    def before(self) -> FoldedRefunds:
        """Refunds of the purchase before the event."""
        return (None if self.inputs is None else self.inputs.before) or FoldedRefunds()


class FoldedVoid(Struct, frozen=True, kw_only=True):
    """Fields of a void that the fold reads."""

    id: str = field(name="_id")
    owner: str
    recorded_at: int
    voided: VoidedEvent | None = None
    proof: ChainLink | None = None


class FoldedTierChange(Struct, frozen=True, kw_only=True):
    """Fields of a change of tier that the fold reads."""

    id: str = field(name="_id")
    owner: str
    before: str | None = None
    after: str | None = None
    at: int
    proof: ChainLink | None = None


def _fields(struct: type[Struct]) -> tuple[str, ...]:
    return tuple(name for name in struct.__struct_encode_fields__ if name not in ("_id", "owner"))


EVENT_FIELDS, VOID_FIELDS, TIER_CHANGE_FIELDS = _fields(FoldedEvent), _fields(FoldedVoid), _fields(FoldedTierChange)
"""Stored names of the fields, without `_id` and `owner`."""
