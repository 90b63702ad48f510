"""Tables as an Excel workbook (ISO/IEC 29500) with one sheet. It needs the extra `guerdon[xlsx]`."""

import asyncio
import tempfile
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from importlib import import_module
from typing import Any

from guerdon.exports.tables import ColumnKind, Rows, Table, text_of

PIECE_BYTES = 1 << 20
_OPTIONS = {"constant_memory": True, "strings_to_formulas": False, "strings_to_urls": False, "strings_to_numbers": False}
EXACT_DIGITS_MAX = 15
"""Digits of a number that a spreadsheet keeps. Longer numbers are written as text."""


async def encode_xlsx(table: Table) -> AsyncGenerator[bytes]:
    """Yield the pieces of a workbook. It is complete only at the end, so it is kept in a temporary file until then.

    A cell is a text or a number and never a formula, so texts need no apostrophe.
    """
    library: Any = import_module("xlsxwriter")
    with tempfile.TemporaryDirectory(prefix="guerdon-export-") as folder, tempfile.TemporaryFile(dir=folder) as file:
        workbook: Any = library.Workbook(file, {**_OPTIONS, "tmpdir": folder})
        sheet: Any = workbook.add_worksheet("export")
        texts: list[ColumnKind] = ["text" for _ in table.columns]
        kinds: list[ColumnKind] = [column.kind for column in table.columns]
        try:
            _write(sheet, 0, [[column.name for column in table.columns]], texts)
            number = 1
            async with aclosing(table.pages) as pages:
                async for rows in pages:
                    await asyncio.to_thread(_write, sheet, number, rows, kinds)
                    number += len(rows)
            await asyncio.to_thread(workbook.close)
        finally:
            sheet.row_data_fh.close()
        file.seek(0)
        while piece := file.read(PIECE_BYTES):
            yield piece


def _write(sheet: Any, first: int, rows: Rows, kinds: Sequence[ColumnKind]) -> None:
    for number, row in enumerate(rows, first):
        for position, (value, kind) in enumerate(zip(row, kinds, strict=True)):
            if value is None:
                continue
            if isinstance(value, bool):
                sheet.write_boolean(number, position, value)
            elif kind in ("integer", "number") and isinstance(value, int | float) and _is_exact(value):
                sheet.write_number(number, position, value)
            else:
                sheet.write_string(number, position, str(text_of(value, kind)))


def _is_exact(value: float) -> bool:
    return isinstance(value, float) or len(str(abs(value))) <= EXACT_DIGITS_MAX
