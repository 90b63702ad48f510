"""Stored structs of the ledger, and the commands and transactions that other packages hand to it."""

import re
import zlib
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Generic, Literal

import msgspec
from msgspec import Struct, field

from guerdon.errors import GuerdonError
from guerdon.ids import digest
from guerdon.money import BALANCE_CEILING

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    T = TypeVar("T", default=None)
    T_co = TypeVar("T_co", covariant=True, default=None)
else:  # Python 3.11 has no defaults for type variables.
    from typing import TypeVar

    T = TypeVar("T")
    T_co = TypeVar("T_co", covariant=True)
"""Type of a command's own answer. Without a parameter, `Command`, `Decision` and `CommandOutcome` have none: their `value` is None."""

Status = Literal["open", "frozen", "closed"]
GENESIS = bytes(32)
"""`prev` of the first entry of every account."""
SEQ_DIGITS = 12
REFUSAL = "refusal#"
SYSTEM = "system:"
"""Prefix of system accounts. They have no row; their balance is the sum of the entries that name them."""

ISSUER, MERCHANT, CASH = SYSTEM + "issuer", SYSTEM + "merchant", SYSTEM + "cash"
BREAKAGE, HOLDS, RULES = SYSTEM + "breakage", SYSTEM + "holds", SYSTEM + "terms"
"""Counterparty of expired value, and the nominal counterparties of entries that move no value."""
EXCHANGE = SYSTEM + "exchange"
"""Counterparty of value that is exchanged for value of another asset."""
COUNTED = SYSTEM + "counted"
"""Counterparty of accounts that count and hold no value: caps, budgets and stocks."""
LOTS_MAX, HOLDS_MAX = 100, 100
"""Maximum number of lots with different dates, and of active holds, in one wallet."""

AWAITING_CONFIRMATION = 253_402_300_799_999
"""`available_at` of value that awaits a confirmation: the last millisecond of the year 9999."""

Source = Literal["paid", "promotional"]
LotDates = tuple[Source, int | None, int | None, int | None]
EntryKind = Literal[
    "credit", "debit", "transfer", "award", "clawback", "confirmation", "hold", "capture", "void", "hold_expiry", "expiry", "settlement",
    "reversal", "transaction", "exchange", "freeze", "unfreeze", "close", "terms", "redeem", "issue", "reserve", "release", "use", "unuse", "load", "cancel",
]  # fmt: skip
"""Every kind of entry that the product writes. A caller chooses others for transactions of several postings. `Entry.kind` is `str`, so
that `guerdon verify` can read and report a row that was tampered with."""


class Lot(Struct, frozen=True, omit_defaults=True):
    """Value with one source and one pair of dates. Lots with the same source and dates are one lot.

    Undated paid value is not listed: it is the rest of the balance.
    """

    amount: int
    """Minor units: the rest on an account, the signed change on an entry, the value set aside on a hold."""
    source: Source = "paid"
    available_at: int | None = None
    """Time from which the value can be spent, in milliseconds; None after it has passed."""
    expires_at: int | None = None
    """Time from which the value is expired, in milliseconds; None for value that does not expire."""
    first_expires_at: int | None = None
    """`expires_at` of value that returned after it, before its first return. None for other value."""

    @property
    def dates(self) -> LotDates:
        return (self.source, self.available_at, self.expires_at, self.first_expires_at)

    @property
    def granted_until(self) -> int | None:
        """The expiry date that the value was granted with."""
        return self.first_expires_at or self.expires_at

    @property
    def awaits_confirmation(self) -> bool:
        """True while the lot awaits confirmation."""
        return self.available_at == AWAITING_CONFIRMATION


class Hold(Struct, frozen=True, omit_defaults=True):
    """Value set aside on an account. Its lots do not expire while they are held."""

    seq: int
    """Number of the entry that made the hold. With the account it identifies the hold."""
    size: int
    """Original amount in minor units."""
    left: int
    """Amount that is still held, in minor units."""
    expires_at: int
    captured: int = 0
    counted_at: int | None = None
    """Time at which it was counted against spending limits; None if there were none."""
    lots: tuple[Lot, ...] = ()
    """Dated part of `left`, in spend order; undated paid value comes last."""


class HoldChange(Struct, frozen=True, omit_defaults=True):
    """Change of a hold by an entry: `change` is the signed change of the held value; the other fields are the hold after it."""

    seq: int
    change: int
    size: int
    left: int
    expires_at: int
    captured: int = 0
    counted_at: int | None = None


class Limits(Struct, frozen=True, omit_defaults=True):
    """Spending limits per calendar day and month of the programme's time zone, in minor units; None means no limit."""

    day: int | None = None
    month: int | None = None


class Spent(Struct, frozen=True, omit_defaults=True):
    """Minor units counted against the limits in a day (`2026-11-22`) and a month (`2026-11`)."""

    day: str
    month: str
    in_day: int = 0
    in_month: int = 0


class AccountRules(Struct, frozen=True, omit_defaults=True):
    """Change of account rules by an entry; None leaves a rule unchanged."""

    status: Status | None = None
    minimum_balance: int | None = field(name="floor", default=None)
    """Stored as `floor`."""
    ceiling: int | None = None
    limits: Limits | None = None


class Account(Struct, frozen=True):
    """A guarded balance. It changes only together with a new entry, so `seq` counts its changes.

    Amounts are minor units of `asset`. `minimum_balance` bounds `balance - held` from below, `ceiling` bounds `balance` from above.
    """

    id: str = field(name="_id")
    owner: str
    asset: str
    kind: str
    balance: int = 0
    held: int = 0
    minimum_balance: int = field(name="floor", default=0)
    """Stored as `floor`."""
    ceiling: int = BALANCE_CEILING
    seq: int = 0
    head: bytes = GENESIS
    """`hash` of the newest entry; it reveals a truncated history."""
    status: Status = "open"
    opened_at: int = 0
    at: int = 0
    """Time of the newest entry. It never decreases, even if the clocks of the processes differ."""
    lots: tuple[Lot, ...] | None = None
    """Dated lots in spend order. None on an account that never had a dated lot, a hold or rules of its own."""
    holds: tuple[Hold, ...] = ()
    limits: Limits | None = None
    spent: Spent | None = None
    due_at: int | None = None
    """Time of the next expiry or debt repayment; the sweeper finds the account by it."""

    @property
    def pending(self) -> int:
        pending = 0
        for lot in self.lots or ():
            if lot.available_at is not None:
                pending += lot.amount
        return pending

    @property
    def undated_balance(self) -> int:
        """Undated paid value in minor units; negative if there is a debt."""
        undated = self.balance - self.held
        for lot in self.lots or ():
            undated -= lot.amount
        return undated

    @property
    def spendable(self) -> int:
        """Minor units that can be spent. Correct only after `expiry.bring_up_to`."""
        return self.balance - self.held - self.minimum_balance - (self.pending if self.lots else 0)


class Entry(Struct, frozen=True):
    """One change of one account. It never changes afterwards."""

    id: str = field(name="_id")
    """`{account}#{seq}` with twelve digits: history is a range scan, and a second change with the same `seq` cannot be inserted."""
    owner: str
    asset: str
    kind: str
    amount: int
    """Signed change of the balance in minor units."""
    balance_after: int
    held_after: int
    counterparty: str = field(name="counter")
    """Counterparty: a system account, or the other wallet of a transfer. Stored as `counter`."""
    actor: str
    at: int
    """Milliseconds since the epoch."""
    prev: bytes
    hash: bytes
    transaction: str | None = None
    """Id of the transaction; None on its first entry, whose position is the id."""
    reason: str | None = None
    reference: str | None = None
    key: str | None = None
    fingerprint: bytes | None = None
    """Digest of the request that `key` belongs to; it distinguishes a retry from a reuse."""
    metadata: dict[str, str] = {}
    unique_keys: list[bytes] | None = field(name="once", default=None)
    """Unique keys: digests of the idempotency key and the reference. Set on the first entry of a transaction. Stored as `once`."""
    pair: int | None = None
    """`seq` of the counterparty's entry, if the counterparty is a guarded account."""
    lots: tuple[Lot, ...] | None = None
    """Dated part of the moved value; the rest is undated paid value. The lots of a capture leave its hold."""
    hold: HoldChange | None = None
    reverses: str | None = None
    terms: AccountRules | None = None
    spent: tuple[int, int] | None = None
    """Change of the spending counters of its day and its month."""
    spendable_after: int | None = None
    """Spendable value after the entry; None if it equals `balance_after - held_after`."""
    attempt: int | None = None
    """Number of the transaction among those with its reference, from 2; None for the first. All before it were undone."""
    evidence: str | None = None
    """Digest of the documents that justify the transaction, in hexadecimal. Set on its first entry; see `guerdon.proofs`."""
    effective_at: int | None = None
    """Time at which the fact happened, in milliseconds, if the caller stated it. `at` and `seq` remain the order of the ledger."""
    sides: tuple[str, ...] | None = None
    """Ids of the other entries of a transaction of several postings, in order. Set on its first entry only."""
    rate: str | None = None
    """Rate and version of an exchange, such as `PTS-GBP/3`."""

    @property
    def available_after(self) -> int:
        return self.balance_after - self.held_after if self.spendable_after is None else self.spendable_after

    @property
    def transaction_id(self) -> str:
        return self.transaction or transaction_id(self.account, self.seq)

    @property
    def account(self) -> str:
        return self.id[: -SEQ_DIGITS - 1]

    @property
    def seq(self) -> int:
        return int(self.id[-SEQ_DIGITS:])


_LOCATED = re.compile(r"(?:txn|hld)_(.{1,100}):([0-9]{1,12})\Z")


def entry_id(account: str, seq: int) -> str:
    return f"{account}#{seq:0{SEQ_DIGITS}d}"


def transaction_id(account: str, seq: int) -> str:
    """Return the id of the transaction whose first entry is number `seq`: it is found without an index of its own."""
    return f"txn_{account}:{seq}"


def hold_id(account: str, seq: int) -> str:
    return f"hld_{account}:{seq}"


def parse_location(name: str) -> tuple[str, int] | None:
    """Return (account, seq) of the id of a transaction or hold, or None for any other text."""
    match = _LOCATED.match(name)
    return (match[1], int(match[2])) if match else None


def unique_key(owner: str, *parts: str) -> bytes:
    """Return the 20 bytes that represent an owner and a key (or reference) in the unique index.

    The first four bytes depend on the owner only. The keys of one owner are adjacent, so a read for 256 owners skips their other entries.
    """
    return zlib.crc32(owner.encode()).to_bytes(4) + digest(owner, *parts)[:16]


def reference_key(owner: str, reference: str, attempt: int | None = None) -> bytes:
    """Return the unique key of a reference. `attempt` is that of the entry."""
    return unique_key(owner, "reference", reference, *(() if attempt is None else (str(attempt),)))


class Idempotency(Struct, frozen=True):
    """Identity of a command: its owner and caller, the idempotency key, and the digest of the request."""

    owner: str
    actor: str
    key: str
    fingerprint: bytes
    reference: str | None = None
    unique_keys: tuple[bytes, ...] = ()
    """Unique key of the idempotency key and, if there is one, of the reference. Computed once, because every step uses it."""

    def __post_init__(self) -> None:
        keys = [unique_key(self.owner, "key", self.actor, self.key)]
        if self.reference is not None:
            keys.append(reference_key(self.owner, self.reference))
        msgspec.structs.force_setattr(self, "unique_keys", tuple(keys))

    @property
    def key_digest(self) -> bytes:
        return self.unique_keys[0]

    @property
    def reference_digest(self) -> bytes | None:
        return self.unique_keys[1] if len(self.unique_keys) > 1 else None


class RecordedRefusal(Struct, frozen=True):
    """A refused command, kept for `REFUSAL_TTL_DAYS` so that its key returns the first answer.

    It is stored among the entries with the unique key that its success would have had, so the unique index admits only one of the two,
    across processes. It is not an entry: it has no account, no `seq` and no position in a chain.
    """

    id: str = field(name="_id")
    """`refusal#{unique key in hexadecimal}`"""
    owner: str
    unique_keys: list[bytes] = field(name="once")
    fingerprint: bytes
    code: str
    detail: str
    members: dict[str, Any]


class Posting(Struct, frozen=True):
    """Change of a guarded account: `amount` (signed minor units) against `counterparty`, or 0 with a hold, a confirmation or rules."""

    account: str
    amount: int
    counterparty: str
    below_minimum: bool = False
    """Allow a debt. Set for clawbacks only."""
    spends: bool = False
    """Count the amount against the spending limits."""
    lots: tuple[Lot, ...] = ()
    """For a credit: its dated part. For a debit: the lots to take first, each with its maximum; they may be pending."""
    keeps_dates: bool = False
    """Give the credited value the dates of the value that the previous posting took."""
    hold: "HoldPosting | None" = None
    confirms: "Confirmation | None" = None
    terms: AccountRules | None = None
    restores_spending: tuple[int, int] = (0, 0)
    """Reduction of the spending counters of the current day and month."""


class HoldPosting(Struct, frozen=True):
    """Change of a hold by a posting: create a hold of `amount` (`seq` 0), or capture or release `amount` of the hold `seq`."""

    amount: int
    seq: int = 0
    expires_at: int = 0
    final: bool = False
    """End the hold with this capture; the rest is released in the same transaction."""


class Confirmation(Struct, frozen=True):
    """Amount of a lot that awaits confirmation and becomes spendable now, and its new expiry, in a posting of amount 0."""

    lot: Lot
    expires_at: int | None


class Transaction(Struct, frozen=True):
    """One atomic business fact to write. The entry of the first posting carries `idempotency`."""

    kind: str
    postings: tuple[Posting, ...]
    actor: str
    idempotency: Idempotency | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}
    reverses: str | None = None
    evidence: str | None = None
    """Digest of the documents that justify it, in hexadecimal."""
    effective_at: int | None = None
    lists_sides: bool = False
    """Store the ids of the other entries on the first one. Each posting of such a transaction makes exactly one entry."""
    rate: str | None = None


class DocumentChange(Struct, frozen=True):
    """Fields to set on a document, which is created if it does not exist.

    A decision that depends on the document must be guarded: by an account that changes in the same commit, or by `counted` and `count`,
    the value of its field `count` as it was read (None if there was no document), which `fields` then increases.
    """

    collection: str
    id: str
    owner: str
    fields: dict[str, Any]
    counted: bool = False
    count: int | None = None


class Decision(Struct, Generic[T_co], frozen=True):
    """Result of `decide`: transactions and documents to write, all or none, and a value for the caller."""

    transactions: tuple[Transaction, ...] = ()
    opens: tuple[Account, ...] = ()
    """Accounts to open first if they do not exist yet."""
    inserts: tuple[tuple[str, dict[str, Any]], ...] = ()
    """(collection, document) pairs to insert; the `_id` index of the collection decides races between processes."""
    changes: tuple[DocumentChange, ...] = ()
    accounts_to_expire: tuple[str, ...] = ()
    """Accounts on which to book expired holds and lots, although nothing else changes on them."""
    replayed: tuple[Entry, ...] = ()
    """Entries of an earlier run of the same command; if set, nothing is written."""
    value: T_co = None  # pyright: ignore[reportAssignmentType]
    """Answer of the command."""


class DocumentRef(Struct, frozen=True):
    """Reference to a document that a command reads; it need not exist."""

    collection: str
    id: str
    owner: str


class View:
    """State that a command is decided on: accounts, recorded entries and refusals, and documents of one snapshot, and the time."""

    __slots__ = ("accounts", "documents", "now_ms", "position", "recorded")

    def __init__(
        self,
        accounts: dict[str, Account],
        recorded: dict[bytes, Entry | RecordedRefusal],
        documents: dict[tuple[str, str], dict[str, Any]],
        now_ms: int,
    ) -> None:
        self.accounts: Mapping[str, Account] = accounts
        self.recorded: Mapping[bytes, Entry | RecordedRefusal] = recorded
        self.documents: Mapping[tuple[str, str], dict[str, Any]] = documents
        self.now_ms = now_ms
        self.position = 0
        """Index of the command in its batch. All commands of a batch have the same time; this is their order."""


class Command(Struct, Generic[T_co], frozen=True):
    """Names of all that a change may read or write, and the pure function that decides it.

    `decide` takes a `View` and returns a `Decision`, or raises a `GuerdonError` to refuse, or `Retry`. It may run several times.
    """

    owners: tuple[str, ...]
    accounts: tuple[str, ...]
    decide: Callable[[View], Decision[T_co]]
    unique_keys: tuple[bytes, ...] = ()
    documents: tuple[DocumentRef, ...] = ()
    idempotency: Idempotency | None = None
    """Set if a refusal is to be recorded under the key."""
    size_bytes: int = 512
    """Estimate of the bytes that it writes; it bounds a batch, because one database message holds 16 MiB."""


class CommandOutcome(Struct, Generic[T_co], frozen=True):
    """Result of a command. `replayed` is true if an earlier run of the same command wrote it."""

    entries: tuple[Entry, ...] = ()
    value: T_co = None  # pyright: ignore[reportAssignmentType]
    replayed: bool = False


CommandResult = CommandOutcome[T] | GuerdonError
