"""The form of a service key: `gk_live_<id>_<secret><checksum>`.

The prefix and the checksum let a scanner recognise a leaked key offline, and let the service reject random text without a read.
The secret has 256 random bits, so its unsalted SHA-256 cannot be inverted.
"""

import hmac
import re

from msgspec import Struct

from guerdon.errors import Unauthenticated
from guerdon.ids import digest, match_token, random_base62, with_checksum

PREFIX = "gk_live_"
ID_LENGTH = 12
SECRET_LENGTH = 43
_FORM = re.compile(r"gk_live_([0-9A-Za-z]{12})_([0-9A-Za-z]{43})[0-9A-Za-z]{6}\Z")
KEY_ID = re.compile(r"[0-9A-Za-z]{12}\Z")
_NO_DIGEST = bytes(32)
REFUSAL = "the service key is not valid"


class KeyParts(Struct, frozen=True):
    """A service key as its holder knows it."""

    id: str
    secret: str

    @property
    def text(self) -> str:
        """The complete key, for the `Authorization` header."""
        return with_checksum(f"{PREFIX}{self.id}_{self.secret}")

    @property
    def secret_sha256(self) -> bytes:
        return digest(self.secret)


def new_key() -> KeyParts:
    return KeyParts(random_base62(ID_LENGTH), random_base62(SECRET_LENGTH))


def parse_key(text: str) -> KeyParts:
    """Check the form and the checksum of a key, and return its parts.

    Raises:
        Unauthenticated: the form or the checksum is wrong.
    """
    match = match_token(_FORM, text)
    if match is None:
        raise Unauthenticated(REFUSAL)
    return KeyParts(match[1], match[2])


def is_secret_of(parts: KeyParts, stored_sha256: bytes | None) -> bool:
    """Return True if the secret has the stored digest. None, for a key that does not exist, takes the same time."""
    equal = hmac.compare_digest(parts.secret_sha256, stored_sha256 or _NO_DIGEST)
    return equal and stored_sha256 is not None
