"""Opaque cursors of paged lists."""

import base64
import binascii

from guerdon.errors import Validation


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
        raise Validation.at("cursor", "not a cursor that this list has given out")
    return position
