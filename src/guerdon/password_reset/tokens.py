"""The form of a reset token: `gp_<member>_<secret><checksum>`.

The token contains the id of its member, so that finding it takes one read by `_id`. The secret has 256 random bits, so that it cannot be
recovered from its unsalted SHA-256. The checksum rejects random text without a read.
"""

import re
from typing import Final

from msgspec import Struct

from guerdon.errors import Unauthenticated
from guerdon.ids import digest, match_token, random_base62, with_checksum

SECRET_LENGTH: Final = 43
REFUSAL = "the token is not valid, was used, or has expired; request a new one"
_FORM = re.compile(r"gp_([0-9a-f]{32})_([0-9A-Za-z]{43})[0-9A-Za-z]{6}\Z")


class ResetToken(Struct, frozen=True):
    """A reset token as its holder knows it."""

    member_id: str
    secret: str

    @property
    def text(self) -> str:
        """The complete token."""
        return with_checksum(f"gp_{self.member_id.removeprefix('mem_')}_{self.secret}")

    @property
    def sha256(self) -> bytes:
        return digest(self.secret)


def new_reset_token(member_id: str) -> ResetToken:
    return ResetToken(member_id, random_base62(SECRET_LENGTH))


def parse_reset_token(text: str) -> ResetToken:
    """Check the form and the checksum of a token, and return its parts.

    Raises:
        Unauthenticated: the form or the checksum is wrong.
    """
    match = match_token(_FORM, text)
    if match is None:
        raise Unauthenticated(REFUSAL)
    return ResetToken(f"mem_{match[1]}", match[2])
