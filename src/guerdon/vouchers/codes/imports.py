"""Parser for files of codes that a third party generated. Pure.

The file is CSV (RFC 4180) with one column; a first line `code` is a header. Each invalid line is reported with its number, and a file with an
invalid line is refused as a whole.
"""

import csv
import io
import re
from collections.abc import Iterator

from msgspec import Struct

from guerdon.offers.code_patterns import CODE_CHARACTERS_MAX, normalise
from guerdon.types import CODE_PATTERN, nfc

LINES_MAX = 100_000
PROBLEMS_MAX = 100
"""Maximum number of lines that are reported. The others are counted."""
HEADER = "code"
_CODE = re.compile(CODE_PATTERN)
_BYTE_ORDER_MARK, _REPLACED = "\ufeff", "\ufffd"


class LineProblem(Struct, frozen=True):
    """Fault of a line. The first line is 1."""

    line: int
    detail: str


class ImportedCode(Struct, frozen=True):
    """A code of a file."""

    line: int
    shown: str
    """Code as the file has it."""
    code_id: str
    """Normalised code."""


class Imported(Struct, frozen=True):
    """Codes and faults of a file."""

    codes: list[ImportedCode]
    problems: list[LineProblem]


def read_codes(raw: bytes) -> Imported:
    """Parse a whole file. Bytes that are not UTF-8 become characters that a code cannot have."""
    text = raw.decode("utf-8", errors="replace").removeprefix(_BYTE_ORDER_MARK)
    codes: list[ImportedCode] = []
    problems: list[LineProblem] = []
    first_seen: dict[str, int] = {}
    for line, cells in _rows(text):
        if isinstance(cells, str):
            problems.append(LineProblem(line, cells))
            continue
        if not any(cells) or (not codes and not problems and [cell.strip().lower() for cell in cells] == [HEADER]):
            continue
        shown = nfc(cells[0].strip(" "))
        detail = _problem_of(cells, shown)
        code_id = "" if detail else normalise(shown)
        if not detail and code_id in first_seen:
            detail = f"the code repeats line {first_seen[code_id]}"
        if detail:
            problems.append(LineProblem(line, detail))
            continue
        first_seen[code_id] = line
        codes.append(ImportedCode(line, shown, code_id))
        if len(codes) > LINES_MAX:
            problems.append(LineProblem(line, f"a file has at most {LINES_MAX} codes"))
            break
    return Imported(codes, problems)


def _rows(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Yield each row with the number of its line. A row that is not CSV is an error text."""
    rows = csv.reader(io.StringIO(text, newline=""), strict=True)
    line = 1
    while True:
        try:
            cells = next(rows)
        except StopIteration:
            return
        except csv.Error as error:
            yield line, f"not CSV: {error}"
        else:
            yield line, cells
        line = rows.line_num + 1


def _problem_of(cells: list[str], shown: str) -> str:
    if len(cells) > 1:
        return f"the line has {len(cells)} columns; it needs one, the code"
    if not _CODE.match(shown) or _REPLACED in shown:
        return "the code has a control character, an invisible one, or bytes that are not UTF-8"
    if len(shown) > CODE_CHARACTERS_MAX:
        return f"the code has {len(shown)} characters; at most {CODE_CHARACTERS_MAX} are allowed"
    if not normalise(shown):
        return "the code has only spaces and hyphens"
    return ""
