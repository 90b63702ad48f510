"""Stored and wire structs of holds."""

from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from guerdon.clock import rfc3339
from guerdon.ledger.models import Entry, HoldChange, hold_id
from guerdon.money import Amount
from guerdon.types import Metadata, Reason, Reference
from guerdon.wallets.models import WalletId, view_hold_state

EXPIRY_SECONDS_MAX = 90 * 86_400
ExpiresInSeconds = Annotated[
    int, Meta(ge=1, le=EXPIRY_SECONDS_MAX, description="Time until the hold expires, in seconds, at most 90 days.")
]
Status = Literal["held", "captured", "voided", "expired"]


class HoldCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to set aside."""

    wallet: WalletId
    """Id of the wallet, `{member_id}:{asset}`."""
    amount: Amount
    """Amount to set aside, in minor units of the wallet's asset."""
    expires_in_seconds: ExpiresInSeconds = 900
    """Time until the hold expires, in seconds."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


class CaptureCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to capture from a hold."""

    amount: Amount | None = None
    """Amount to capture in minor units; null for all that is left."""
    final: bool = False
    """True to release the rest of the hold with this capture."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


class VoidCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Reason of a void."""

    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""


class StoredHold(Struct, frozen=True):
    """A hold by its id. Decisions use the account's `holds`, which agree with it."""

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
    """A hold at the present time."""

    id: str
    """Id of the hold."""
    wallet: str
    """Id of the wallet, `{member_id}:{asset}`."""
    asset: str
    """Code of the asset."""
    status: Status
    """State of the hold."""
    amount: int
    """Original amount of the hold in minor units."""
    captured: int
    """Value captured so far, in minor units."""
    left: int
    """Value that can still be captured, in minor units."""
    expires_at: str
    """Time at which the hold expires, RFC 3339 in UTC."""
    created_at: str
    """Time at which the hold was created, RFC 3339 in UTC."""
    reference: str | None
    """The caller's own name of the business fact, or null."""
    reason: str | None
    """Reason in the caller's words, or null."""
    metadata: dict[str, str]
    """The caller's texts by name."""


def view_stored(hold: StoredHold, now_ms: int) -> HoldView:
    """Return the view of a hold. A hold ends at its expiry, whether or not that is booked yet."""
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
    """A hold right after it was created or voided, with the state of its wallet and the transaction."""

    id: str
    """Id of the hold."""
    wallet: str
    """Id of the wallet, `{member_id}:{asset}`."""
    asset: str
    """Code of the asset."""
    status: Status
    """State of the hold."""
    amount: int
    """Original amount of the hold in minor units."""
    captured: int
    """Value captured so far, in minor units."""
    left: int
    """Value that can still be captured, in minor units."""
    expires_at: str
    """Time at which the hold expires, RFC 3339 in UTC."""
    balance: int
    """Balance of the wallet after the transaction, in minor units."""
    held: int
    """Value held on the wallet after the transaction, in minor units."""
    available: int
    """Value that can be spent after the transaction, in minor units."""
    seq: int
    """Number of the wallet's entry of this transaction."""
    transaction_id: str
    """Id of the transaction that created or voided the hold."""
    reference: str | None
    """The caller's own name of the business fact, or null."""
    reason: str | None
    """Reason in the caller's words, or null."""
    metadata: dict[str, str]
    """The caller's texts by name."""
    created_at: str
    """Time of the transaction, RFC 3339 in UTC."""


def view_answer(entry: Entry, change: HoldChange) -> HoldAnswer:
    """Return the answer. It depends on the stored entry only, so a replay returns the bytes of the first answer."""
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
