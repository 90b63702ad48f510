"""Ed25519 keys of checkpoints: a JWK set (RFC 7517, RFC 8037). The first key signs; all keys verify. Public keys are sufficient to verify."""

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
    """The text is not a checkpoint, or not signed by a known key; the message gives the reason."""


class _CheckpointHeader(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["guerdon-checkpoint"]
    kid: str


class CheckpointKeys:
    """Keys of a JWK set. To rotate the keys, put the new key first, and keep the public half of the old key as long as its checkpoints."""

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: `jwk_set` is not a JWK set of Ed25519 keys with distinct `kid`s.
        """
        try:
            described = msgspec.json.decode(jwk_set, type=Ed25519JwkSet).keys
            self._keys = {jwk.kid: _import_key(jwk) for jwk in described}
        except (msgspec.MsgspecError, JoseError, ValueError) as error:
            raise StartupRefused(f"the checkpoint keys are not a JWK set of Ed25519 keys, each with a kid: {error}") from None
        if len(self._keys) < len(described):
            raise StartupRefused("the checkpoint keys contain the same kid twice")
        self._signing = described[0].kid
        self._registry = EdDsaRegistry()

    def public_set(self) -> str:
        """Return the public keys as a JWK set, for auditors."""
        members = {"kty": "OKP", "crv": "Ed25519", "use": "sig", "alg": ALGORITHM}
        keys = [{**members, "kid": kid, "x": key.as_dict(private=False)["x"]} for kid, key in self._keys.items()]
        return msgspec.json.encode({"keys": keys}).decode()

    def sign(self, payload: bytes) -> str:
        """Sign a payload and return the JWS in compact form.

        Raises:
            StartupRefused: the first key is a public key.
        """
        key = self._keys[self._signing]
        if not key.is_private:
            raise StartupRefused("the first of the checkpoint keys is a public key, which cannot sign")
        header = {"alg": ALGORITHM, "typ": TYPE, "kid": self._signing}
        return serialize_compact(header, payload, key, registry=self._registry)

    def read(self, jws: Any) -> bytes:
        """Verify the signature and return the payload.

        Raises:
            BadSignature: `jws` is not a checkpoint, or not signed by a known key.
        """
        kid = _header_of(jws).kid
        key = self._keys.get(kid)
        if key is None:
            raise BadSignature(f"signed with the key {kid!r}, which is not among the checkpoint keys")
        try:
            return deserialize_compact(jws, key, registry=self._registry).payload
        except (JoseError, ValueError):
            raise BadSignature("the signature is invalid") from None

    @staticmethod
    def payload_of(jws: Any) -> bytes:
        """Return the payload of a checkpoint without verifying the signature.

        Raises:
            BadSignature: `jws` does not have the form of a checkpoint.
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
        raise BadSignature("the header is not that of a checkpoint") from None


def _import_key(jwk: Ed25519Jwk) -> OKPKey:
    if jwk.d is None:
        return import_public(jwk.x)
    try:
        return import_private(jwk.x, jwk.d)
    except MismatchedKey:
        raise ValueError(f"the key {jwk.kid} has an x that does not belong to its d") from None
