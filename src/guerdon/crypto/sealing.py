"""Sealing: AES-256-GCM (NIST SP 800-38D), and the master keys that everything else is sealed under.

What is sealed is bound to a context (whose it is, and what), so that it cannot be moved to another place and opened there.
"""

from typing import Annotated, Literal

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from joserfc.util import urlsafe_b64decode, urlsafe_b64encode
from msgspec import Meta, Struct

from guerdon.errors import Internal, StartupRefused
from guerdon.ids import digest, random_bytes

KEY_BYTES = 32
_NONCE_BYTES = 12
"""Random for every text. One key may seal 2^32 of them; a person's has a handful, a master key one for every person and rotation."""
_NAME_BYTES = 8
_UNSEALABLE = "something sealed cannot be opened: its key is gone, or it was changed"


class SealingKey:
    """One key of 256 bits."""

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ValueError(f"a sealing key has {KEY_BYTES} bytes")
        self._cipher = AESGCM(raw)

    @staticmethod
    def generate() -> bytes:
        return random_bytes(KEY_BYTES)

    def seal(self, plain: bytes, context: str) -> bytes:
        """Return nonce and cipher text."""
        nonce = random_bytes(_NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, plain, context.encode())

    def open(self, sealed: bytes, context: str) -> bytes:
        """
        Raises:
            Internal: another key or another context sealed it, or it was changed.
        """
        try:
            return self._cipher.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], context.encode())
        except (InvalidTag, ValueError):
            raise Internal(_UNSEALABLE) from None


class _Jwk(Struct, frozen=True):
    kty: Literal["oct"]
    k: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$(?!\n)")]


class _JwkSet(Struct, frozen=True):
    keys: Annotated[list[_Jwk], Meta(min_length=1, max_length=16)]


class MasterKeys:
    """The symmetric keys of a JWK set (RFC 7517, `oct`): the first one seals, all of them open.

    To rotate: put a new key behind the old one everywhere, then move it to the front everywhere, seal again what the old one has sealed, and
    drop that.
    """

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: it is not a JWK set of keys of 256 bits.
        """
        raws = self._decode(jwk_set)
        self._keys = {self._name(raw): SealingKey(raw) for raw in raws}
        if len(self._keys) < len(raws):
            raise StartupRefused("the master keys hold one key twice")
        self.current = next(iter(self._keys))
        """The name of the key that seals: what is stored beside a cipher text, so that a rotation finds what is left to do."""

    @classmethod
    def generate(cls, *, beside: str | None = None) -> str:
        """Return a JWK set with one new key, as JSON; with `beside`, behind the keys of that set.

        Raises:
            StartupRefused: `beside` is no set of master keys.
        """
        key = {"kty": "oct", "k": urlsafe_b64encode(SealingKey.generate()).decode()}
        known = [] if beside is None else [{"kty": "oct", "k": urlsafe_b64encode(raw).decode()} for raw in cls._decode(beside)]
        return msgspec.json.encode({"keys": [*known, key]}).decode()

    def seal(self, plain: bytes, context: str) -> bytes:
        """Return the name of the sealing key, nonce and cipher text."""
        return self.current + self._keys[self.current].seal(plain, context)

    def open(self, sealed: bytes, context: str) -> bytes:
        """
        Raises:
            Internal: none of these keys sealed it, or it belongs to another context, or it was changed.
        """
        key = self._keys.get(sealed[:_NAME_BYTES])
        if key is None:
            raise Internal(_UNSEALABLE)
        return key.open(sealed[_NAME_BYTES:], context)

    def is_current(self, sealed: bytes) -> bool:
        """Tell whether the first key sealed this; if not, a rotation is still to seal it again."""
        return sealed[:_NAME_BYTES] == self.current

    @staticmethod
    def _decode(jwk_set: str) -> list[bytes]:
        """
        Raises:
            StartupRefused: it is not a JWK set of keys of 256 bits.
        """
        try:
            raws = [urlsafe_b64decode(jwk.k.encode()) for jwk in msgspec.json.decode(jwk_set.encode(), type=_JwkSet).keys]
        except (msgspec.MsgspecError, UnicodeError, ValueError):
            raws = []
        if not raws or any(len(raw) != KEY_BYTES for raw in raws):
            # Not the library's sentence: it could quote a key.
            raise StartupRefused("the master keys are not a JWK set of `oct` keys of 256 bits")
        return raws

    @staticmethod
    def _name(raw: bytes) -> bytes:
        return digest("guerdon master key", raw)[:_NAME_BYTES]
