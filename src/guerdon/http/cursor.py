"""Opaque cursors of paged lists."""

import base64
import binascii
import re

from guerdon.errors import Validation

_REFUSAL = "not a cursor of this list; use a next_cursor that it returned"


def encode_cursor(position: str) -> str:
    """Return the cursor of a position."""
    return base64.urlsafe_b64encode(position.encode()).decode().rstrip("=")


def decode_cursor(cursor: str, prefix: str = "") -> str:
    """Return the position in a cursor. Positions in this list begin with `prefix`.

    Raises:
        Validation: this list has not issued the cursor.
    """
    try:
        position = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True).decode("ascii")
    except (binascii.Error, UnicodeDecodeError, ValueError):
        position = None
    if position is None or not position.startswith(prefix):
        raise Validation.at("cursor", _REFUSAL)
    return position


def decode_text(cursor: str, pattern: re.Pattern[str]) -> str:
    """Return the position in a cursor of a list whose positions match `pattern`.

    Raises:
        Validation: this list has not issued the cursor.
    """
    position = decode_cursor(cursor)
    if pattern.match(position) is None:
        raise Validation.at("cursor", _REFUSAL)
    return position


def decode_number(cursor: str, digits_max: int) -> int:
    """Return the number in a cursor of a list whose positions are numbers.

    Raises:
        Validation: this list has not issued the cursor.
    """
    position = decode_cursor(cursor)
    if not position.isdecimal() or len(position) > digits_max:
        raise Validation.at("cursor", _REFUSAL)
    return int(position)
