"""Reports as tables."""

from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec import inspect as mi

from guerdon.exports.tables import ColumnKind, Pages, Row, Table, TableColumn, Value
from guerdon.reports.models import ReportHead
from guerdon.reports.rows import columns_of, row_type_of, rows_of

_KINDS: dict[type[mi.Type], ColumnKind] = {mi.IntType: "integer", mi.FloatType: "number", mi.BoolType: "boolean"}
"""Kind of the column of a field by its type. Everything else is text."""


def table_of_report(report: ReportHead) -> Table:
    """Return the rows of a report with the columns of its CSV."""
    kind = row_type_of(type(report))
    types = {field.encode_name: field.type for field in cast(mi.StructType, mi.type_info(kind)).fields}
    attributes = dict(zip(kind.__struct_encode_fields__, kind.__struct_fields__, strict=True))
    # The asset and the scale of a report are those of all its rows, unless a row has its own.
    of_report: dict[str, tuple[ColumnKind, Value]] = {"asset": ("text", report.asset), "scale": ("integer", report.scale)}
    columns = [TableColumn(name, _kind_of(types[name]) if name in types else of_report[name][0]) for name in columns_of(kind)]

    def cell(row: Struct, name: str) -> Value:
        return _value(getattr(row, attributes[name])) if name in attributes else of_report[name][1]

    return Table(columns, _pages([[cell(row, column.name) for column in columns] for row in rows_of(report)]))


async def _pages(rows: list[Row]) -> Pages:
    if rows:
        yield rows


def _value(value: Any) -> Value:
    """Return a cell of a table. A value with parts is JSON."""
    return value if value is None or isinstance(value, str | int | float) else msgspec.json.encode(value).decode()


def _kind_of(kind: mi.Type) -> ColumnKind:
    match kind:
        case mi.Metadata():
            return _kind_of(kind.type)
        case mi.UnionType():
            kinds: list[ColumnKind] = [_kind_of(each) for each in kind.types if not isinstance(each, mi.NoneType)]
            return kinds[0] if len(kinds) == 1 else "text"
        case _:
            return _KINDS.get(type(kind), "text")
