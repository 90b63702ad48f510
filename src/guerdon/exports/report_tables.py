"""Reports as tables."""

from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec import inspect as mi

from guerdon.exports.tables import ColumnKind, Pages, Row, Table, TableColumn, Value
from guerdon.reports.models import ReportHead
from guerdon.reports.rows import row_type_of

_KINDS: dict[type[mi.Type], ColumnKind] = {mi.IntType: "integer", mi.FloatType: "number", mi.BoolType: "boolean"}
"""Kind of the column of a field by its type. Everything else is text."""


def table_of_report(report: ReportHead) -> Table:
    """Return the rows of a report with the columns of its CSV: its own, then the asset and the scale of the amounts."""
    kind = row_type_of(type(report))
    own = [TableColumn(field.encode_name, _kind_of(field.type)) for field in cast(mi.StructType, mi.type_info(kind)).fields]
    names = {column.name for column in own}
    more = [TableColumn("asset")] if "asset" not in names else []
    more += [TableColumn("scale", "integer")] if "scale" not in names else []
    ends = [getattr(report, column.name) for column in more]
    rows: Sequence[Struct] = cast(Any, report).rows
    return Table([*own, *more], _pages([[*map(_value, _fields_of(row)), *ends] for row in rows]))


async def _pages(rows: list[Row]) -> Pages:
    if rows:
        yield rows


def _fields_of(row: Struct) -> list[Any]:
    return [getattr(row, name) for name in row.__struct_fields__]


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
