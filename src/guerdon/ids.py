"""The only source of identifiers, secrets and digests of them.

An id is `prefix_` + 12 hex digits of milliseconds + 20 random ones (80 bits): it sorts by birth, so new rows land on the right edge
of the built-in index, and two processes never meet. It is a name, not a secret. See docs/adr/0003-ids-and-keys.md.
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
MEMBER_ID = re.compile(r"mem_[0-9a-f]{32}\Z")


class IdSource:
    """Mints ids from a clock and the operating system's randomness."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._pool = ""
        self._next = 0

    def new(self, prefix: str) -> str:
        # Randomness is fetched for many ids at once: the system call would cost more than the rest of a request's id work.
        # The pool belongs to this instance, which a process makes after it was forked.
        at = self._next
        if at >= len(self._pool):
            self._pool, at = os.urandom(_POOL_BYTES).hex(), 0
        self._next = at + _RANDOM_DIGITS
        return f"{prefix}_{self._clock.now_ms():012x}{self._pool[at : self._next]}"


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
    """Return `count` characters of an alphabet of 1 to 256, each as likely as any other."""
    table, unfair, fair = _drawing(alphabet)
    text = b""
    while len(text) < count:
        text += os.urandom((count - len(text)) * 256 // fair + 16).translate(table, unfair)
    return text[:count].decode("latin-1")


@lru_cache(maxsize=8)
def _drawing(alphabet: str) -> tuple[bytes, bytes, int]:
    """Which character each byte is, which bytes are none, and how many are one."""
    characters = alphabet.encode("latin-1")
    size = len(characters)
    # A byte above the last multiple of the alphabet's size would make its first characters likelier than the others.
    fair = 256 - 256 % size
    return bytes(characters[value % size] for value in range(256)), bytes(range(fair, 256)), fair


def checksum62(text: str) -> str:
    """Six base-62 characters of CRC-32, so that a scanner can tell a leaked key from noise without asking us."""
    return base62(zlib.crc32(text.encode()), 6)


def digest(*parts: str | bytes) -> bytes:
    """SHA-256 over length-prefixed parts, so that ("a", "bc") and ("ab", "c") differ."""
    hasher = hashlib.sha256()
    for part in parts:
        raw = part.encode() if isinstance(part, str) else part
        hasher.update(len(raw).to_bytes(4) + raw)
    return hasher.digest()
