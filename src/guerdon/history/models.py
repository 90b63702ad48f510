"""Wire structs of the history, and their construction from entries."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from guerdon.clock import rfc3339, utc_ms
from guerdon.errors import Validation
from guerdon.ledger.models import Entry, EntryKind, hold_id
from guerdon.transactions.models import TransactionKind
from guerdon.types import EXPECTED, PageQuery, Reference
from guerdon.wallets.models import LotView, WalletState, view_lot, view_wallet

# The query reader would accept a number as seconds since the epoch, which is ambiguous.
Moment = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$(?!\n)",
        extra={EXPECTED: "must be a time such as 2026-01-31T12:00:00Z"},
        examples=["2026-01-31T12:00:00Z"],
    ),
]


def moment_ms(moment: str, name: str) -> int:
    """Return milliseconds since the epoch.

    Raises:
        Validation: The time does not exist; `name` is the name of the parameter.
    """
    try:
        return utc_ms(msgspec.convert(moment, datetime), name)
    except msgspec.ValidationError:
        raise Validation.at(name, "the time does not exist") from None


# --- entries --------------------------------------------------------------------------------------------------------


class EntryView(Struct, frozen=True):
    """One change of a wallet."""

    id: str
    """Id of the entry, `{wallet}#{seq}`."""
    transaction_id: str
    """Id of the transaction that the entry belongs to."""
    kind: str
    """Kind of the entry, such as `debit`."""
    amount: int
    """Signed change of the balance in minor units."""
    balance_after: int
    """Balance after the entry, in minor units."""
    held_after: int
    """Held value after the entry, in minor units."""
    seq: int
    """Number of the entry, from 1 without gaps."""
    counter: str
    """Counterparty: a system account such as `system:issuer`, or the other wallet of a transfer."""
    reference: str | None
    """The caller's own name of the business fact, or null."""
    reason: str | None
    """Reason in the caller's words, or null."""
    metadata: dict[str, str]
    """The caller's texts by name."""
    hash: str
    """SHA-256 of the entry in hexadecimal; it includes the hash of the entry before."""
    created_at: str
    """Time of the entry, RFC 3339 in UTC."""
    lots: list[LotView] | UnsetType = UNSET
    """Dated part of the change, signed like the available value: value that left the wallet or was held is negative."""
    hold: str | UnsetType = UNSET
    """Id of the hold that the entry changed."""
    reverses: str | UnsetType = UNSET
    """Id of the transaction that the entry reverses."""
    effective_at: str | UnsetType = UNSET
    """Time at which the fact happened, RFC 3339 in UTC, if the request stated it."""
    rate: str | UnsetType = UNSET
    """Rate and version of an exchange, such as `PTS-GBP/3`."""


class EntryPage(Struct, frozen=True):
    """Entries, newest first. With the filter `kind` or an effective time, a page may have fewer than `limit` items and still a `next_cursor`."""

    items: list[EntryView]
    """Entries, newest first."""
    next_cursor: str | None
    """Cursor of the next page; null on the last page."""


class EntryQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filters of a wallet's entries."""

    kind: Literal[EntryKind, TransactionKind] | None = None
    """Return entries of this kind only."""
    since: Moment | None = field(default=None, name="from")
    """Return entries at or after this time, RFC 3339 with an offset."""
    until: Moment | None = field(default=None, name="to")
    """Return entries before this time, RFC 3339 with an offset."""
    reference: Reference | None = None
    """Return the entry with exactly this reference."""
    effective_from: Moment | None = None
    """Return entries whose effective time is at or after this time, RFC 3339 with an offset. Without one, an entry's own time counts."""
    effective_to: Moment | None = None
    """Return entries whose effective time is before this time, RFC 3339 with an offset."""


def view_entry(entry: Entry) -> EntryView:
    return EntryView(
        id=entry.id,
        transaction_id=entry.transaction_id,
        kind=entry.kind,
        amount=entry.amount,
        balance_after=entry.balance_after,
        held_after=entry.held_after,
        seq=entry.seq,
        counter=entry.counterparty,
        reference=entry.reference,
        reason=entry.reason,
        metadata=entry.metadata,
        hash=entry.hash.hex(),
        created_at=rfc3339(entry.at),
        lots=UNSET if not entry.lots else [replace(view_lot(lot), amount=lot.amount) for lot in entry.lots],
        hold=UNSET if entry.hold is None else hold_id(entry.account, entry.hold.seq),
        reverses=UNSET if entry.reverses is None else entry.reverses,
        effective_at=UNSET if entry.effective_at is None else rfc3339(entry.effective_at),
        rate=UNSET if entry.rate is None else entry.rate,
    )


# --- balance --------------------------------------------------------------------------------------------------------


class BalanceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Time of a balance."""

    at: Moment | None = None
    """Time of the balance, RFC 3339 with an offset; now if absent."""


class BalanceView(Struct, frozen=True):
    """A wallet as it was booked at a time."""

    wallet: str
    """Id of the wallet."""
    asset: str
    """Code of the asset."""
    at: str
    """Time of the balance, RFC 3339 in UTC."""
    balance: int
    """Balance in minor units, including entries at that time."""
    held: int
    """Held value in minor units."""
    seq: int
    """Number of the newest entry at that time; 0 before the first entry."""
    entry_created_at: str | None
    """Time of that entry, RFC 3339 in UTC; null before the first entry."""


# --- statements -----------------------------------------------------------------------------------------------------


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """Format of a statement."""

    format: Literal["json", "csv"] = "json"
    """`json`, or `csv` for spreadsheets."""


class StatementPoint(Struct, frozen=True):
    """A wallet at the beginning or the end of a month."""

    balance: int
    """Balance in minor units."""
    held: int
    """Held value in minor units."""
    seq: int
    """Number of the newest entry at that time; 0 before the first entry."""


class KindTotal(Struct, frozen=True):
    """Totals of the entries of one kind in a month."""

    kind: str
    """Kind of the entries."""
    count: int
    """Number of entries."""
    inflow: int = field(name="in")
    """Sum of the amounts that increased the balance, in minor units."""
    outflow: int = field(name="out")
    """Sum of the amounts that decreased the balance, in minor units."""


class StatementHead(Struct, frozen=True):
    """A wallet's month in the programme's time zone."""

    wallet: str
    """Id of the wallet."""
    asset: str
    """Code of the asset."""
    month: str
    """Month, such as `2026-11`."""
    time_zone: str
    """IANA name of the programme's time zone."""
    starts_at: str
    """First millisecond of the month, RFC 3339 in UTC."""
    ends_at: str
    """First millisecond of the next month, RFC 3339 in UTC."""
    complete: bool
    """False while entries can still be added to the month."""
    opening: StatementPoint
    """The wallet before the first entry of the month."""


class StatementView(StatementHead, frozen=True):
    """A wallet's month: the balance of `opening` plus all `in` minus all `out` equals that of `closing`.

    The document is sent while it is read. `closing` comes last; a document without it is incomplete.
    """

    entries: list[EntryView]
    """Entries of the month, oldest first."""
    totals: list[KindTotal]
    """Totals by kind."""
    closing: StatementPoint
    """The wallet after the last entry of the month."""


class Statement(Struct, frozen=True):
    """Data of a statement: the entries `first` to `last`, and those with its opening and closing balance."""

    wallet: str
    owner: str
    asset: str
    month: str
    time_zone: str
    starts_ms: int
    ends_ms: int
    complete: bool
    first: int
    last: int
    opening: Entry | None
    closing: Entry | None


def view_point(entry: Entry | None) -> StatementPoint:
    return StatementPoint(0, 0, 0) if entry is None else StatementPoint(entry.balance_after, entry.held_after, entry.seq)


def view_head(statement: Statement) -> StatementHead:
    return StatementHead(
        wallet=statement.wallet,
        asset=statement.asset,
        month=statement.month,
        time_zone=statement.time_zone,
        starts_at=rfc3339(statement.starts_ms),
        ends_at=rfc3339(statement.ends_ms),
        complete=statement.complete,
        opening=view_point(statement.opening),
    )


# --- streams --------------------------------------------------------------------------------------------------------


class BalanceEvent(Struct, frozen=True):
    """The wallet at the start of a stream."""

    balance: int
    """Balance in minor units."""
    held: int
    """Value set aside by active holds, in minor units."""
    available: int
    """Value that can be spent now, in minor units."""
    seq: int
    """Number of the wallet's newest entry."""
    status: str
    """`open`, `frozen` or `closed`."""
    reset: bool
    """True if entries were skipped because too many were missed."""


class EntryEvent(Struct, frozen=True):
    """A new entry, and the wallet right after it."""

    balance: int
    """Balance after the entry, in minor units."""
    held: int
    """Held value after the entry, in minor units."""
    available: int
    """Value that can be spent after the entry, in minor units."""
    seq: int
    """Number of the entry."""
    entry: EntryView
    """The entry."""


def balance_event(state: WalletState, *, reset: bool) -> BalanceEvent:
    view = view_wallet(state)
    return BalanceEvent(view.balance, view.held, view.available, view.seq, view.status, reset)


def entry_event(entry: Entry) -> EntryEvent:
    return EntryEvent(entry.balance_after, entry.held_after, max(entry.available_after, 0), entry.seq, view_entry(entry))
