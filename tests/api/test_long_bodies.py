"""What a body costs to refuse grows with its length and no faster: everybody may send one to the log-in."""

import time

import pytest

from guerdon.errors import MalformedJson, Validation
from guerdon.http.body import BODY_BYTES_MAX, decode
from guerdon.sessions.models import LoginCreate

MS_MAX = 100
"""For 256 KiB, of processor time: reading so much well-meant JSON takes 5 ms, and a part of this goes to whatever else runs."""
MANY = b"[" * 40
HOSTILE = {
    "a text without an end": MANY + b'"' + b'\\"' * BODY_BYTES_MAX,
    "texts of one quote": MANY + b'"' * BODY_BYTES_MAX,
    "a backslash at the end": MANY + b'"' + b"\\" * BODY_BYTES_MAX,
    "depth that closes": b"[" * (BODY_BYTES_MAX // 2) + b"]" * (BODY_BYTES_MAX // 2),
    "depth that does not close": b'{"a":' * (BODY_BYTES_MAX // 5),
    "depth of both kinds": b'[{"a":' * (BODY_BYTES_MAX // 12) + b"}]" * (BODY_BYTES_MAX // 12),
    "closed and opened": b"[]" * (BODY_BYTES_MAX // 2),
    "a field name like a place": b'{"' + b" - at `" * (BODY_BYTES_MAX // 8) + b'": 1}',
    "a field name like a key": b'{"' + b" - at `key` in `" * (BODY_BYTES_MAX // 17) + b'": 1}',
    "a field name of backticks": b'{"' + b"`" * (BODY_BYTES_MAX - 10) + b'": 1}',
    "a field name like an unknown field": b'{"' + b"Object contains unknown field `" * (BODY_BYTES_MAX // 32) + b'": 1}',
    "a field name of brackets": b'{"' + b"[1]" * (BODY_BYTES_MAX // 4) + b'": 1}',
    "a number": b'{"email":' + b"1" * (BODY_BYTES_MAX - 20) + b"}",
    "blanks": b" " * (BODY_BYTES_MAX - 2) + b"{}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_long_hostile_body_is_refused_quickly(name: str) -> None:
    raw = HOSTILE[name][:BODY_BYTES_MAX]
    spent: list[float] = []
    for _ in range(3):
        began = time.thread_time()
        with pytest.raises((MalformedJson, Validation)):
            decode(raw, LoginCreate)
        spent.append((time.thread_time() - began) * 1000)
        if spent[-1] < MS_MAX:
            return
    raise AssertionError(f"{min(spent):.0f} ms")
