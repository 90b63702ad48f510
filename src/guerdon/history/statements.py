"""Statements as JSON or CSV, encoded while the entries are read, so that a month of any size takes the memory of one batch."""

import csv
import io
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence

import msgspec

from guerdon.clock import optional_rfc3339, rfc3339
from guerdon.history.models import KindTotal, Statement, view_entry, view_head, view_point
from guerdon.history.rules import Tally
from guerdon.ledger.models import Entry, hold_id

COLUMNS = (
    "row", "seq", "created_at", "kind", "amount", "balance", "held", "count", "in", "out",
    "counter", "reference", "reason", "transaction_id", "hold", "reverses", "effective_at", "rate",
)  # fmt: skip
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n", "\0", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""Characters at the beginning of a cell that a spreadsheet treats as the start of a formula, or drops before it looks for one.

The last four are the full-width forms of the first four.
"""
_encode = msgspec.json.Encoder().encode
Batches = AsyncIterator[Sequence[Entry]]


async def as_json(statement: Statement, batches: Batches) -> AsyncGenerator[bytes]:
    """Yield the chunks of a `StatementView` document."""
    tally = Tally()
    yield _encode(view_head(statement))[:-1] + b',"entries":['
    comma = b""
    async for batch in batches:
        for entry in batch:
            tally.add(entry)
        yield comma + b",".join(_encode(view_entry(entry)) for entry in batch)
        comma = b","
    yield b'],"totals":' + _encode(tally.totals()) + b',"closing":' + _encode(view_point(statement.closing)) + b"}"


async def as_csv(statement: Statement, batches: Batches) -> AsyncGenerator[bytes]:
    """Yield the chunks of one table: `opening`, the entries, a `total` for each kind, and `closing`, or `interim` in the current month."""
    tally = Tally()
    opening, closing = view_point(statement.opening), view_point(statement.closing)
    yield _lines([COLUMNS, _row("opening", opening.seq, rfc3339(statement.starts_ms), "", "", opening.balance, opening.held)])
    async for batch in batches:
        for entry in batch:
            tally.add(entry)
        yield _lines(map(_entry_row, batch))
    yield _lines(map(_total_row, tally.totals()))
    last = "closing" if statement.complete else "interim"
    yield _lines([_row(last, closing.seq, rfc3339(statement.ends_ms), "", "", closing.balance, closing.held)])


def file_name(statement: Statement) -> str:
    """Return a file name that is safe in a header and in any file system."""
    return f"statement-{statement.wallet.replace(':', '-')}-{statement.month}.csv"


def harmless(cell: str | int) -> str | int:
    """Return the cell with an apostrophe in front if it is text that a spreadsheet would treat as a formula."""
    return f"'{cell}" if isinstance(cell, str) and cell.startswith(_FORMULA) else cell


def _row(*cells: str | int) -> list[str | int]:
    return [*cells, *[""] * (len(COLUMNS) - len(cells))]


def _entry_row(entry: Entry) -> list[str | int]:
    return [
        "entry", entry.seq, rfc3339(entry.at), entry.kind, entry.amount, entry.balance_after, entry.held_after, "", "", "",
        entry.counterparty, entry.reference or "", entry.reason or "", entry.transaction_id,
        "" if entry.hold is None else hold_id(entry.account, entry.hold.seq), entry.reverses or "",
        optional_rfc3339(entry.effective_at) or "", entry.rate or "",
    ]  # fmt: skip


def _total_row(total: KindTotal) -> list[str | int]:
    return _row("total", "", "", total.kind, "", "", "", total.count, total.inflow, total.outflow)


def _lines(rows: Iterable[Iterable[str | int]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows([harmless(cell) for cell in row] for row in rows)
    return text.getvalue().encode()
