"""The form of a refresh token, `gr_<member and session>_<family><secret><checksum>`, and the sealing of its successor.

The token contains the id of its session, so that finding it takes one read by `_id`. `family` (130 random bits) is the same in all tokens of
a session and proves that a used token was issued in it; `secret` (256 random bits) is different in each token. Neither can be recovered from
its unsalted SHA-256. The checksum rejects random text without a read.
"""

import hmac
import re
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from msgspec import Struct

from guerdon.database import Document
from guerdon.errors import Unauthenticated
from guerdon.ids import digest, match_token, random_base62, with_checksum

SESSION_LENGTH: Final = 12
FAMILY_LENGTH: Final = 22
SECRET_LENGTH: Final = 43
REFUSAL = "the refresh token is not valid, or its session has ended"
_FORM = re.compile(r"gr_([0-9a-f]{32})([0-9A-Za-z]{12})_([0-9A-Za-z]{22})([0-9A-Za-z]{43})[0-9A-Za-z]{6}\Z")
_NONCE = bytes(12)
"""Each key seals one text only, so the nonce may be constant (NIST SP 800-38D, 8.2)."""


class RefreshToken(Struct, frozen=True):
    """A refresh token as its holder knows it."""

    session_id: str
    family: str
    secret: str

    @property
    def text(self) -> str:
        """The complete token."""
        member, _, name = self.session_id.removeprefix("mem_").partition(":")
        return with_checksum(f"gr_{member}{name}_{self.family}{self.secret}")

    @property
    def sha256(self) -> bytes:
        return digest(self.secret)

    @property
    def family_sha256(self) -> bytes:
        return digest(self.family)

    def is_token(self, stored_sha256: bytes | None) -> bool:
        """Return True if `stored_sha256` is the digest of this token's secret."""
        return stored_sha256 is not None and hmac.compare_digest(self.sha256, stored_sha256)

    def is_of(self, family_sha256: bytes) -> bool:
        """Return True if this token belongs to the family with this digest."""
        return hmac.compare_digest(self.family_sha256, family_sha256)

    def successor(self) -> "RefreshToken":
        """Return a new token of the same session, which cannot be derived from this one."""
        return RefreshToken(self.session_id, self.family, random_base62(SECRET_LENGTH))

    def seal(self, successor: "RefreshToken") -> bytes:
        """Return the successor, sealed so that it opens only with this token's secret, not with its digest."""
        return self._cipher().encrypt(_NONCE, successor.secret.encode(), self.session_id.encode())

    def unseal(self, sealed: bytes) -> "RefreshToken":
        """Return the successor that this token has sealed.

        Raises:
            Unauthenticated: another token has sealed it.
        """
        try:
            secret = self._cipher().decrypt(_NONCE, sealed, self.session_id.encode())
        except InvalidTag:
            raise Unauthenticated(REFUSAL) from None
        return RefreshToken(self.session_id, self.family, secret.decode())

    def _cipher(self) -> AESGCM:
        return AESGCM(HKDF(SHA256(), 32, salt=None, info=b"guerdon refresh successor").derive(self.secret.encode()))


def new_session_id(member_id: str) -> str:
    return f"{member_id}:{random_base62(SESSION_LENGTH)}"


def first_token(session_id: str) -> RefreshToken:
    return RefreshToken(session_id, random_base62(FAMILY_LENGTH), random_base62(SECRET_LENGTH))


def parse_refresh_token(text: str) -> RefreshToken:
    """Check the form and the checksum of a token, and return its parts.

    Raises:
        Unauthenticated: the form or the checksum is wrong.
    """
    match = match_token(_FORM, text)
    if match is None:
        raise Unauthenticated(REFUSAL)
    return RefreshToken(f"mem_{match[1]}:{match[2]}", match[3], match[4])


def sessions_of(member_id: str) -> Document:
    """Return the filter of a member's sessions, whose ids begin with the id of the member."""
    return {"_id": {"$gte": f"{member_id}:", "$lt": f"{member_id};"}}
