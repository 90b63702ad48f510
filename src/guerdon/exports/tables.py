"""Tables: the form in which lists and reports are handed to the formats."""

from collections.abc import AsyncGenerator, Callable, Sequence
from typing import Literal, NamedTuple

from guerdon.clock import rfc3339

Value = str | int | float | bool | None
Row = Sequence[Value]
Rows = Sequence[Row]
Pages = AsyncGenerator[Rows]
ColumnKind = Literal["text", "integer", "number", "time", "boolean"]
"""Type of the values of a column. A `time` is an integer of milliseconds since the epoch."""


class TableColumn(NamedTuple):
    """A column of a table."""

    name: str
    kind: ColumnKind = "text"


class Table(NamedTuple):
    """A table whose rows are read page by page. Every row has one value for each column."""

    columns: Sequence[TableColumn]
    pages: Pages


Encoder = Callable[[Table], AsyncGenerator[bytes]]
"""Function that yields the pieces of a file."""


def text_of(value: Value, kind: ColumnKind) -> str | int | float:
    """Return a value as a text format shows it: times in RFC 3339, nothing as an empty text."""
    if value is None:
        return ""
    if kind == "time" and isinstance(value, int):
        return rfc3339(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    return value
