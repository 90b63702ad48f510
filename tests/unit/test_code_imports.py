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
def test_code_file_is_read_with_or_without_a_header(raw: bytes) -> None:
    imported = read_codes(raw)
    assert [(code.shown, code.code_id) for code in imported.codes] == [("ABC-1", "ABC1"), ("abc 2", "ABC2")]
    assert imported.problems == []


def test_every_invalid_line_is_reported_by_number() -> None:
    lines = [
        b"code", b"GOOD-1", b"good1", b"A,B", b"\x07BELL", b"\xff\xfe", b"CAFE\xe2\x80\x8b", b"A" * 65, b"caf\xc3\xa9", b"CAFE\xcc\x81", b"---", b"GOOD-2", b"code", b'"A\nB"', b"GOOD-2",
    ]  # fmt: skip
    assert _problems(b"\n".join(lines)) == [
        (3, "the code repeats line 2"),
        (4, "the line has 2 columns; it needs one, the code"),
        (5, "the code has a control character, an invisible one, or bytes that are not UTF-8"),
        (6, "the code has a control character, an invisible one, or bytes that are not UTF-8"),
        (7, "the code has a control character, an invisible one, or bytes that are not UTF-8"),
        (8, "the code has 65 characters; at most 64 are allowed"),
        (10, "the code repeats line 9"),
        (11, "the code has only spaces and hyphens"),
        (14, "the code has a control character, an invisible one, or bytes that are not UTF-8"),
        (16, "the code repeats line 12"),
    ]


def test_invalid_csv_line_is_reported_and_reading_continues() -> None:
    assert _problems(b'A\n"A"B\nC\n') == [(2, "not CSV: ',' expected after '\"'")]
    assert [code.shown for code in read_codes(b'"A"B\nC\n').codes] == ["C"]
    assert _problems(b'C\n"A')[0][0] == 2


def test_length_of_a_code_file_is_bounded() -> None:
    imported = read_codes(b"".join(b"C%d\n" % number for number in range(LINES_MAX + 2)))
    assert [problem.line for problem in imported.problems] == [LINES_MAX + 1]
    assert len(read_codes(b"x" * 4_000_000).problems) == 1
    assert len(read_codes(b'"' * 400_001).problems) >= 1
