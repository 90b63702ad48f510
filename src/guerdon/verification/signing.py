"""The Ed25519 keys of checkpoints: a JWK set whose first key signs and all of whose keys verify. Public keys are enough to verify."""

import re
from typing import Any, Literal

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import deserialize_compact, serialize_compact
from joserfc.util import urlsafe_b64decode
from msgspec import Struct

from guerdon.crypto.jwk import ALGORITHM, Ed25519Jwk, Ed25519JwkSet, EdDsaRegistry, MismatchedKey, import_private, import_public
from guerdon.errors import StartupRefused

TYPE: Literal["guerdon-checkpoint"] = "guerdon-checkpoint"
_COMPACT = re.compile(r"([A-Za-z0-9_-]{1,1000})\.([A-Za-z0-9_-]{1,4000})\.[A-Za-z0-9_-]{86}\Z")


class BadSignature(Exception):
    """Not a checkpoint, or not signed by a key of ours; the message says which."""


class _CheckpointHeader(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["guerdon-checkpoint"]
    kid: str


class CheckpointKeys:
    """The keys of a JWK set. To rotate: put the new key in front, and keep the public half of the old one as long as its checkpoints."""

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: it is not a JWK set of Ed25519 keys with distinct `kid`s.
        """
        try:
            described = msgspec.json.decode(jwk_set, type=Ed25519JwkSet).keys
            self._keys = {jwk.kid: _import_key(jwk) for jwk in described}
        except (msgspec.MsgspecError, JoseError, ValueError) as error:
            raise StartupRefused(f"the checkpoint keys are not a set of Ed25519 keys with a kid each: {error}") from None
        if len(self._keys) < len(described):
            raise StartupRefused("the checkpoint keys name a kid twice")
        self._signing = described[0].kid
        self._registry = EdDsaRegistry()

    def public_set(self) -> str:
        """Return the public halves as a JWK set, for those who are to verify."""
        members = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM}
        keys = [{**members, "kid": kid, "x": key.as_dict(private=False)["x"]} for kid, key in self._keys.items()]
        return msgspec.json.encode({"keys": keys}).decode()

    def sign(self, payload: bytes) -> str:
        """Return the compact form of a signed checkpoint.

        Raises:
            StartupRefused: the first key is a public one.
        """
        key = self._keys[self._signing]
        if not key.is_private:
            raise StartupRefused("the first of the checkpoint keys is a public key, which cannot sign")
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self._signing}
        return serialize_compact(header, payload, key, registry=self._registry)

    def read(self, jws: Any) -> bytes:
        """Return what was signed.

        Raises:
            BadSignature: it is not a checkpoint, or no key of ours has signed it.
        """
        kid = _header_of(jws).kid
        key = self._keys.get(kid)
        if key is None:
            raise BadSignature(f"signed with the key {kid!r}, which is not among the checkpoint keys")
        try:
            return deserialize_compact(jws, key, registry=self._registry).payload
        except (JoseError, ValueError):
            raise BadSignature("the signature does not fit") from None

    @staticmethod
    def payload_of(jws: Any) -> bytes:
        """Return what a checkpoint says, without a key to prove that we have said it.

        Raises:
            BadSignature: it has not the form of a checkpoint.
        """
        _header_of(jws)
        return urlsafe_b64decode(str(jws).split(".")[1].encode())


def _header_of(jws: Any) -> _CheckpointHeader:
    match = _COMPACT.match(jws) if isinstance(jws, str) else None
    if match is None:
        raise BadSignature("not a signed checkpoint")
    try:
        return msgspec.json.decode(urlsafe_b64decode(match[1].encode()), type=_CheckpointHeader)
    except (msgspec.MsgspecError, ValueError):
        raise BadSignature("not the header of a checkpoint") from None


def _import_key(jwk: Ed25519Jwk) -> OKPKey:
    if jwk.d is None:
        return import_public(jwk.x)
    try:
        return import_private(jwk.x, jwk.d)
    except MismatchedKey:
        raise ValueError(f"the key {jwk.kid} has an x that does not belong to its d") from None
