"""Wire structs of transactions of several postings, and their construction from entries."""

from collections.abc import Sequence
from typing import Annotated, Literal

from msgspec import UNSET, Meta, Struct, UnsetType

from guerdon.clock import rfc3339
from guerdon.ledger.models import SYSTEM, Entry
from guerdon.money import AMOUNT_MAX, AssetCode
from guerdon.types import Metadata, Reason, Reference
from guerdon.wallets.models import EffectiveAt, TransactionView, WalletId, view_transaction

POSTINGS_MAX = 20
SystemAccount = Literal["system:issuer", "system:merchant", "system:cash", "system:breakage", "system:exchange"]
SignedAmount = Annotated[
    int,
    Meta(
        ge=-AMOUNT_MAX,
        le=AMOUNT_MAX,
        description="Signed minor units: positive for value that arrives, negative for value that leaves; not 0.",
        examples=[-500],
        extra_json_schema={"not": {"const": 0}},
    ),
]


TransactionKind = Literal[
    "transaction", "exchange", "transfer", "adjustment", "conversion", "donation", "fee", "payment", "payout", "purchase", "sale", "split",
]  # fmt: skip
"""Kinds that callers can give to a transaction of several postings."""


class PostingCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Change of one wallet, or of one system account in one asset."""

    amount: SignedAmount
    """Signed change in minor units; not 0."""
    wallet: WalletId | None = None
    """Id of the wallet. Each wallet occurs once in a transaction."""
    account: SystemAccount | None = None
    """System account, instead of a wallet."""
    asset: AssetCode | None = None
    """Code of the asset. Required for a system account; a wallet has its own."""


class TransactionCreate(Struct, frozen=True, forbid_unknown_fields=True):
    """Postings to apply together or not at all. Those of each asset add up to 0, or all have the same sign."""

    postings: Annotated[list[PostingCreate], Meta(min_length=2, max_length=POSTINGS_MAX)]
    """Changes of wallets and system accounts."""
    kind: TransactionKind = "transaction"
    """Kind of the transaction and of its entries."""
    reason: Reason | None = None
    """Reason in the caller's words. It is kept permanently, so it must not contain personal data."""
    reference: Reference | None = None
    """The caller's own name of the business fact, unique per member: that of the first wallet that is debited or, without one, credited. It is
    kept permanently, so it must not contain personal data."""
    metadata: Metadata = {}
    """Up to 20 texts by name. They are kept permanently, so they must not contain personal data."""
    effective_at: EffectiveAt | None = None
    """Time at which the fact happened, RFC 3339 with an offset; null for now. Not in the future, at most 10 years ago."""


class PostingView(Struct, frozen=True):
    """Change of a wallet, and the wallet right after the transaction."""

    wallet: str
    """Id of the wallet."""
    asset: str
    """Code of the asset."""
    amount: int
    """Signed change in minor units."""
    balance: int
    """Balance after the transaction, in minor units."""
    available: int
    """Value that can be spent after the transaction, in minor units."""
    seq: int
    """Number of the wallet's newest entry of the transaction."""


class SystemPostingView(Struct, frozen=True):
    """Change of a system account in one asset."""

    account: str
    """Name of the system account."""
    asset: str
    """Code of the asset."""
    amount: int
    """Signed change in minor units."""


class PostedTransaction(Struct, frozen=True):
    """A transaction of several postings, and its wallets right after it."""

    id: str
    """Id of the transaction."""
    kind: str
    """Kind of the transaction and of its entries."""
    postings: list[PostingView]
    """Changes of wallets, in the order of the request."""
    accounts: list[SystemPostingView]
    """Changes of system accounts, including what `system:exchange` balances. With those of the wallets they add up to 0 for each asset."""
    reference: str | None
    """The caller's own name of the business fact, or null."""
    reason: str | None
    """Reason in the caller's words, or null."""
    metadata: dict[str, str]
    """The caller's texts by name."""
    created_at: str
    """Time of the transaction, RFC 3339 in UTC."""
    effective_at: str | UnsetType = UNSET
    """Time at which the fact happened, RFC 3339 in UTC, if the request stated it."""


class TransactionDetails(TransactionView, frozen=True):
    """A transaction, and its wallets right after it. `wallet`, `amount` and `balance` are those of its first entry.

    A member sees the entries of their own wallets only.
    """

    postings: list[PostingView] | UnsetType = UNSET
    """Changes of wallets, if the transaction has several postings."""
    accounts: list[SystemPostingView] | UnsetType = UNSET
    """Changes of system accounts, if the transaction has several postings."""


def view_postings(entries: Sequence[Entry], wallets: Sequence[str] = ()) -> list[PostingView]:
    """Return the change of each wallet: in the order of `wallets`, then of the entries."""
    amounts = dict.fromkeys(wallets, 0)
    last: dict[str, Entry] = {}
    for entry in entries:
        amounts[entry.account] = amounts.get(entry.account, 0) + entry.amount
        last[entry.account] = entry
    return [
        PostingView(wallet, entry.asset, amount, entry.balance_after, max(entry.available_after, 0), entry.seq)
        for wallet, amount in amounts.items()
        if (entry := last.get(wallet)) is not None
    ]


def view_accounts(entries: Sequence[Entry]) -> list[SystemPostingView]:
    """Return the change of each system account in each asset. It is the other side of the entries that name the account."""
    amounts: dict[tuple[str, str], int] = {}
    for entry in entries:
        if entry.counterparty.startswith(SYSTEM):
            side = (entry.counterparty, entry.asset)
            amounts[side] = amounts.get(side, 0) - entry.amount
    return [SystemPostingView(account, asset, amount) for (account, asset), amount in amounts.items()]


def view_posted(entries: Sequence[Entry], wallets: Sequence[str] = ()) -> PostedTransaction:
    """Return the view of a transaction. It depends on the stored entries only, so a replay returns the bytes of the first answer."""
    first = entries[0]
    return PostedTransaction(
        id=first.transaction_id,
        kind=first.kind,
        postings=view_postings(entries, wallets),
        accounts=view_accounts(entries),
        reference=first.reference,
        reason=first.reason,
        metadata=first.metadata,
        created_at=rfc3339(first.at),
        effective_at=UNSET if first.effective_at is None else rfc3339(first.effective_at),
    )


def view_details(entries: Sequence[Entry], *, several: bool) -> TransactionDetails:
    """Return the view of a transaction by the first of these entries, with the postings of all of them if it has several."""
    view = view_transaction(entries[0])
    fields = {name: getattr(view, name) for name in TransactionView.__struct_fields__}
    if not several:
        return TransactionDetails(**fields)
    return TransactionDetails(**fields, postings=view_postings(entries), accounts=view_accounts(entries))
