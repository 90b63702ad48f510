"""The Ed25519 keys of this process (RFC 8037): read from a JWK set, replaced while the process runs, published as public keys."""

import msgspec
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from msgspec import Struct

from guerdon.access.models import JwksView, PublicJwk
from guerdon.access.signing_keys import KeySet, SigningKey, require_succession, signer_at
from guerdon.crypto.jwk import MismatchedKey, import_private
from guerdon.errors import GuerdonError, StartupRefused
from guerdon.http.body import decode

JWKS_MAX_AGE_SECONDS_MAX = 300


class TokenKey(Struct, frozen=True):
    """A usable key with its description."""

    described: SigningKey
    """The key and its times as the file gives them."""
    key: OKPKey


class TokenKeys:
    """The keys of a JWK set. `replace` exchanges them for the keys of another set at any time."""

    def __init__(self, jwk_set: str, max_age_seconds: int = JWKS_MAX_AGE_SECONDS_MAX) -> None:
        """
        Clients may cache the public set for `max_age_seconds`.

        Raises:
            StartupRefused: `jwk_set` is not a JWK set of Ed25519 private keys with distinct `kid`s, or no key signs at some time.
        """
        self._text = jwk_set
        self._keys = _usable(jwk_set)
        self.max_age_seconds = max_age_seconds

    @staticmethod
    def generate() -> str:
        """Return a JWK set with one new private key, as JSON; its kid is the RFC 7638 thumbprint."""
        return encode_set([new_signing_key()])

    def replace(self, jwk_set: str) -> bool:
        """Use the keys of `jwk_set` from now on. Return False if the set is the current one.

        Raises:
            StartupRefused: the set is not usable, as for the constructor. The keys stay as they are.
        """
        if jwk_set == self._text:
            return False
        self._keys = _usable(jwk_set)
        self._text = jwk_set
        return True

    def described(self) -> list[SigningKey]:
        """Return the descriptions of all keys, in the order of the set."""
        return [key.described for key in self._keys.values()]

    def get_signing(self, now_ms: int) -> TokenKey:
        """Return the key that signs at `now_ms`."""
        return self._keys[signer_at(self.described(), now_ms).kid]

    def find(self, kid: str, now_ms: int) -> TokenKey | None:
        """Return the key with this id, or None if it does not exist or has ended."""
        key = self._keys.get(kid)
        return None if key is None or key.described.has_ended(now_ms) else key

    def public_set(self, now_ms: int) -> JwksView:
        """Return the public keys that have not ended. They are built field by field, so that no private member is published."""
        active = [key.described for key in self._keys.values() if not key.described.has_ended(now_ms)]
        return JwksView([PublicJwk(key.kid, key.x) for key in active])


def new_signing_key() -> SigningKey:
    """Return a new key. Its `kid` is the RFC 7638 thumbprint."""
    key = OKPKey.generate_key("Ed25519")
    described = key.as_dict(private=True)
    return SigningKey(kty="OKP", crv="Ed25519", kid=key.thumbprint(), x=str(described["x"]), d=str(described["d"]))


def decode_set(jwk_set: str) -> list[SigningKey]:
    """Return the keys of a JWK set, without importing them.

    Raises:
        StartupRefused: `jwk_set` is not a JWK set of Ed25519 private keys with distinct `kid`s, or no key signs at some time.
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
        raise StartupRefused(f"the token keys contain the kid {repeated} twice")
    require_succession(keys)
    return keys


def encode_set(keys: list[SigningKey]) -> str:
    """Return the set as JSON for the file. Times that are not set are omitted."""
    rows = [{name: value for name, value in msgspec.structs.asdict(key).items() if value is not None} for key in keys]
    return msgspec.json.encode({"keys": rows}).decode()


def _usable(jwk_set: str) -> dict[str, TokenKey]:
    return {key.kid: TokenKey(key, _import_key(key)) for key in decode_set(jwk_set)}


def _import_key(jwk: SigningKey) -> OKPKey:
    try:
        return import_private(jwk.x, jwk.d)
    except MismatchedKey:
        raise StartupRefused(f"the token key {jwk.kid} has an x that does not belong to its d") from None
    except (JoseError, ValueError):
        raise StartupRefused(f"the token key {jwk.kid} is not an Ed25519 private key") from None
