"""What the ledger stores, and the words in which other rooms ask it to write."""

import hashlib
import zlib
from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from guerdon.errors import GuerdonError
from guerdon.ids import digest
from guerdon.money import BALANCE_CEILING

Status = Literal["open", "frozen", "closed"]
GENESIS = bytes(32)
"""`prev` of the first entry of every account."""
SEQ_DIGITS = 12
REFUSAL = "refusal#"
SYSTEM = "system:"
"""Prefix of the unguarded accounts on the other side of a posting; their balances are projections, never rows."""

ISSUER, MERCHANT, CASH = SYSTEM + "issuer", SYSTEM + "merchant", SYSTEM + "cash"


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
    floor: int = 0
    ceiling: int = BALANCE_CEILING
    seq: int = 0
    head: bytes = GENESIS
    """`hash` of the newest entry; the anchor that shows a cut-off tail."""
    status: Status = "open"
    opened_at: int = 0

    @property
    def available(self) -> int:
        return self.balance - self.held


class Entry(Struct, frozen=True):
    """One change of one account, never altered afterwards. `amount` is signed minor units."""

    id: str = field(name="_id")
    """`{account}#{seq}` with twelve digits: history is a range scan, and a second change number `seq` cannot be inserted."""
    owner: str
    asset: str
    transaction: str
    kind: str
    amount: int
    balance_after: int
    held_after: int
    counter: str
    """The account on the other side: a system account, or the other wallet of a transfer."""
    actor: str
    at: int
    """Milliseconds since the epoch."""
    prev: bytes
    hash: bytes
    reason: str | None = None
    reference: str | None = None
    key: str | None = None
    fingerprint: bytes | None = None
    """Digest of the request that `key` belongs to; it tells a retry from a reuse."""
    metadata: dict[str, str] = {}
    once: list[bytes] | None = None
    """What must never happen again for this owner: the key, the reference. Only a transaction's first entry carries it."""

    @property
    def account(self) -> str:
        return self.id[: -SEQ_DIGITS - 1]

    @property
    def seq(self) -> int:
        return int(self.id[-SEQ_DIGITS:])

    @property
    def available_after(self) -> int:
        return self.balance_after - self.held_after


_canonical = msgspec.json.Encoder(order="sorted")


def entry_id(account: str, seq: int) -> str:
    return f"{account}#{seq:0{SEQ_DIGITS}d}"


def entry_hash(entry: Entry) -> bytes:
    """SHA-256 over the previous hash and the canonical JSON array of every stored field.

    JSON with sorted keys and no white space, so that any language can check a chain; binary fields go in as hex.
    """
    fingerprint = entry.fingerprint.hex() if entry.fingerprint is not None else None
    once = [mark.hex() for mark in entry.once] if entry.once is not None else None
    body = _canonical.encode((
        entry.id, entry.owner, entry.asset, entry.transaction, entry.kind, entry.amount, entry.balance_after, entry.held_after,
        entry.counter, entry.actor, entry.at, entry.reason, entry.reference, entry.key, fingerprint, entry.metadata, once,
    ))  # fmt: skip
    return hashlib.sha256(entry.prev + body).digest()


def once_mark(owner: str, *parts: str) -> bytes:
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
    marks: tuple[bytes, ...] = ()
    """The key's mark and, if there is a reference, the reference's; made once, because every step of a command asks for them."""

    def __post_init__(self) -> None:
        marks = [once_mark(self.owner, "key", self.actor, self.key)]
        if self.reference is not None:
            marks.append(once_mark(self.owner, "reference", self.reference))
        msgspec.structs.force_setattr(self, "marks", tuple(marks))

    @property
    def key_mark(self) -> bytes:
        return self.marks[0]

    @property
    def reference_mark(self) -> bytes | None:
        return self.marks[1] if len(self.marks) > 1 else None


class Refusal(Struct, frozen=True):
    """A refused command, kept for some days so that its key goes on giving the first answer.

    It lies among the entries and carries the same mark that its success would have carried: the unique index lets only one of the two
    become true, whichever processes they meet in. It is no entry: it has no account, no `seq` and no place in a chain.
    """

    id: str = field(name="_id")
    """`refusal#{mark}`"""
    owner: str
    once: list[bytes]
    fingerprint: bytes
    code: str
    detail: str
    members: dict[str, Any]


class Posting(Struct, frozen=True):
    """Move `amount` (signed minor units) on a guarded account, against `counter`."""

    account: str
    amount: int
    counter: str
    below_floor: bool = False
    """Allow a debt: only clawbacks do."""


class Transaction(Struct, frozen=True):
    """One atomic business fact that a command wants on the ledger. The first posting's entry carries `idempotency`."""

    id: str
    kind: str
    postings: tuple[Posting, ...]
    actor: str
    idempotency: Idempotency | None = None
    reason: str | None = None
    metadata: dict[str, str] = {}


class Decision(Struct, frozen=True):
    """What a command decided: transactions and documents to write (all or none), and an answer of its own."""

    transactions: tuple[Transaction, ...] = ()
    opens: tuple[Account, ...] = ()
    """Accounts to open first if they do not exist yet."""
    inserts: tuple[tuple[str, dict[str, Any]], ...] = ()
    """(collection, document) pairs; the collection's `_id` index decides races between processes."""
    recalled: tuple[Entry, ...] = ()
    """Entries of an earlier run of the same command; nothing is written then."""
    value: object = None


class DocumentRef(Struct, frozen=True):
    """A document that a command reads because it may exist already."""

    collection: str
    id: str
    owner: str


class View:
    """The state a command is judged on: accounts, earlier facts and documents, all of one snapshot; time is an argument."""

    __slots__ = ("accounts", "documents", "now_ms", "once")

    def __init__(
        self,
        accounts: dict[str, Account],
        once: dict[bytes, Entry | Refusal],
        documents: dict[tuple[str, str], dict[str, Any]],
        now_ms: int,
    ) -> None:
        self.accounts: Mapping[str, Account] = accounts
        self.once: Mapping[bytes, Entry | Refusal] = once
        self.documents: Mapping[tuple[str, str], dict[str, Any]] = documents
        self.now_ms = now_ms


class Command(Struct, frozen=True):
    """What may be touched, what may exist already, and a pure `decide` over both.

    `decide` gets a `View` and returns a `Decision`, or raises a `GuerdonError` to refuse. It may run several times.
    """

    owners: tuple[str, ...]
    accounts: tuple[str, ...]
    decide: Callable[[View], Decision]
    marks: tuple[bytes, ...] = ()
    documents: tuple[DocumentRef, ...] = ()
    idempotency: Idempotency | None = None
    """Set when a refusal is to be remembered under the key."""
    size_bytes: int = 512
    """About what it may write; bounds the batch, since one database message holds 16 MiB."""


class Outcome(Struct, frozen=True):
    """What a command did. `replayed` says that an earlier run of the same command did it."""

    entries: tuple[Entry, ...] = ()
    value: object = None
    replayed: bool = False


Verdict = Outcome | GuerdonError
