"""How a code looks, and how it is drawn: an alphabet that is read in one way only, random characters, and a check character.

The check is the pure system of ISO/IEC 7064 (clause 7) with the modulus 29 and the radix 2: the sum of a code's values, each times a power of
two, is 1 modulo 29. The modulus is prime and 2 one of its primitive roots, so that no single wrong character and no two neighbours that
changed places leave the sum as it was. Unlike the systems that the standard names (37-2 asks for a 37th character `*`), each of its check
characters is one of the alphabet.
"""

import math
import re

from msgspec import Struct

from guerdon.errors import Validation
from guerdon.ids import random_text

ALPHABET = "23456789ABCDEFGHJKMNPQRTVWXYZ"
"""Without 0 O, 1 I L, 5's twin S, and U, which is taken for V. Their number is prime."""
SECRET_BITS_MIN = 64
"""Too many to be guessed by whoever may try: at 1,000 tries a second, the first of 10^9 codes is found in 200 days."""
BITS_EACH = math.log2(len(ALPHABET))
SECRET_DRAWN_MIN = math.ceil(SECRET_BITS_MIN / BITS_EACH)
PATTERN_CHARACTERS_MAX, CODE_CHARACTERS_MAX = 64, 64
DEFAULT_PATTERN = "#####-#####-#####"
_RADIX = 2
_VALUES = {character: value for value, character in enumerate(ALPHABET)}
_PATTERN = re.compile(r"[A-Z0-9#]+(?:-[A-Z0-9#]+)*\Z")
_SHOWN = re.compile(r"[\x20-\x7e]{1,128}\Z")
_UNSAID = str.maketrans("", "", " -")


class Pattern(Struct, frozen=True):
    """`SUMMER-####-####`: every `#` but the last is drawn, the last one is the check character, and the rest stands as it is."""

    text: str
    form: str
    """The pattern of the normalised code."""
    drawn: int
    """How many characters are random."""

    @property
    def bits(self) -> float:
        return self.drawn * BITS_EACH

    @property
    def secret(self) -> bool:
        return self.drawn >= SECRET_DRAWN_MIN

    def draw(self, count: int) -> list[str]:
        """Return new codes, normalised. Two of them may be the same: whoever keeps them finds out."""
        random, size = random_text(ALPHABET, count * self.drawn), self.drawn
        form = self.form.replace("#", "%s")
        return [form % tuple(with_check(random[at : at + size])) for at in range(0, count * size, size)]

    def accepts(self, code: str) -> bool:
        """Tell whether this pattern could have made a normalised code."""
        if len(code) != len(self.form):
            return False
        free = "".join(given for given, wanted in zip(code, self.form, strict=True) if wanted == "#")
        fixed_right = all(wanted in {"#", given} for given, wanted in zip(code, self.form, strict=True))
        return fixed_right and set(free) <= _VALUES.keys() and _sum(free) == 1

    def shown(self, code: str) -> str:
        """Return a normalised code as people are to read it."""
        rest = iter(code)
        return "".join("-" if character == "-" else next(rest) for character in self.text)


def parse_pattern(text: str, pointer: str = "/pattern") -> Pattern:
    """Read a pattern that an operator has written; a small letter is a big one.

    Raises:
        Validation: it is none.
    """
    text = text.upper()
    if len(text) > PATTERN_CHARACTERS_MAX or not _PATTERN.match(text):
        raise Validation.at(
            pointer, "a pattern has letters A to Z, digits and # in groups with one hyphen between, 64 characters at most"
        )
    form = text.replace("-", "")
    if form.count("#") < 2:
        raise Validation.at(
            pointer, "a pattern needs two # at least: the last one is the check character, and the others are drawn"
        )
    return Pattern(text, form, form.count("#") - 1)


def require_secret(pattern: Pattern, pointer: str = "/pattern") -> None:
    """
    Raises:
        Validation: its codes could be guessed.
    """
    if not pattern.secret:
        raise Validation.at(
            pointer,
            f"a secret code needs {SECRET_BITS_MIN} random bits: {SECRET_DRAWN_MIN + 1} #, of which the last is the check character; "
            f"this pattern has {pattern.drawn + 1} # and {math.floor(pattern.bits)} bits",
        )


def new_code(pattern: Pattern) -> str:
    """Return a new code as it is shown; `normalise` tells what it is known by."""
    return pattern.shown(pattern.draw(1)[0])


def normalise(text: str) -> str:
    """Return what a code is known by: capital letters, without the spaces and hyphens that people put between. Empty when it can be none."""
    if not _SHOWN.match(text):
        return ""
    code = text.translate(_UNSAID).upper()
    return code if len(code) <= CODE_CHARACTERS_MAX else ""


def with_check(drawn: str) -> str:
    """Return characters of the alphabet with their check character behind them."""
    rest = 0
    for character in drawn:
        rest = (rest + _VALUES[character]) * _RADIX % len(ALPHABET)
    return drawn + ALPHABET[(1 - rest) % len(ALPHABET)]


def _sum(text: str) -> int:
    rest = 0
    for character in text:
        rest = (rest * _RADIX + _VALUES[character]) % len(ALPHABET)
    return rest
