"""Wire structs of bulk requests."""

from typing import Annotated, Any

from msgspec import Meta, Struct

from guerdon.holds.models import ExpiresInSeconds
from guerdon.money import Amount
from guerdon.types import EXPECTED, Metadata, Reason, Reference
from guerdon.wallets.models import BulkCredit, BulkDebit, BulkTransfer, Key, TransactionView, WalletId

BULK_MAX = 1000
HoldId = Annotated[
    str,
    Meta(
        max_length=140,
        pattern=r"^hld_[\u0021-\u007e]+$(?!\n)",
        extra={EXPECTED: "must be the id of a hold: hld_ and visible ASCII characters"},
        description="Id of the hold.",
        examples=["hld_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:4"],
    ),
]
TransactionId = Annotated[
    str,
    Meta(
        max_length=140,
        pattern=r"^txn_[\u0021-\u007e]+$(?!\n)",
        extra={EXPECTED: "must be the id of a transaction: txn_ and visible ASCII characters"},
        description="Id of the transaction.",
        examples=["txn_mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS:3"],
    ),
]


class BulkHold(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="hold"):
    """A hold inside a bulk request."""

    wallet: WalletId
    """Id of the wallet, `{member_id}:{asset}`."""
    amount: Amount
    """Amount to set aside, in minor units of the wallet's asset."""
    key: Key
    """Idempotency key of this command."""
    expires_in_seconds: ExpiresInSeconds = 900
    """Time until the hold expires, in seconds."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


class BulkCapture(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="capture"):
    """A capture inside a bulk request."""

    hold: HoldId
    """Id of the hold. An earlier command of the request can have created it."""
    key: Key
    """Idempotency key of this command."""
    amount: Amount | None = None
    """Amount to capture in minor units; null for all that is left."""
    final: bool = False
    """True to release the rest of the hold with this capture."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


class BulkVoid(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="void"):
    """A void inside a bulk request."""

    hold: HoldId
    """Id of the hold. An earlier command of the request can have created it."""
    key: Key
    """Idempotency key of this command."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""


class BulkReverse(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="reverse"):
    """A reversal inside a bulk request."""

    transaction: TransactionId
    """Id of the transaction to reverse. It must exist before the request."""
    key: Key
    """Idempotency key of this command."""
    amount: Amount | None = None
    """Amount to reverse in minor units; null for all that is left."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""


BulkCommand = BulkCredit | BulkDebit | BulkTransfer | BulkHold | BulkCapture | BulkVoid | BulkReverse


class BulkCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 commands, each with its own key and result."""

    commands: Annotated[list[BulkCommand], Meta(min_length=1, max_length=BULK_MAX)]
    """Commands to run, in order."""
    atomic: bool = False
    """True to apply all commands or none."""


class BulkResult(Struct, frozen=True, omit_defaults=True):
    """Result of one command of a bulk request: a transaction or a problem."""

    status: int
    """HTTP status that the command alone would have: 201, 200 in a dry run, or that of the problem."""
    transaction: TransactionView | None = None
    """The transaction, if the command was applied."""
    problem: dict[str, Any] | None = None
    """The problem document, if the command was refused."""
    replayed: bool = False
    """True if an earlier request with the same key had this result."""


class BulkAnswer(Struct, frozen=True):
    """Results of a bulk request."""

    results: list[BulkResult]
    """One result for each command, in the order of the commands."""
