"""Wire and stored shapes of wallets and assets."""

import re
from datetime import datetime
from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, field
from pymongo import IndexModel

from guerdon.clock import rfc3339
from guerdon.ledger.models import Account, Entry, HoldChange, Limits, Lot, Source, hold_id
from guerdon.money import AMOUNT_MAX, BALANCE_CEILING, Amount, AssetCode
from guerdon.types import Metadata, Reason, Reference

ASSETS = "assets"
INDEXES: dict[str, list[IndexModel]] = {ASSETS: []}
WALLET = "wallet"
WALLET_ID = re.compile(r"(mem_[0-9a-f]{32}):([A-Z][A-Z0-9]{1,11})\Z")
BULK_MAX = 1000
SCALE_MAX = 8

WalletId = Annotated[
    str,
    Meta(max_length=60, description="`{member_id}:{asset}`", examples=["mem_019a7f3c2d1e4b5a69788796a5b4c3d2:PTS"]),
]
Key = Annotated[str, Meta(min_length=1, max_length=255, pattern=r"^[\u0021-\u007e]+$(?!\n)", examples=["till-4-000017"])]
AvailableAt = Annotated[datetime, Meta(description="Not spendable before this moment; with an offset.")]
ExpiresAt = Annotated[datetime, Meta(description="Not spendable from this moment on; with an offset.")]


# --- stored ---------------------------------------------------------------------------------------------------------


class Asset(Struct, frozen=True, kw_only=True):
    """A unit of value; one unit is 10^scale minor units. Neither field ever changes."""

    code: str = field(name="_id")
    scale: int
    created_at: int


# --- wire -----------------------------------------------------------------------------------------------------------


class AssetCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """A new unit of value."""

    code: AssetCode
    scale: Annotated[int, Meta(ge=0, le=SCALE_MAX, description="Decimal places of one unit: GBP has 2.")]


class AssetView(Struct, frozen=True):
    """A unit of value."""

    code: str
    scale: int


class AssetList(Struct, frozen=True):
    """All assets."""

    items: list[AssetView]
    next_cursor: None = None


class CreditCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to put into a wallet. A `reference` is accepted once per member, for ever."""

    amount: Amount
    reason: Reason | None = None
    reference: Reference | None = None
    source: Source = "paid"
    available_at: AvailableAt | None = None
    expires_at: ExpiresAt | None = None
    metadata: Metadata = {}


class DebitCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to take from a wallet."""

    amount: Amount
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class TransferCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Value to move between two wallets of one asset."""

    source: WalletId = field(name="from")
    target: WalletId = field(name="to")
    amount: Amount
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class BulkCredit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="credit"):
    """A credit inside a bulk request."""

    wallet: WalletId
    amount: Amount
    key: Key
    reason: Reason | None = None
    reference: Reference | None = None
    source: Source = "paid"
    available_at: AvailableAt | None = None
    expires_at: ExpiresAt | None = None
    metadata: Metadata = {}


class BulkDebit(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="debit"):
    """A debit inside a bulk request."""

    wallet: WalletId
    amount: Amount
    key: Key
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


class BulkTransfer(Struct, frozen=True, forbid_unknown_fields=True, tag_field="type", tag="transfer"):
    """A transfer from `wallet` to `to` inside a bulk request."""

    wallet: WalletId
    to: WalletId
    amount: Amount
    key: Key
    reason: Reason | None = None
    reference: Reference | None = None
    metadata: Metadata = {}


BulkItem = BulkCredit | BulkDebit | BulkTransfer


class BulkCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Up to 1,000 commands. Each has its own key and outcome; with `atomic` all of them are applied or none."""

    commands: Annotated[list[BulkItem], Meta(min_length=1, max_length=BULK_MAX)]
    atomic: bool = False


class TermsView(Struct, frozen=True):
    """How far a wallet may go; null is no limit."""

    credit_limit: int
    ceiling: int | None
    day_limit: int | None
    month_limit: int | None


class TermsSet(Struct, frozen=True, forbid_unknown_fields=True):
    """All terms of a wallet; what is left out is set to its default."""

    credit_limit: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="How far the wallet may go below zero.")] = 0
    ceiling: Annotated[int, Meta(ge=0, le=BALANCE_CEILING, description="The highest balance a credit may make.")] | None = None
    day_limit: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Spending in a calendar day of the programme.")] | None = None
    month_limit: Annotated[int, Meta(ge=0, le=AMOUNT_MAX, description="Spending in a calendar month.")] | None = None
    reason: Reason | None = None


class StatusSet(Struct, frozen=True, forbid_unknown_fields=True):
    """Why; it stands on the wallet's history."""

    reason: Reason | None = None


class WalletState(Struct, frozen=True):
    """An account as booked, and as it is at the moment of asking."""

    account: Account
    present: Account


class WalletView(Struct, frozen=True):
    """A wallet now, in minor units. `balance` is what its entries add up to; `available` is what a debit may take."""

    id: str
    member_id: str
    asset: str
    balance: int
    held: int
    available: int
    pending: int
    expired: int
    """A part of the balance that has lapsed and is written off with the next movement, or by the sweeper."""
    status: str
    seq: int
    terms: "TermsView"


class WalletList(Struct, frozen=True):
    """All wallets of a member."""

    items: list[WalletView]
    next_cursor: None = None


class TransactionView(Struct, frozen=True):
    """What was done. `balance`, `available` and `seq` are the wallet's right after it."""

    id: str
    kind: str
    wallet: str
    asset: str
    amount: int
    balance: int
    available: int
    seq: int
    reference: str | None
    reason: str | None
    metadata: dict[str, str]
    created_at: str
    to: str | UnsetType = UNSET
    hold: "HoldState | UnsetType" = UNSET
    reverses: str | UnsetType = UNSET
    lots: "list[LotView] | UnsetType" = UNSET
    """The dated part of what moved; the rest is undated paid value."""


class HoldState(Struct, frozen=True):
    """A hold right after a transaction."""

    id: str
    status: Literal["held", "captured", "voided", "expired"]
    amount: int
    captured: int
    left: int


class LotView(Struct, frozen=True):
    """Value of one source with one pair of dates."""

    amount: int
    source: Source
    available_at: str | None
    expires_at: str | None


class LotList(Struct, frozen=True):
    """What a wallet holds now, in the order in which it is spent; held value is not in it."""

    items: list[LotView]
    next_cursor: None = None


class BulkResult(Struct, frozen=True, omit_defaults=True):
    """The outcome of one command of a bulk request: a transaction or a problem."""

    status: int
    transaction: TransactionView | None = None
    problem: dict[str, Any] | None = None
    replayed: bool = False


class BulkAnswer(Struct, frozen=True):
    """One result for each command, in their order."""

    results: list[BulkResult]


def view_wallet(state: WalletState) -> WalletView:
    """The books as they stand, and what time has made of them: value that has lapsed is not available before it is booked."""
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
    )


def view_terms(account: Account) -> TermsView:
    limits = account.limits or Limits()
    ceiling = None if account.ceiling == BALANCE_CEILING else account.ceiling
    return TermsView(max(-account.minimum_balance, 0), ceiling, limits.day, limits.month)


def lots_of(present: Account) -> list[Lot]:
    """What an account holds now, in spend order; undated paid value comes last."""
    return [*(present.lots or ()), *([Lot(present.undated_balance)] if present.undated_balance > 0 else [])]


def view_transaction(entry: Entry) -> TransactionView:
    """The answer is made from the stored entry alone, so a replay years later is byte for byte the first answer."""
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
        to=entry.counterparty if entry.kind == "transfer" else UNSET,
        hold=UNSET if entry.hold is None else view_hold_state(entry, entry.hold),
        reverses=UNSET if entry.reverses is None else entry.reverses,
        lots=UNSET if not entry.lots else [view_lot(lot) for lot in entry.lots],
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
