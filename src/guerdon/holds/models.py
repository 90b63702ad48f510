"""Wire and stored shapes of holds."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from guerdon.clock import rfc3339
from guerdon.ledger.models import Entry, HoldChange, hold_id
from guerdon.money import Amount
from guerdon.types import Metadata, Reason, Reference
from guerdon.wallets.models import WalletId, view_hold_state

EXPIRY_SECONDS_MAX = 90 * 86_400
Status = Literal["held", "captured", "voided", "expired"]


class HoldCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to set aside."""

    wallet: WalletId
    amount: Amount
    expires_in_seconds: Annotated[int, Meta(ge=1, le=EXPIRY_SECONDS_MAX, description="At most 90 days.")] = 900
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class CaptureCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """What to take out of a hold; null is all that is left. `final` releases the rest with it."""

    amount: Amount | None = None
    final: bool = False
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class VoidCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Why the hold is given up."""

    reason: Reason | None = None


class StoredHold(Struct, frozen=True):
    """A hold as it is found by its id; what decides about it stands on the account."""

    id: str = field(name="_id")
    owner: str
    account: str
    asset: str
    amount: int
    captured: int
    left: int
    status: Status
    expires_at: int
    created_at: int
    created_by: str
    ended_at: int | None = None
    reason: str | None = None
    reference: str | None = None
    metadata: dict[str, str] = {}


class HoldView(Struct, frozen=True):
    """A hold. `left` is what can still be captured."""

    id: str
    wallet: str
    asset: str
    status: Status
    amount: int
    captured: int
    left: int
    expires_at: str
    created_at: str
    reference: str | None
    reason: str | None
    metadata: dict[str, str]


def view_stored(hold: StoredHold, now_ms: int) -> HoldView:
    """A hold is over at its millisecond, whether or not that is booked."""
    expired = hold.status == "held" and hold.expires_at <= now_ms
    return HoldView(
        id=hold.id,
        wallet=hold.account,
        asset=hold.asset,
        status="expired" if expired else hold.status,
        amount=hold.amount,
        captured=hold.captured,
        left=0 if expired else hold.left,
        expires_at=rfc3339(hold.expires_at),
        created_at=rfc3339(hold.created_at),
        reference=hold.reference,
        reason=hold.reason,
        metadata=hold.metadata,
    )


class HoldAnswer(Struct, frozen=True):
    """A hold right after it was made or voided, with the wallet's state and the transaction that did it."""

    id: str
    wallet: str
    asset: str
    status: Status
    amount: int
    captured: int
    left: int
    expires_at: str
    balance: int
    held: int
    available: int
    seq: int
    transaction_id: str
    reference: str | None
    reason: str | None
    metadata: dict[str, str]
    created_at: str


def view_answer(entry: Entry, change: HoldChange) -> HoldAnswer:
    """Made from the stored entry alone, so a replay years later is byte for byte the first answer."""
    state = view_hold_state(entry, change)
    return HoldAnswer(
        id=hold_id(entry.account, change.seq),
        wallet=entry.account,
        asset=entry.asset,
        status=state.status,
        amount=change.size,
        captured=change.captured,
        left=change.left,
        expires_at=rfc3339(change.expires_at),
        balance=entry.balance_after,
        held=entry.held_after,
        available=max(entry.available_after, 0),
        seq=entry.seq,
        transaction_id=entry.transaction_id,
        reference=entry.reference,
        reason=entry.reason,
        metadata=entry.metadata,
        created_at=rfc3339(entry.at),
    )
