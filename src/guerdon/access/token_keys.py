"""The Ed25519 keys of this process (RFC 8037): read from a JWK set, exchanged while it runs, published by their public halves."""

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from msgspec import Struct

from guerdon.access.models import JwksView, PublicJwk
from guerdon.access.signing_keys import KeySet, SigningKey, require_succession, signer_at
from guerdon.errors import GuerdonError, StartupRefused
from guerdon.http.body import decode

JWKS_MAX_AGE_SECONDS_MAX = 300


class TokenKey(Struct, frozen=True):
    """A key that can be used, and its times."""

    described: SigningKey
    key: OKPKey


class TokenKeys:
    """The keys of a JWK set. They may be exchanged for those of another set at any moment."""

    def __init__(self, jwk_set: str, max_age_seconds: int = JWKS_MAX_AGE_SECONDS_MAX) -> None:
        """
        Others may keep the public set for `max_age_seconds` without asking again.

        Raises:
            StartupRefused: it is not a JWK set of Ed25519 private keys with distinct `kid`s, of which one signs at each moment.
        """
        self._text = jwk_set
        self._keys = _usable(jwk_set)
        self.max_age_seconds = max_age_seconds

    @staticmethod
    def generate() -> str:
        """Return a JWK set with one new private key, as JSON; its kid is the RFC 7638 thumbprint."""
        return encode_set([new_signing_key()])

    def replace(self, jwk_set: str) -> bool:
        """Use another set from now on; return whether it is another one.

        Raises:
            StartupRefused: as at the start; the keys stay as they are.
        """
        if jwk_set == self._text:
            return False
        self._keys = _usable(jwk_set)
        self._text = jwk_set
        return True

    def described(self) -> list[SigningKey]:
        return [each.described for each in self._keys.values()]

    def get_signing(self, now_ms: int) -> TokenKey:
        """Return the key that signs at this moment."""
        return self._keys[signer_at(self.described(), now_ms).kid]

    def find(self, kid: str, now_ms: int) -> TokenKey | None:
        """Return the key of this name, unless it has ended."""
        found = self._keys.get(kid)
        return None if found is None or found.described.has_ended(now_ms) else found

    def public_set(self, now_ms: int) -> JwksView:
        """Return the public halves, built field by field so that no private member can slip through."""
        living = [each.described for each in self._keys.values() if not each.described.has_ended(now_ms)]
        return JwksView([PublicJwk(key.kid, key.x) for key in living])


def new_signing_key() -> SigningKey:
    key = OKPKey.generate_key("Ed25519")
    described = key.as_dict(private=True)
    return SigningKey(kty="OKP", crv="Ed25519", kid=key.thumbprint(), x=str(described["x"]), d=str(described["d"]))


def decode_set(jwk_set: str) -> list[SigningKey]:
    """
    Raises:
        StartupRefused: as for `TokenKeys`, but whether the keys can be used is not tried.
    """
    try:
        keys = decode(jwk_set.encode(), KeySet).keys
    except GuerdonError as error:
        raise StartupRefused(f"the token keys are not a set of Ed25519 private keys with a kid each: {error.detail}") from None
    except UnicodeEncodeError:
        raise StartupRefused("the token keys are not valid Unicode text") from None
    kids = [key.kid for key in keys]
    repeated = next((kid for kid in kids if kids.count(kid) > 1), None)
    if repeated is not None:
        raise StartupRefused(f"the token keys name the kid {repeated} twice")
    require_succession(keys)
    return keys


def encode_set(keys: list[SigningKey]) -> str:
    """Return the set as the file holds it. Times that are not set are left out."""
    rows = [{name: value for name, value in msgspec.structs.asdict(key).items() if value is not None} for key in keys]
    return msgspec.json.encode({"keys": rows}).decode()


def _usable(jwk_set: str) -> dict[str, TokenKey]:
    return {key.kid: TokenKey(key, _import_key(key)) for key in decode_set(jwk_set)}


def _import_key(jwk: SigningKey) -> OKPKey:
    try:
        private = OKPKey.import_key({"kty": jwk.kty, "crv": jwk.crv, "x": jwk.x, "d": jwk.d}).private_key
    except (JoseError, ValueError):
        private = None
    if private is None:
        raise StartupRefused(f"the token key {jwk.kid} is not an Ed25519 private key")
    # Imported again without the given `x`: the library would publish it even when `d` belongs to another key, and then nobody
    # could verify our tokens.
    key = OKPKey.import_key(private)
    if key.as_dict(private=False)["x"] != jwk.x:
        raise StartupRefused(f"the token key {jwk.kid} has an x that does not belong to its d")
    return key
