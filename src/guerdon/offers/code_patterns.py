"""Format of codes and how they are drawn: an unambiguous alphabet, random characters and a check character.

The check character is the pure system of ISO/IEC 7064 (clause 7) with modulus 29 and radix 2: the sum of a code's values, each times a power
of two, is 1 modulo 29. The modulus is prime and 2 is one of its primitive roots, so every single wrong character and every swap of two
neighbours changes the sum. Unlike the systems that the standard names (37-2 needs a 37th character `*`), the check character is always a
character of the alphabet.
"""

import math
import re
import string
from functools import lru_cache

from msgspec import Struct

from guerdon.errors import Validation
from guerdon.ids import random_text
from guerdon.types import CODE_PATTERN, nfc

ALPHABET = "23456789ABCDEFGHJKMNPQRTVWXYZ"
"""Digits and letters without 0 O, 1 I L, S (similar to 5) and U (similar to V). Their number, 29, is prime."""
SECRET_BITS_MIN = 64
"""Random bits of a secret code. At 1,000 guesses a second, finding the first of 10^9 such codes takes 200 days."""
BITS_EACH = math.log2(len(ALPHABET))
SECRET_DRAWN_MIN = math.ceil(SECRET_BITS_MIN / BITS_EACH)
PATTERN_CHARACTERS_MAX, CODE_CHARACTERS_MAX = 64, 64
DEFAULT_PATTERN = "#####-#####-#####"
_RADIX = 2
_PATTERNS_CACHED = 1024
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PATTERN = re.compile(r"[A-Z0-9#]+(?:-[A-Z0-9#]+)*\Z")
SHOWN_CHARACTERS_MAX = 128
_SEPARATORS = re.compile(r"[ \-\u00a0\u2000-\u200a\u202f\u205f\u3000\u2010-\u2015\u2212\ufe63\uff0d]")
"""Spaces and hyphens, also those that word processors and phones put in their place."""
_CLEAN = re.compile(CODE_PATTERN)
_CAPITALS = str.maketrans(string.ascii_lowercase, string.ascii_uppercase)


class Pattern(Struct, frozen=True):
    """A pattern such as `SUMMER-####-####`. Each `#` is a random character, the last one the check character; the rest is literal."""

    text: str
    form: str
    """Pattern of the normalised code."""
    drawn: int
    """Number of random characters."""

    @property
    def bits(self) -> float:
        return self.drawn * BITS_EACH

    @property
    def secret(self) -> bool:
        return self.drawn >= SECRET_DRAWN_MIN

    def draw(self, count: int) -> list[str]:
        """Return `count` random codes, normalised. They can repeat each other or codes that exist."""
        random, size = random_text(ALPHABET, count * self.drawn), self.drawn
        form = self.form.replace("#", "%s")
        return [form % tuple(with_check(random[at : at + size])) for at in range(0, count * size, size)]

    def accepts(self, code: str) -> bool:
        """Return whether the pattern can generate a normalised code."""
        if len(code) != len(self.form):
            return False
        pairs = list(zip(code, self.form, strict=True))
        variable = "".join(character for character, expected in pairs if expected == "#")
        literals_match = all(expected in {"#", character} for character, expected in pairs)
        return literals_match and set(variable) <= _VALUES.keys() and _checksum(variable) == 1

    def shown(self, code: str) -> str:
        """Return a normalised code with the hyphens of the pattern."""
        groups: list[str] = []
        start = 0
        for group in self.text.split("-"):
            end = start + len(group)
            groups.append(code[start:end])
            start = end
        return "-".join(groups)


@lru_cache(maxsize=_PATTERNS_CACHED)
def parse_pattern(text: str, pointer: str = "/pattern") -> Pattern:
    """Parse a pattern, ignoring case.

    Raises:
        Validation: it is not a pattern; `pointer` names the field.
    """
    text = text.upper()
    if len(text) > PATTERN_CHARACTERS_MAX or not _PATTERN.match(text):
        raise Validation.at(
            pointer,
            f"a pattern has at most {PATTERN_CHARACTERS_MAX} characters: groups of the letters A to Z, digits and #, joined by hyphens",
        )
    form = text.replace("-", "")
    if form.count("#") < 2:
        raise Validation.at(pointer, "a pattern needs at least two #: the last one is the check character, the others are random")
    return Pattern(text, form, form.count("#") - 1)


def require_secret(pattern: Pattern, pointer: str = "/pattern") -> None:
    """
    Raises:
        Validation: codes of the pattern can be guessed.
    """
    if not pattern.secret:
        raise Validation.at(
            pointer,
            f"a secret code needs {SECRET_BITS_MIN} random bits, which is {SECRET_DRAWN_MIN + 1} # with the check character; "
            f"this pattern has {pattern.drawn + 1} # and {math.floor(pattern.bits)} bits",
        )


def normalise(text: str) -> str:
    """Return the form by which a code is found, or an empty text for one that cannot be a code.

    Case, spaces, hyphens and the composition of accents do not matter: the text is case-folded, in the Unicode form NFC. ASCII letters are
    capitals.
    """
    if not 0 < len(text) <= SHOWN_CHARACTERS_MAX or not _CLEAN.match(text):
        return ""
    code = _SEPARATORS.sub("", text)
    if not code.isascii():
        code = nfc(nfc(code).casefold())
    code = code.translate(_CAPITALS)
    return code if len(code) <= CODE_CHARACTERS_MAX else ""


def capitals(text: str) -> str:
    """Return a code in capitals as it is shown, or unchanged if the capitals of its letters would be another code."""
    upper = nfc(nfc(text).upper())
    return upper if normalise(upper) == normalise(text) else nfc(text)


def with_check(drawn: str) -> str:
    """Return characters of the alphabet followed by their check character."""
    checksum = 0
    for character in drawn:
        checksum = (checksum + _VALUES[character]) * _RADIX % len(ALPHABET)
    return drawn + ALPHABET[(1 - checksum) % len(ALPHABET)]


def _checksum(text: str) -> int:
    checksum = 0
    for character in text:
        checksum = (checksum * _RADIX + _VALUES[character]) % len(ALPHABET)
    return checksum
