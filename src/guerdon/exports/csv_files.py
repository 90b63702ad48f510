"""Tables as CSV (RFC 4180) in UTF-8, page by page."""

import csv
import io
from collections.abc import AsyncGenerator, Iterable
from contextlib import aclosing

from guerdon.exports.tables import ColumnKind, Table, Value, text_of
from guerdon.history.statements import harmless


async def encode_csv(table: Table) -> AsyncGenerator[bytes]:
    """Yield a header line and the rows. Text that a spreadsheet would run as a formula begins with an apostrophe."""
    kinds: list[ColumnKind] = [column.kind for column in table.columns]
    yield _lines([[column.name for column in table.columns]])
    async with aclosing(table.pages) as pages:
        async for rows in pages:
            yield _lines([_cell(value, kind) for value, kind in zip(row, kinds, strict=True)] for row in rows)


def _cell(value: Value, kind: ColumnKind) -> str | int | float:
    cell = text_of(value, kind)
    return harmless(cell) if isinstance(cell, str) else cell


def _lines(rows: Iterable[Iterable[str | int | float]]) -> bytes:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue().encode()
