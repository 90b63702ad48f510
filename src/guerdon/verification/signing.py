"""The Ed25519 keys of checkpoints: a JWK set whose first key signs and all of whose keys verify. Public keys are enough to verify."""

import re
from typing import Annotated, Any, Literal

import msgspec
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact
from joserfc.registry import HeaderParameter
from joserfc.util import urlsafe_b64decode
from msgspec import Meta, Struct

from guerdon.errors import StartupRefused

ALGORITHM: Literal["EdDSA"] = "EdDSA"
TYPE: Literal["guerdon-checkpoint"] = "guerdon-checkpoint"
_COMPACT = re.compile(r"([A-Za-z0-9_-]{1,1000})\.([A-Za-z0-9_-]{1,4000})\.[A-Za-z0-9_-]{86}\Z")


class BadSignature(Exception):
    """Not a checkpoint, or not signed by a key of ours; the message says which."""


class _Jwk(Struct, frozen=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: Annotated[str, Meta(min_length=1, max_length=128)]
    x: str
    d: str | None = None


class _JwkSet(Struct, frozen=True):
    keys: Annotated[list[_Jwk], Meta(min_length=1, max_length=16)]


class _CheckpointHeader(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["guerdon-checkpoint"]
    kid: str


class _OneAlgorithm(JWSRegistry):
    """The library's registry cut down to one algorithm and three header fields.

    It warns at each use of the name `EdDSA`, which RFC 9864 would replace by `Ed25519`; most tools know only the older name.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_registry = {name: HeaderParameter(name, "str", required=True) for name in ("alg", "typ", "kid")}

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != ALGORITHM:
            raise UnsupportedAlgorithmError("only EdDSA is allowed")
        return self.algorithms[ALGORITHM]


class CheckpointKeys:
    """The keys of a JWK set. To rotate: put the new key in front, and keep the public half of the old one as long as its checkpoints."""

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: it is not a JWK set of Ed25519 keys with distinct `kid`s.
        """
        try:
            described = msgspec.json.decode(jwk_set, type=_JwkSet).keys
            self._keys = {jwk.kid: _import_key(jwk) for jwk in described}
        except (msgspec.MsgspecError, JoseError, ValueError) as error:
            raise StartupRefused(f"the checkpoint keys are not a set of Ed25519 keys with a kid each: {error}") from None
        if len(self._keys) < len(described):
            raise StartupRefused("the checkpoint keys name a kid twice")
        self._signing = described[0].kid
        self._registry = _OneAlgorithm()

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


def _import_key(jwk: _Jwk) -> OKPKey:
    public = OKPKey.import_key({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x})
    if jwk.d is None:
        return public
    private = OKPKey.import_key({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "d": jwk.d}).private_key
    # Imported again without the given `x`: the library would take it even when `d` belongs to another key.
    key = OKPKey.import_key(private) if private is not None else None
    if key is None or key.as_dict(private=False)["x"] != jwk.x:
        raise ValueError(f"the key {jwk.kid} has an x that does not belong to its d")
    return key
