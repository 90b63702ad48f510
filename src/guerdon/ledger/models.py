"""What the ledger stores, and the words in which other rooms ask it to write."""

import hashlib
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
"""Prefix of the unguarded accounts on the other side of a posting; their balances are projections, never rows."""

ISSUER, MERCHANT, CASH = SYSTEM + "issuer", SYSTEM + "merchant", SYSTEM + "cash"
BREAKAGE, HOLDS, RULES = SYSTEM + "breakage", SYSTEM + "holds", SYSTEM + "terms"
"""Where lapsed value goes, and the nominal other side of entries that move no value."""
COUNTED = SYSTEM + "counted"
"""The other side of accounts that hold no value and only count: what a cap or a budget has been used for."""
LOTS_MAX, HOLDS_MAX = 100, 100
"""Lots of different dates in one wallet, and active holds on it; what comes on top is refused."""

AWAITING_CONFIRMATION = 253_402_300_799_999
"""`available_at` of value that waits to be confirmed, the last millisecond of the year 9999: nothing but a confirmation makes it spendable."""

Source = Literal["paid", "promotional"]


class Lot(Struct, frozen=True, omit_defaults=True):
    """Value of one source with one pair of dates. Two lots with the same source and dates are one lot.

    On an account `amount` is what is left of it; on an entry it is the signed change; on a hold it is what was set aside. Undated paid
    value is never listed: it is the rest of the balance.
    """

    amount: int
    source: Source = "paid"
    available_at: int | None = None
    """Spendable from this millisecond on; None once it has passed."""
    expires_at: int | None = None
    """Lapsed from this millisecond on."""

    @property
    def dates(self) -> tuple[Source, int | None, int | None]:
        return (self.source, self.available_at, self.expires_at)

    @property
    def awaits_confirmation(self) -> bool:
        """Whether it is to be confirmed."""
        return self.available_at == AWAITING_CONFIRMATION


class Hold(Struct, frozen=True, omit_defaults=True):
    """Value set aside on an account. While it is held its lots do not lapse."""

    seq: int
    """The entry that made it; with the account it is the hold's id."""
    size: int
    left: int
    expires_at: int
    captured: int = 0
    counted_at: int | None = None
    """When it was counted against the spending limits; None when there were none."""
    lots: tuple[Lot, ...] = ()
    """The dated part of `left`, in spend order; undated paid value comes last."""


class HoldChange(Struct, frozen=True, omit_defaults=True):
    """What an entry did to a hold: `change` is the signed change of what is held; the rest is the hold right after."""

    seq: int
    change: int
    size: int
    left: int
    expires_at: int
    captured: int = 0
    counted_at: int | None = None


class Limits(Struct, frozen=True, omit_defaults=True):
    """What may be spent in a calendar day and month of the programme's time zone; None is no limit."""

    day: int | None = None
    month: int | None = None


class Spent(Struct, frozen=True, omit_defaults=True):
    """What counted against the limits in the current day (`2026-11-22`) and month (`2026-11`)."""

    day: str
    month: str
    in_day: int = 0
    in_month: int = 0


class AccountRules(Struct, frozen=True, omit_defaults=True):
    """The rules of an account as an entry has changed them; None leaves a rule as it was."""

    status: Status | None = None
    minimum_balance: int | None = field(name="floor", default=None)
    """Stored as `floor`."""
    ceiling: int | None = None
    limits: Limits | None = None


class Account(Struct, frozen=True):
    """A guarded balance. It changes only together with a new entry of its own, so `seq` counts its changes.

    Amounts are minor units of `asset`; `floor` and `ceiling` bound `balance - held` and `balance`.
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
    """`hash` of the newest entry; the anchor that shows a cut-off tail."""
    status: Status = "open"
    opened_at: int = 0
    at: int = 0
    """Time of the newest entry. Time never runs backwards on an account, whatever the clocks of the processes say."""
    lots: tuple[Lot, ...] | None = None
    """In spend order. None: it has never had a dated lot, a hold or terms of its own, so its row need not carry them."""
    holds: tuple[Hold, ...] = ()
    limits: Limits | None = None
    spent: Spent | None = None
    due_at: int | None = None
    """When something on it lapses next; the sweeper finds the account by it."""

    @property
    def pending(self) -> int:
        return sum(lot.amount for lot in self.lots or () if lot.available_at is not None)

    @property
    def undated_balance(self) -> int:
        """Undated paid value; negative where there is a debt."""
        return self.balance - self.held - sum(lot.amount for lot in self.lots or ())

    @property
    def spendable(self) -> int:
        """What may be taken, down to the floor. Only right for an account that `due.bring_up_to` has brought to the present."""
        return self.balance - self.held - self.minimum_balance - (self.pending if self.lots else 0)


class Entry(Struct, frozen=True):
    """One change of one account, never altered afterwards. `amount` is signed minor units."""

    id: str = field(name="_id")
    """`{account}#{seq}` with twelve digits: history is a range scan, and a second change number `seq` cannot be inserted."""
    owner: str
    asset: str
    kind: str
    amount: int
    balance_after: int
    held_after: int
    counterparty: str = field(name="counter")
    """The account on the other side: a system account, or the other wallet of a transfer. Stored as `counter`."""
    actor: str
    at: int
    """Milliseconds since the epoch."""
    prev: bytes
    hash: bytes
    transaction: str | None = None
    """The transaction that this entry is a further side of; its first entry does not say it, since its own place is the id."""
    reason: str | None = None
    reference: str | None = None
    key: str | None = None
    fingerprint: bytes | None = None
    """Digest of the request that `key` belongs to; it tells a retry from a reuse."""
    metadata: dict[str, str] = {}
    unique_keys: list[bytes] | None = field(name="once", default=None)
    """What must never happen again for this owner: the key, the reference. Only a transaction's first entry carries it."""
    pair: int | None = None
    """`seq` of the other side, where `counter` is a guarded account."""
    lots: tuple[Lot, ...] | None = None
    """The dated part of what moved; the rest is undated paid value. A capture's lots come out of its hold."""
    hold: HoldChange | None = None
    reverses: str | None = None
    terms: AccountRules | None = None
    spent: tuple[int, int] | None = None
    """By how much it counts against the limits of its day and its month."""
    spendable_after: int | None = None
    """Where it is not simply `balance_after - held_after`: a part is pending, or the floor is not zero."""

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


_canonical = msgspec.json.Encoder(order="sorted")
_LOCATED = re.compile(r"(?:txn|hld)_(.{1,100}):([0-9]{1,12})\Z")


def entry_id(account: str, seq: int) -> str:
    return f"{account}#{seq:0{SEQ_DIGITS}d}"


def transaction_id(account: str, seq: int) -> str:
    """A transaction is named by the place of its first entry: it is found, and routed to its shard, without an index of its own."""
    return f"txn_{account}:{seq}"


def hold_id(account: str, seq: int) -> str:
    return f"hld_{account}:{seq}"


def parse_location(name: str) -> tuple[str, int] | None:
    """Return (account, seq) of a transaction's or hold's id, or None when it is not one."""
    match = _LOCATED.match(name)
    return (match[1], int(match[2])) if match else None


def entry_hash(entry: Entry) -> bytes:
    """SHA-256 over the previous hash and the canonical JSON array of every stored field.

    JSON with sorted keys and no white space, so that any language can check a chain; binary fields go in as hex.
    """
    fingerprint = entry.fingerprint.hex() if entry.fingerprint is not None else None
    once = [mark.hex() for mark in entry.unique_keys] if entry.unique_keys is not None else None
    body = (
        entry.id, entry.owner, entry.asset, entry.transaction, entry.kind, entry.amount, entry.balance_after, entry.held_after,
        entry.counterparty, entry.actor, entry.at, entry.reason, entry.reference, entry.key, fingerprint, entry.metadata, once,
    )  # fmt: skip
    more = {name: value for name in _RARE if (value := getattr(entry, name)) is not None}
    return hashlib.sha256(entry.prev + _canonical.encode((*body, more) if more else body)).digest()


_RARE = ("pair", "lots", "hold", "reverses", "terms", "spent", "spendable_after")
"""Fields that few entries have; together they are one last object of the hashed array, and nothing where none is set."""


def unique_key(owner: str, *parts: str) -> bytes:
    """Return the 20 bytes that stand for "this owner, this key" (or reference) in the unique index.

    The first four bytes depend on the owner alone: the marks of one owner lie together, so a read for 256 owners at once jumps
    over an owner's other entries instead of walking them.
    """
    return zlib.crc32(owner.encode()).to_bytes(4) + digest(owner, *parts)[:16]


class Idempotency(Struct, frozen=True):
    """Whose command this is and how to know it again: the idempotency key and the digest of the request."""

    owner: str
    actor: str
    key: str
    fingerprint: bytes
    reference: str | None = None
    unique_keys: tuple[bytes, ...] = ()
    """The key's mark and, if there is a reference, the reference's; made once, because every step of a command asks for them."""

    def __post_init__(self) -> None:
        marks = [unique_key(self.owner, "key", self.actor, self.key)]
        if self.reference is not None:
            marks.append(unique_key(self.owner, "reference", self.reference))
        msgspec.structs.force_setattr(self, "unique_keys", tuple(marks))

    @property
    def key_digest(self) -> bytes:
        return self.unique_keys[0]

    @property
    def reference_digest(self) -> bytes | None:
        return self.unique_keys[1] if len(self.unique_keys) > 1 else None


class RecordedRefusal(Struct, frozen=True):
    """A refused command, kept for some days so that its key goes on giving the first answer.

    It lies among the entries and carries the same mark that its success would have carried: the unique index lets only one of the two
    become true, whichever processes they meet in. It is no entry: it has no account, no `seq` and no place in a chain.
    """

    id: str = field(name="_id")
    """`refusal#{mark}`"""
    owner: str
    unique_keys: list[bytes] = field(name="once")
    fingerprint: bytes
    code: str
    detail: str
    members: dict[str, Any]


class Posting(Struct, frozen=True):
    """Move `amount` (signed minor units) on a guarded account, against `counter`; or change its holds or terms, with amount 0."""

    account: str
    amount: int
    counterparty: str
    below_minimum: bool = False
    """Allow a debt: only clawbacks do."""
    spends: bool = False
    """Counts against the spending limits."""
    lots: tuple[Lot, ...] = ()
    """What arrives: its dated part. What leaves: where to take it first, at most so much of each; pending lots too."""
    keeps_dates: bool = False
    """What arrives has the dates of what the posting before has taken."""
    hold: "HoldPosting | None" = None
    confirms: "Confirmation | None" = None
    terms: AccountRules | None = None
    restores_spending: tuple[int, int] = (0, 0)
    """By how much it gives back to the spending limits of this day and month."""


class HoldPosting(Struct, frozen=True):
    """What a posting does to a hold: makes one (`seq` 0) of `amount`, or captures or releases so much of the hold `seq`."""

    amount: int
    seq: int = 0
    expires_at: int = 0
    final: bool = False
    """The last capture of this hold: its answer says that nothing is left, since the rest is released with it."""


class Confirmation(Struct, frozen=True):
    """What a posting of amount 0 makes spendable at once: so much of a lot that waits, which then lapses at `expires_at`."""

    lot: Lot
    expires_at: int | None


class Transaction(Struct, frozen=True):
    """One atomic business fact that a command wants on the ledger. The first posting's entry carries `idempotency`."""

    kind: str
    postings: tuple[Posting, ...]
    actor: str
    idempotency: Idempotency | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}
    reverses: str | None = None


class DocumentChange(Struct, frozen=True):
    """Fields to set on a document, which is made if it does not exist.

    What was read of it must be guarded: by an account that moves in the same commit, or by `count`, the field of this name as it was
    read (None: there was no document). `fields` then moves it on.
    """

    collection: str
    id: str
    owner: str
    fields: dict[str, Any]
    counted: bool = False
    count: int | None = None


class Decision(Struct, Generic[T_co], frozen=True):
    """Result of deciding a command: transactions and documents to write (all or none), and the command's own answer."""

    transactions: tuple[Transaction, ...] = ()
    opens: tuple[Account, ...] = ()
    """Accounts to open first if they do not exist yet."""
    inserts: tuple[tuple[str, dict[str, Any]], ...] = ()
    """(collection, document) pairs; the collection's `_id` index decides races between processes."""
    changes: tuple[DocumentChange, ...] = ()
    books_expired: tuple[str, ...] = ()
    """Accounts on which to book what has lapsed, though nothing else moves on them."""
    replayed: tuple[Entry, ...] = ()
    """Entries of an earlier run of the same command; nothing is written then."""
    value: T_co = None  # pyright: ignore[reportAssignmentType]
    """The command's own answer."""


class DocumentRef(Struct, frozen=True):
    """A document that a command reads because it may exist already."""

    collection: str
    id: str
    owner: str


class View:
    """The state a command is judged on: accounts, earlier facts and documents, all of one snapshot; time is an argument."""

    __slots__ = ("accounts", "documents", "now_ms", "position", "recorded")

    def __init__(
        self,
        accounts: dict[str, Account],
        once: dict[bytes, Entry | RecordedRefusal],
        documents: dict[tuple[str, str], dict[str, Any]],
        now_ms: int,
    ) -> None:
        self.accounts: Mapping[str, Account] = accounts
        self.recorded: Mapping[bytes, Entry | RecordedRefusal] = once
        self.documents: Mapping[tuple[str, str], dict[str, Any]] = documents
        self.now_ms = now_ms
        self.position = 0
        """Which command of its batch is being decided: those of one batch are of one moment, and this is their order."""


class Command(Struct, Generic[T_co], frozen=True):
    """What may be touched, what may exist already, and a pure `decide` over both.

    `decide` gets a `View` and returns a `Decision`, or raises a `GuerdonError` to refuse, or `Retry`. It may run several times.
    """

    owners: tuple[str, ...]
    accounts: tuple[str, ...]
    decide: Callable[[View], Decision[T_co]]
    unique_keys: tuple[bytes, ...] = ()
    documents: tuple[DocumentRef, ...] = ()
    idempotency: Idempotency | None = None
    """Set when a refusal is to be remembered under the key."""
    size_bytes: int = 512
    """About what it may write; bounds the batch, since one database message holds 16 MiB."""


class CommandOutcome(Struct, Generic[T_co], frozen=True):
    """Entries that a command wrote, and its own answer. `replayed` is true when an earlier run of the same command wrote them."""

    entries: tuple[Entry, ...] = ()
    value: T_co = None  # pyright: ignore[reportAssignmentType]
    replayed: bool = False


CommandResult = CommandOutcome[T] | GuerdonError
