"""JSON Web Keys (RFC 7517) of the kinds that this service uses: symmetric keys, and Ed25519 keys (RFC 8037) with their one signature algorithm."""

from typing import Annotated, Literal

from joserfc.errors import UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry
from joserfc.registry import HeaderParameter
from msgspec import Meta, Struct

ALGORITHM: Literal["EdDSA"] = "EdDSA"
KEYS_MAX = 16
"""Maximum number of keys in a set."""


class SymmetricJwk(Struct, frozen=True):
    """A symmetric key of 256 bits."""

    kty: Literal["oct"]
    k: Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{43}$(?!\n)")]
    """The key, base64url without padding."""


class SymmetricJwkSet(Struct, frozen=True):
    """A JWK set of symmetric keys."""

    keys: Annotated[list[SymmetricJwk], Meta(min_length=1, max_length=KEYS_MAX)]


class Ed25519Jwk(Struct, frozen=True):
    """An Ed25519 key, private when it has a `d`."""

    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: Annotated[str, Meta(min_length=1, max_length=128)]
    x: str
    d: str | None = None


class Ed25519JwkSet(Struct, frozen=True):
    """A JWK set of Ed25519 keys."""

    keys: Annotated[list[Ed25519Jwk], Meta(min_length=1, max_length=KEYS_MAX)]


class MismatchedKey(ValueError):
    """The public member `x` of a key does not belong to its private member `d`."""


class EdDsaRegistry(JWSRegistry):
    """The library's JWS registry reduced to one algorithm and the header fields `alg`, `typ` and `kid`, all of them required.

    The default registry knows `jku`, `jwk`, `crit` and the rest, and warns at each use of the name `EdDSA`, which RFC 9864 would
    replace by `Ed25519`. Most verifiers in use know only the older name, and our keys are pinned to that curve.
    """

    def __init__(self) -> None:
        super().__init__()
        self.header_registry = {
            "alg": HeaderParameter("Algorithm", "str", required=True),
            "typ": HeaderParameter("Type", "str", required=True),
            "kid": HeaderParameter("Key ID", "str", required=True),
        }

    def get_alg(self, name: str) -> JWSAlgModel:
        if name != ALGORITHM:
            raise UnsupportedAlgorithmError("only EdDSA is allowed")
        return self.algorithms[ALGORITHM]


def import_public(x: str) -> OKPKey:
    """Return the Ed25519 public key `x`.

    Raises:
        JoseError, ValueError: `x` is not an Ed25519 public key.
    """
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})


def import_private(x: str, d: str) -> OKPKey:
    """Return the Ed25519 private key `d`, whose public key is `x`.

    Raises:
        JoseError, ValueError: `d` is not an Ed25519 private key.
        MismatchedKey: `x` does not belong to `d`.
    """
    private = OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x, "d": d}).private_key
    if private is None:
        raise ValueError("not a private key")
    # Imported again without the given `x`: the library would publish it even when `d` belongs to another key, and then no
    # verifier would accept our signatures.
    key = OKPKey.import_key(private)
    if key.as_dict(private=False)["x"] != x:
        raise MismatchedKey("x does not belong to d")
    return key
