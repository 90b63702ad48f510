"""Wire shapes of history, and how they are made of entries."""

from datetime import datetime
from typing import Annotated, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType, field
from msgspec.structs import replace

from guerdon.clock import rfc3339, utc_ms
from guerdon.errors import Validation
from guerdon.ledger.models import Entry, hold_id
from guerdon.types import PageQuery, Reference
from guerdon.wallets.models import LotView, WalletState, view_lot, view_wallet

# The query reader would take a bare number for seconds since the epoch; what is meant by one is anybody's guess.
Moment = Annotated[
    str,
    Meta(
        pattern=r"^[0-9]{4}-[0-9]{2}-[0-9]{2}[Tt ][0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,9})?([Zz]|[+-][0-9]{2}:[0-9]{2})$(?!\n)",
        examples=["2026-01-31T12:00:00Z"],
    ),
]


def moment_ms(moment: str, name: str) -> int:
    """Milliseconds since the epoch.

    Raises:
        Validation: there is no such time; `name` is the parameter's.
    """
    try:
        return utc_ms(msgspec.convert(moment, datetime), name)
    except msgspec.ValidationError:
        raise Validation.at(name, "there is no such time") from None


# --- entries --------------------------------------------------------------------------------------------------------


class EntryView(Struct, frozen=True):
    """One change of a wallet; `amount` is signed."""

    id: str
    transaction_id: str
    kind: str
    amount: int
    balance_after: int
    held_after: int
    seq: int
    counter: str
    reference: str | None
    reason: str | None
    metadata: dict[str, str]
    hash: str
    created_at: str
    lots: list[LotView] | UnsetType = UNSET
    """The dated part of what moved, signed like what is available: what left the wallet or was held is negative."""
    hold: str | UnsetType = UNSET
    reverses: str | UnsetType = UNSET


class EntryPage(Struct, frozen=True):
    """Entries, newest first. With `kind` a page may hold fewer than `limit`, or none, and still have a `next_cursor`."""

    items: list[EntryView]
    next_cursor: str | None


class EntryQuery(PageQuery, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Filters: `kind`; `from` (inclusive) to `to` (exclusive) in RFC 3339 with an offset; the exact `reference`."""

    kind: Annotated[str, Meta(min_length=1, max_length=20, pattern=r"^[a-z_]+$(?!\n)")] | None = None
    since: Moment | None = field(default=None, name="from")
    until: Moment | None = field(default=None, name="to")
    reference: Reference | None = None


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
    )


# --- balance --------------------------------------------------------------------------------------------------------


class BalanceQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """The moment, in RFC 3339 with an offset; if absent, now."""

    at: Moment | None = None


class BalanceView(Struct, frozen=True):
    """A wallet as it was booked at a moment. `seq` is the newest entry of that moment; 0 before there was one."""

    wallet: str
    asset: str
    at: str
    balance: int
    held: int
    seq: int
    entry_created_at: str | None


# --- statements -----------------------------------------------------------------------------------------------------


class StatementQuery(Struct, frozen=True, forbid_unknown_fields=True):
    """`json`, or `csv` for spreadsheets."""

    format: Literal["json", "csv"] = "json"


class StatementPoint(Struct, frozen=True):
    """A wallet at the beginning or the end of a month; `seq` is the newest entry then."""

    balance: int
    held: int
    seq: int


class KindTotal(Struct, frozen=True):
    """How many entries of one kind a month has, and the sums of what they brought in and took out."""

    kind: str
    count: int
    inflow: int = field(name="in")
    outflow: int = field(name="out")


class StatementHead(Struct, frozen=True):
    """A wallet's month in the programme's time zone. `complete` is false as long as entries can still be added to it."""

    wallet: str
    asset: str
    month: str
    time_zone: str
    starts_at: str
    ends_at: str
    complete: bool
    opening: StatementPoint


class StatementView(StatementHead, frozen=True):
    """A wallet's month: `opening` plus all `in` minus all `out` is `closing`. Entries are oldest first.

    It is sent while it is read, so `closing` comes last; a document without it was cut off.
    """

    entries: list[EntryView]
    totals: list[KindTotal]
    closing: StatementPoint


class Statement(Struct, frozen=True):
    """What a statement is made of: the entries `first` to `last`, and the ones that give its opening and closing balance."""

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
    """The wallet now. `reset` says that entries were skipped: too many had been missed to send them one by one."""

    balance: int
    held: int
    available: int
    seq: int
    status: str
    reset: bool


class EntryEvent(Struct, frozen=True):
    """One entry, and the wallet right after it."""

    balance: int
    held: int
    available: int
    seq: int
    entry: EntryView


def balance_event(state: WalletState, *, reset: bool) -> BalanceEvent:
    view = view_wallet(state)
    return BalanceEvent(view.balance, view.held, view.available, view.seq, view.status, reset)


def entry_event(entry: Entry) -> EntryEvent:
    return EntryEvent(entry.balance_after, entry.held_after, max(entry.available_after, 0), entry.seq, view_entry(entry))
