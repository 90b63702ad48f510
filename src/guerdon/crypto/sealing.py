"""Sealing: AES-256-GCM (NIST SP 800-38D), and the master keys under which all other keys are sealed.

Each sealed value is bound to a context (its owner and its kind), so that it cannot be moved to another row and opened there.
"""

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode

from guerdon.crypto.jwk import SymmetricJwkSet
from guerdon.errors import Internal, StartupRefused
from guerdon.ids import digest, random_bytes

KEY_BYTES = 32
_NONCE_BYTES = 12
"""Random for every sealed value. One key may seal 2^32 values; a person's key seals a few, a master key one per person and rotation."""
_NAME_BYTES = 8
_UNSEALABLE = "a sealed value cannot be opened: its key is missing, or the value was changed"


class SealingKey:
    """One AES key of 256 bits."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes")
        self._cipher = AESGCM(raw)

    @staticmethod
    def generate() -> bytes:
        return random_bytes(KEY_BYTES)

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return the nonce followed by the cipher text."""
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plaintext, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the plaintext of a sealed value.

        Raises:
            Internal: another key or another context sealed the value, or it was changed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise Internal(_UNSEALABLE) from None


class MasterKeys:
    """The symmetric keys of a JWK set (RFC 7517, `oct`). The first key seals; all keys open.

    To rotate: append a new key in every process, move it to the front in every process, reseal what the old key has sealed, and remove the
    old key.
    """

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: `jwk_set` is not a JWK set of keys of 256 bits, or contains one key twice.
        """
        raws = self._decode(jwk_set)
        self._keys = {self._name(raw): SealingKey(raw) for raw in raws}
        if len(self._keys) < len(raws):
            raise StartupRefused("the master keys contain one key twice")
        self.current = next(iter(self._keys))
        """Name of the key that seals. It is stored before the cipher text, so that a rotation finds the values that are left."""

    @classmethod
    def generate(cls, *, beside: str | None = None) -> str:
        """Return a JWK set with one new key, as JSON. With `beside`, the new key follows the keys of that set.

        Raises:
            StartupRefused: `beside` is not a set of master keys.
        """
        key = {"kty": "oct", "k": urlsafe_b64encode(SealingKey.generate()).decode()}
        known = [] if beside is None else [{"kty": "oct", "k": urlsafe_b64encode(raw).decode()} for raw in cls._decode(beside)]
        return msgspec.json.encode({"keys": [*known, key]}).decode()

    def seal(self, plaintext: bytes, context: str) -> bytes:
        """Return the name of the sealing key, the nonce and the cipher text."""
        return self.current + self._keys[self.current].seal(plaintext, context)

    def open(self, sealed: bytes, context: str) -> bytes:
        """Return the plaintext of a sealed value.

        Raises:
            Internal: none of these keys sealed the value, it belongs to another context, or it was changed.
        """
        key = self._keys.get(sealed[:_NAME_BYTES])
        if key is None:
            raise Internal(_UNSEALABLE)
        return key.open(sealed[_NAME_BYTES:], context)

    def is_current(self, sealed: bytes) -> bool:
        """Return True if the first key sealed this value. Otherwise a rotation has yet to reseal it."""
        return sealed[:_NAME_BYTES] == self.current

    @staticmethod
    def _decode(jwk_set: str) -> list[bytes]:
        """
        Raises:
            StartupRefused: `jwk_set` is not a JWK set of keys of 256 bits.
        """
        try:
            raws = [urlsafe_b64decode(jwk.k.encode()) for jwk in msgspec.json.decode(jwk_set.encode(), type=SymmetricJwkSet).keys]
        except (msgspec.MsgspecError, UnicodeError, ValueError):
            raws = []
        if not raws or any(len(raw) != KEY_BYTES for raw in raws):
            # The library's message could quote a key, so it is not repeated.
            raise StartupRefused("the master keys are not a JWK set of `oct` keys of 256 bits")
        return raws

    @staticmethod
    def _name(raw: bytes) -> bytes:
        return digest("guerdon master key", raw)[:_NAME_BYTES]
