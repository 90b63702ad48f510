"""The only source of ids, random values and digests.

An id is `prefix_`, 12 hexadecimal digits of milliseconds and 20 random ones (80 bits). Ids sort by time of creation, so new rows are
inserted at the end of the built-in index, and ids of different processes do not collide. An id is not a secret. See
docs/adr/0003-ids-and-keys.md.
"""

import hashlib
import os
import re
import zlib
from functools import lru_cache

from guerdon.clock import Clock

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
ID_PATTERN = r"[a-z]{3}_[0-9a-f]{32}"
_RANDOM_DIGITS = 20
_POOL_BYTES = 5000
_CHECKSUM_LENGTH = 6
MEMBER_ID = re.compile(r"mem_[0-9a-f]{32}\Z")


class IdSource:
    """Source of new ids, from a clock and the operating system's random generator."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pool = ""
        self._next = 0

    def new(self, prefix: str) -> str:
        # Random digits are read for many ids at once, because the system call costs more than the rest. A process creates its instance
        # after the fork, so no two processes share a pool.
        start = self._next
        if start >= len(self._pool):
            self._pool, start = os.urandom(_POOL_BYTES).hex(), 0
        self._next = start + _RANDOM_DIGITS
        return f"{prefix}_{self._clock.now_ms():012x}{self._pool[start : self._next]}"


def base62(number: int, width: int) -> str:
    """Return `number` in base 62, padded with zeros to `width` characters."""
    digits: list[str] = []
    while number:
        number, digit = divmod(number, 62)
        digits.append(_BASE62[digit])
    return "".join(reversed(digits)).rjust(width, "0")


def random_base62(width: int) -> str:
    """Return `width` characters of base 62 from the operating system's generator (5.95 bits each)."""
    return base62(int.from_bytes(os.urandom(width)) % 62**width, width)


def random_bytes(count: int) -> bytes:
    """Return bytes from the operating system's generator, for keys and nonces."""
    return os.urandom(count)


def random_text(alphabet: str, count: int) -> str:
    """Return `count` characters of an alphabet of 1 to 256 characters, uniformly distributed."""
    table, rejected, accepted = _rejection_table(alphabet)
    text = b""
    while len(text) < count:
        text += os.urandom((count - len(text)) * 256 // accepted + 16).translate(table, rejected)
    return text[:count].decode("latin-1")


@lru_cache(maxsize=8)
def _rejection_table(alphabet: str) -> tuple[bytes, bytes, int]:
    """Return the character of each byte, the bytes to reject, and the number of accepted bytes (rejection sampling)."""
    characters = alphabet.encode("latin-1")
    size = len(characters)
    # Bytes above the last multiple of the alphabet's size would make the first characters more likely.
    accepted = 256 - 256 % size
    return bytes(characters[value % size] for value in range(256)), bytes(range(accepted, 256)), accepted


def checksum62(text: str) -> str:
    """Return six base-62 characters of the CRC-32 of `text`, so that a secret scanner can recognise a leaked key offline."""
    return base62(zlib.crc32(text.encode()), _CHECKSUM_LENGTH)


def with_checksum(body: str) -> str:
    """Return a token: `body` followed by its checksum."""
    return body + checksum62(body)


def match_token(form: re.Pattern[str], text: str) -> re.Match[str] | None:
    """Return the match of a token with its form, or None if the form or the checksum at the end is wrong."""
    match = form.match(text)
    return match if match is not None and with_checksum(text[:-_CHECKSUM_LENGTH]) == text else None


def digest(*parts: str | bytes) -> bytes:
    """Return the SHA-256 of the length-prefixed parts, so that ("a", "bc") and ("ab", "c") differ."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(4) + raw)
    return hasher.digest()
