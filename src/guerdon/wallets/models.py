"""Stored and wire structs of wallets and assets."""

import re
from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.ledger.lots import merge
from guerdon.ledger.models import Account, Entry, HoldChange, Limits, Lot, Source, hold_id
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING, Amount, AssetCode
from guerdon.types import EXPECTED, Metadata, Reason, Reference

ASSETS = "assets"
INDEXES: dict[str, list[IndexModel]] = {ASSETS: []}
WALLET = "wallet"
WALLET_ID = re.compile(r"(mem_[0-9a-f]{32}):([A-Z][A-Z0-9]{1,11})\Z")
SCALE_MAX = 8

WalletId = Annotated[
    str,
    Meta(max_length=60, description="`{member_id}:{asset}`", examples=["mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS"]),
]
Key = Annotated[
    str,
    Meta(
        min_length=1,
        max_length=255,
        pattern=r"^[\u0021-\u007e]+$(?!\n)",
        extra={EXPECTED: "must be visible ASCII characters"},
        examples=["till-4-000017"],
    ),
]
AvailableAt = Annotated[datetime, Meta(description="Time from which the value can be spent, RFC 3339 with an offset.")]
ExpiresAt = Annotated[datetime, Meta(description="Time from which the value is expired, RFC 3339 with an offset.")]
EffectiveAt = Annotated[
    datetime,
    Meta(
        description="Time at which the fact happened, RFC 3339 with an offset: not in the future, at most 10 years ago.",
        examples=["2026-01-31T12:00:00Z"],
    ),
]
EXPIRES_IN_DAYS_MAX = 3660
ExpiresInDays = Annotated[
    int,
    Meta(
        ge=1,
        le=EXPIRES_IN_DAYS_MAX,
        description="Days of the programme's time zone after which the value expires, at midnight.",
    ),
]


# --- stored ---------------------------------------------------------------------------------------------------------


class Asset(Struct, frozen=True, kw_only=True):
    """A unit of value. Code and scale never change."""

    code: str = field(name="_id")
    """Asset code, such as `PTS` or `GBP`."""
    scale: int
    """Number of decimal places: one unit is 10^`scale` minor units."""
    created_at: int
    """Milliseconds since the epoch."""


# --- wire -----------------------------------------------------------------------------------------------------------


class AssetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A new unit of value."""

    code: AssetCode
    """Asset code, such as `PTS` or `GBP`."""
    scale: Annotated[int, Meta(ge=0, le=SCALE_MAX, description="Decimal places of one unit: GBP has 2.")]
    """Number of decimal places: one unit is 10^`scale` minor units."""


class AssetView(Struct, frozen=True):
    """A unit of value."""

    code: str
    """Asset code, such as `PTS` or `GBP`."""
    scale: int
    """Number of decimal places: one unit is 10^`scale` minor units."""


class AssetList(Struct, frozen=True):
    """All assets."""

    items: list[AssetView]
    """Items of the list."""
    next_cursor: None = None
    """Always null: the list is complete."""


class CreditCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to credit to a wallet."""

    amount: Amount
    """Amount in minor units of the asset."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    source: Source = "paid"
    """`paid`, or `promotional` for value that was awarded."""
    available_at: AvailableAt | None = None
    """Time from which the value can be spent, RFC 3339 with an offset; null for at once."""
    expires_at: ExpiresAt | None = None
    """Time from which the value is expired, RFC 3339 with an offset; null for never."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""
    expires_in_days: ExpiresInDays | None = None
    """Days after `effective_at`, or after now without it, at whose end the value expires. Not together with `expires_at`."""


class DebitCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to debit from a wallet."""

    amount: Amount
    """Amount in minor units of the asset."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""


class TransferCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to transfer between two wallets of the same asset."""

    source: WalletId = field(name="from")
    """Id of the wallet to debit."""
    target: WalletId = field(name="to")
    """Id of the wallet to credit."""
    amount: Amount
    """Amount in minor units of the asset."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""


class BulkCredit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="credit"):
    """A credit inside a bulk request."""

    wallet: WalletId
    """Id of the wallet, `{member_id}:{asset}`."""
    amount: Amount
    """Amount in minor units of the asset."""
    key: Key
    """Idempotency key of this command."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    source: Source = "paid"
    """`paid`, or `promotional` for value that was awarded."""
    available_at: AvailableAt | None = None
    """Time from which the value can be spent, RFC 3339 with an offset; null for at once."""
    expires_at: ExpiresAt | None = None
    """Time from which the value is expired, RFC 3339 with an offset; null for never."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""
    expires_in_days: ExpiresInDays | None = None
    """Days after `effective_at`, or after now without it, at whose end the value expires. Not together with `expires_at`."""


class BulkDebit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="debit"):
    """A debit inside a bulk request."""

    wallet: WalletId
    """Id of the wallet, `{member_id}:{asset}`."""
    amount: Amount
    """Amount in minor units of the asset."""
    key: Key
    """Idempotency key of this command."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""


class BulkTransfer(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="transfer"):
    """A transfer from `wallet` to `to` inside a bulk request."""

    wallet: WalletId
    """Id of the wallet to debit."""
    to: WalletId
    """Id of the wallet to credit."""
    amount: Amount
    """Amount in minor units of the asset."""
    key: Key
    """Idempotency key of this command."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member until it is undone whole. It is kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""


BulkItem = BulkCredit | BulkDebit | BulkTransfer


class TermsView(Struct, frozen=True):
    """Account rules of a wallet."""

    credit_limit: int
    """Minor units by which the balance may fall below zero."""
    ceiling: int | None
    """Highest balance that a credit may produce, in minor units; null for no ceiling."""
    day_limit: int | None
    """Maximum spending per calendar day in minor units; null for no limit."""
    month_limit: int | None
    """Maximum spending per calendar month in minor units; null for no limit."""


class TermsSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Account rules of a wallet. An omitted rule is set to its default."""

    credit_limit: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Minor units by which the balance may fall below zero.")] = 0
    """Minor units by which the balance may fall below zero."""
    ceiling: (
        Annotated[int, Meta(ge=0, le=BALANCE_CEILING, description="Highest balance that a credit may produce, in minor units.")]
        | None
    ) = None
    """Highest balance that a credit may produce, in minor units; null for no ceiling."""
    day_limit: (
        Annotated[
            int,
            Meta(
                ge=0, le=AMOUNT_MAX, description="Maximum spending in a calendar day of the programme's time zone, in minor units."
            ),
        ]
        | None
    ) = None
    """Maximum spending per calendar day of the programme's time zone, in minor units; null for no limit."""
    month_limit: (
        Annotated[
            int,
            Meta(
                ge=0,
                le=AMOUNT_MAX,
                description="Maximum spending in a calendar month of the programme's time zone, in minor units.",
            ),
        ]
        | None
    ) = None
    """Maximum spending per calendar month of the programme's time zone, in minor units; null for no limit."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""


class StatusSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Reason of a change of status."""

    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""


class WalletState(Struct, frozen=True):
    """An account as booked, and as it is now with all expiry applied."""

    account: Account
    present: Account


class NextExpiry(Struct, frozen=True):
    """Value of a wallet that expires next."""

    at: str
    """Time from which the value is expired, RFC 3339 in UTC."""
    amount: int
    """Amount that expires then unless it is spent before, in minor units. Held value is not part of it."""


class WalletView(Struct, frozen=True):
    """A wallet at the present time. All amounts are minor units."""

    id: str
    """Id of the wallet, `{member_id}:{asset}`."""
    member_id: str
    """Id of the member who owns the wallet."""
    asset: str
    """Code of the asset."""
    balance: int
    """Sum of the wallet's entries in minor units."""
    held: int
    """Value set aside by active holds, in minor units."""
    available: int
    """Value that can be spent now, in minor units."""
    pending: int
    """Value that is not available yet, in minor units."""
    expired: int
    """Expired part of `balance` in minor units; it is written off with the next change of the wallet or by a background job."""
    status: str
    """`open`, `frozen` or `closed`."""
    seq: int
    """Number of the wallet's newest entry."""
    terms: "TermsView"
    """Account rules."""
    expires_next: NextExpiry | None
    """Value that expires next; null if no value of the wallet expires."""


class WalletList(Struct, frozen=True):
    """All wallets of a member."""

    items: list[WalletView]
    """Items of the list."""
    next_cursor: None = None
    """Always null: the list is complete."""


class TransactionView(Struct, frozen=True):
    """A transaction, and the wallet right after it."""

    id: str
    """Id of the transaction."""
    kind: str
    """Kind of the transaction, such as `debit`."""
    wallet: str
    """Id of the wallet, `{member_id}:{asset}`."""
    asset: str
    """Code of the asset."""
    amount: int
    """Amount moved in minor units, without a sign."""
    balance: int
    """Balance of the wallet after the transaction, in minor units."""
    available: int
    """Value that can be spent after the transaction, in minor units."""
    seq: int
    """Number of the wallet's entry of this transaction."""
    reference: str | None
    """The caller's own name of the business fact, or null."""
    reason: str | None
    """Reason in the caller's words, or null."""
    metadata: dict[str, str]
    """The caller's texts by name."""
    created_at: str
    """Time of the transaction, RFC 3339 in UTC."""
    to: str | UnsetType = UNSET
    """Id of the target wallet of a transfer."""
    hold: "HoldState | UnsetType" = UNSET
    """State of the hold after the transaction."""
    reverses: str | UnsetType = UNSET
    """Id of the transaction that this one reverses."""
    lots: "list[LotView] | UnsetType" = UNSET
    """The dated part of what moved; the rest is undated paid value."""
    effective_at: str | UnsetType = UNSET
    """Time at which the fact happened, RFC 3339 in UTC, if the request stated it."""


class HoldState(Struct, frozen=True):
    """A hold right after a transaction."""

    id: str
    """Id of the hold."""
    status: Literal["held", "captured", "voided", "expired"]
    """State of the hold."""
    amount: int
    """Original amount of the hold in minor units."""
    captured: int
    """Value captured so far, in minor units."""
    left: int
    """Value that can still be captured, in minor units."""


class LotView(Struct, frozen=True):
    """Value with one source and one pair of dates."""

    amount: int
    """Amount in minor units of the asset."""
    source: Source
    """`paid`, or `promotional` for value that was awarded."""
    available_at: str | None
    """Time from which the value can be spent, RFC 3339 in UTC; null for value that is available."""
    expires_at: str | None
    """Time from which the value is expired, RFC 3339 in UTC; null for value that does not expire."""


class LotList(Struct, frozen=True):
    """Lots of a wallet in the order in which they are spent, without held value."""

    items: list[LotView]
    """Items of the list."""
    next_cursor: None = None
    """Always null: the list is complete."""


def view_wallet(state: WalletState) -> WalletView:
    """Return the view of a wallet. Expired value is not available, even before it is booked."""
    account, present = state.account, state.present
    return WalletView(
        id=account.id,
        member_id=account.owner,
        asset=account.asset,
        balance=account.balance,
        held=present.held,
        available=max(present.spendable, 0),
        pending=present.pending,
        expired=account.balance - present.balance,
        status=account.status,
        seq=account.seq,
        terms=view_terms(account),
        expires_next=_next_expiry(present),
    )


def _next_expiry(present: Account) -> NextExpiry | None:
    """Return the sum of the lots that expire first, also of those that are not available yet."""
    dated = [(lot.expires_at, lot.amount) for lot in present.lots or () if lot.expires_at is not None]
    if not dated:
        return None
    first = min(dated)[0]
    return NextExpiry(rfc3339(first), sum(amount for at, amount in dated if at == first))


def view_terms(account: Account) -> TermsView:
    limits = account.limits or Limits()
    ceiling = None if account.ceiling == BALANCE_CEILING else account.ceiling
    return TermsView(max(-account.minimum_balance, 0), ceiling, limits.day, limits.month)


def terms_text(terms: TermsView | TermsSet) -> str:
    """Return account rules as JSON, for the audit log."""
    rules = TermsView(terms.credit_limit, terms.ceiling, terms.day_limit, terms.month_limit)
    return msgspec.json.encode(rules).decode()


def lots_of(present: Account) -> list[Lot]:
    """Return the lots of an account in spend order; undated paid value comes last. Returned value is not shown apart."""
    shown = merge(msgspec.structs.replace(lot, first_expires_at=None) for lot in present.lots or ())
    return [*shown, *([Lot(present.undated_balance)] if present.undated_balance > 0 else [])]


def view_transaction(entry: Entry) -> TransactionView:
    """Return the view of a transaction. It depends on the stored entry only, so a replay returns the bytes of the first answer."""
    return TransactionView(
        id=entry.transaction_id,
        kind=entry.kind,
        wallet=entry.account,
        asset=entry.asset,
        amount=abs(entry.amount),
        balance=entry.balance_after,
        available=max(entry.available_after, 0),
        seq=entry.seq,
        reference=entry.reference,
        reason=entry.reason,
        metadata=entry.metadata,
        created_at=rfc3339(entry.at),
        to=UNSET
        if entry.kind != "transfer" or entry.sides is not None
        else entry.counterparty
        if entry.amount < 0
        else entry.account,
        hold=UNSET if entry.hold is None else view_hold_state(entry, entry.hold),
        reverses=UNSET if entry.reverses is None else entry.reverses,
        lots=UNSET if not entry.lots else [view_lot(lot) for lot in entry.lots],
        effective_at=UNSET if entry.effective_at is None else rfc3339(entry.effective_at),
    )


def view_hold_state(entry: Entry, change: HoldChange) -> HoldState:
    ended: dict[str, Literal["voided", "expired"]] = {"void": "voided", "hold_expiry": "expired"}
    status = ended.get(entry.kind) or ("held" if change.left else "captured")
    return HoldState(hold_id(entry.account, change.seq), status, change.size, change.captured, change.left)


def view_lot(lot: Lot) -> LotView:
    return LotView(
        abs(lot.amount),
        lot.source,
        None if lot.available_at is None else rfc3339(lot.available_at),
        None if lot.expires_at is None else rfc3339(lot.expires_at),
    )
