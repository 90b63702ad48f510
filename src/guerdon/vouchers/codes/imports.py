"""Reading a file of codes that another house has made. Pure.

The file is CSV (RFC 4180) with one column; a first line that says `code` is a header. Whatever is wrong with a line is told by its number, and
a file with a wrong line is not taken at all.
"""

import csv
import io
import re
from collections.abc import Iterator

from msgspec import Struct

from guerdon.offers.code_patterns import CODE_CHARACTERS_MAX, normalise

LINES_MAX = 100_000
PROBLEMS_MAX = 100
"""So many lines are told of; the rest is counted."""
HEADER = "code"
_PRINTABLE = re.compile(r"[\x20-\x7e]*\Z")
_CODE = re.compile(r"[A-Za-z0-9 ._~+=@:!$*()-]+\Z")
_BYTE_ORDER_MARK = "\ufeff"


class LineProblem(Struct, frozen=True):
    """What is wrong with a line; the first line is 1."""

    line: int
    detail: str


class ImportedCode(Struct, frozen=True):
    """A line of a file."""

    line: int
    shown: str
    """As the other house writes it."""
    known: str
    """What it is known by here."""


class Imported(Struct, frozen=True):
    """A file as it was read."""

    codes: list[ImportedCode]
    problems: list[LineProblem]


def read_codes(raw: bytes) -> Imported:
    """Read a whole file. What is not UTF-8 shows as characters that no code has."""
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
        shown = cells[0].strip(" ")
        detail = _problem_of(cells, shown)
        known = "" if detail else normalise(shown)
        if not detail and known in first_seen:
            detail = f"the same code stands in line {first_seen[known]}"
        if detail:
            problems.append(LineProblem(line, detail))
            continue
        first_seen[known] = line
        codes.append(ImportedCode(line, shown, known))
        if len(codes) > LINES_MAX:
            problems.append(LineProblem(line, f"a file has {LINES_MAX} codes at most"))
            break
    return Imported(codes, problems)


def _rows(text: str) -> Iterator[tuple[int, list[str] | str]]:
    """Every row with the number of its line; a sentence for one that is no CSV."""
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
        return f"{len(cells)} columns; a line has one, the code"
    if not _PRINTABLE.match(shown):
        return "a character that is not printable ASCII"
    if len(shown) > CODE_CHARACTERS_MAX:
        return f"{len(shown)} characters; a code has {CODE_CHARACTERS_MAX} at most"
    if not _CODE.match(shown):
        return "a character that cannot stand in an address: letters, digits, spaces and ._~+=@:!$*()- can"
    if not normalise(shown):
        return "nothing but spaces and hyphens"
    return ""
