"""Rows of reports as tables."""

import csv
import io
from collections.abc import Iterable
from functools import cache
from typing import Any, cast

import msgspec
from msgspec import Struct
from msgspec import inspect as mi

from guerdon.history.statements import harmless
from guerdon.reports.models import ReportHead

Cell = str | int | float


def row_type_of(report: type[ReportHead]) -> type[Struct]:
    """Return the type of the rows of a report."""
    return _table_of(report)[1]


@cache
def _table_of(report: type[ReportHead]) -> tuple[str, type[Struct]]:
    """Return the field with the rows of a report, which is the first list of structs, and their type."""
    for each in cast(mi.StructType, mi.type_info(report)).fields:
        if isinstance(each.type, mi.ListType) and isinstance(each.type.item_type, mi.StructType):
            return each.name, each.type.item_type.cls
    raise TypeError(f"{report.__name__} has no rows")


def rows_of(report: ReportHead) -> list[Struct]:
    """Return the rows of a report."""
    return cast("list[Struct]", getattr(report, _table_of(type(report))[0]))


@cache
def _fields_of(row: type[Struct]) -> list[tuple[str, str]]:
    """Return (name, name in JSON) of the fields of a row: what it is about, the figures that it inherits, and its asset and scale."""
    inherited = {name for base in row.__bases__ for name in getattr(base, "__struct_fields__", ())}
    pairs = zip(row.__struct_fields__, row.__struct_encode_fields__, strict=True)
    return sorted(pairs, key=lambda pair: (pair[0] in {"asset", "scale"}, pair[0] in inherited))


def columns_of(row: type[Struct]) -> tuple[str, ...]:
    """Return the columns of the CSV of a report with these rows. Amounts are minor units, so the scale stands beside them."""
    own = [encoded for _, encoded in _fields_of(row)]
    return (*own, *(name for name in ("asset", "scale") if name not in own))


def file_name(report: ReportHead) -> str:
    """Return a file name that is safe in a header and in any file system."""
    parts = (report.report, report.asset, report.starts, report.ends)
    return f"{'-'.join(part for part in parts if part)}.csv"


def cells_of(row: Struct, report: ReportHead) -> list[Cell]:
    """Return the cells of a row of a report, in the order of `columns_of`. Nothing is an empty cell."""
    cells = [_cell(getattr(row, name)) for name, _ in _fields_of(type(row))]
    own = row.__struct_encode_fields__
    return [*cells, *(_cell(value) for name, value in (("asset", report.asset), ("scale", report.scale)) if name not in own)]


def csv_of(report: ReportHead) -> bytes:
    """Return the rows of a report as CSV with a header line."""
    return csv_lines([columns_of(row_type_of(type(report))), *(cells_of(row, report) for row in rows_of(report))])


def csv_lines(rows: Iterable[Iterable[Cell]]) -> bytes:
    """Return lines of CSV (RFC 4180) in UTF-8. Text that a spreadsheet would run as a formula begins with an apostrophe."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")
    writer.writerows([harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return text.getvalue().encode()


def _cell(value: Any) -> Cell:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str | int | float) else msgspec.json.encode(value).decode()
