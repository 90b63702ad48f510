"""Files of codes: what is read from them, and which lines are told of."""

import pytest

from guerdon.vouchers.codes.imports import LINES_MAX, read_codes


def _problems(raw: bytes) -> list[tuple[int, str]]:
    return [(problem.line, problem.detail) for problem in read_codes(raw).problems]


@pytest.mark.parametrize(
    "raw",
    [
        b"ABC-1\nabc 2\n",
        b"code\r\nABC-1\r\nabc 2\r\n",
        b"\xef\xbb\xbfCode\nABC-1\n\n  abc 2  \n\n",
        b'"ABC-1"\n"abc 2"',
    ],
)
def test_one_code_in_a_line_with_or_without_a_header(raw: bytes) -> None:
    imported = read_codes(raw)
    assert [(code.shown, code.code_id) for code in imported.codes] == [("ABC-1", "ABC1"), ("abc 2", "ABC2")]
    assert imported.problems == []


def test_every_wrong_line_is_told_by_its_number() -> None:
    lines = [
        b"code", b"GOOD-1", b"good1", b"A,B", b"\x07BELL", b"\xff\xfe", b"CAF\xc3\xa9", b"A" * 65, b"A/B", b"---", b"GOOD-2", b"code", b'"A\nB"', b"GOOD-2",
    ]  # fmt: skip
    assert _problems(b"\n".join(lines)) == [
        (3, "the code repeats line 2"),
        (4, "the line has 2 columns; it needs one, the code"),
        (5, "the code has a character that is not printable ASCII"),
        (6, "the code has a character that is not printable ASCII"),
        (7, "the code has a character that is not printable ASCII"),
        (8, "the code has 65 characters; at most 64 are allowed"),
        (9, "the code has a character that is not allowed; use letters, digits, spaces and ._~+=@:!$*()-"),
        (10, "the code has only spaces and hyphens"),
        (13, "the code has a character that is not printable ASCII"),
        (15, "the code repeats line 11"),
    ]


def test_what_is_no_csv_is_told_and_what_follows_is_read() -> None:
    assert _problems(b'A\n"A"B\nC\n') == [(2, "not CSV: ',' expected after '\"'")]
    assert [code.shown for code in read_codes(b'"A"B\nC\n').codes] == ["C"]
    assert _problems(b'C\n"A')[0][0] == 2


def test_a_file_has_an_end() -> None:
    imported = read_codes(b"".join(b"C%d\n" % number for number in range(LINES_MAX + 2)))
    assert [problem.line for problem in imported.problems] == [LINES_MAX + 1]
    assert len(read_codes(b"x" * 4_000_000).problems) == 1
    assert len(read_codes(b'"' * 400_001).problems) >= 1
