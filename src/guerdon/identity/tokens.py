"""Access tokens: JWTs signed with Ed25519 (RFC 8037, RFC 9068), read without trusting a word of them.

Only what this service signs is accepted: one algorithm, one type, three header fields, a key of ours. A header that names a key's address,
brings a key along or asks for an extension is refused before anything is done with it.
"""

import re
from typing import Annotated, Literal

import msgspec
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jwk import OKPKey
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact
from joserfc.registry import HeaderParameter
from joserfc.util import urlsafe_b64decode
from msgspec import Meta, Struct

from guerdon.clock import Clock
from guerdon.errors import GuerdonError, StartupRefused, Unauthenticated
from guerdon.http import decode
from guerdon.identity.models import JwksView, PublicJwk
from guerdon.ids import digest, random_base62
from guerdon.security import Role

ALGORITHM: Literal["EdDSA"] = "EdDSA"
TYPE: Literal["at+jwt"] = "at+jwt"
TOKEN_LENGTH_MAX = 4096
LIFETIME_SECONDS_MAX = 900
LEEWAY_SECONDS = 30
"""How far the clocks of two of our machines may be apart."""
CACHE_MAX = 4096
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")
_REFUSAL = "the access token is not valid or has expired"

_Kid = Annotated[str, Meta(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9._~-]+$(?!\n)")]
_Seconds = Annotated[int, Meta(ge=0, le=2**40)]


class _Header(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["at+jwt"]
    kid: _Kid


class _PrivateJwk(Struct, frozen=True):
    kty: Literal["OKP"]
    crv: Literal["Ed25519"]
    kid: _Kid
    x: str
    d: str
    use: Literal["sig"] = "sig"
    alg: Literal["EdDSA", "Ed25519"] = ALGORITHM


class _JwkSet(Struct, frozen=True):
    keys: Annotated[list[_PrivateJwk], Meta(min_length=1, max_length=16)]


class Claims(Struct, frozen=True):
    """What a verified access token says. Times are seconds since the epoch.

    Unknown claims are ignored, as RFC 7519 asks, so that a newer process may add one during a rolling upgrade.
    """

    iss: str
    aud: str
    sub: Annotated[str, Meta(pattern=r"^mem_[0-9a-f]{32}$(?!\n)")]
    iat: _Seconds
    nbf: _Seconds
    exp: _Seconds
    jti: Annotated[str, Meta(min_length=1, max_length=64)]
    sid: Annotated[str, Meta(pattern=r"^mem_[0-9a-f]{32}:[0-9A-Za-z]{12}$(?!\n)")]
    """The session that the token was issued in."""
    role: Role


class _OneAlgorithm(JWSRegistry):
    """The library's registry cut down to one algorithm and three header fields.

    The stock registry knows `jku`, `jwk`, `crit` and the rest, and warns at each use of the name `EdDSA`, which RFC 9864 would
    replace by `Ed25519`; most verifiers in the field know only the older name, and our keys are pinned to that curve anyway.
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


class TokenKeys:
    """The Ed25519 keys of a JWK set: the first one signs, all of them verify.

    To rotate: add the new key at the end everywhere, then move it to the front, and drop the old one when its last token has expired.
    """

    def __init__(self, jwk_set: str) -> None:
        """
        Raises:
            StartupRefused: it is not a JWK set of Ed25519 private keys with distinct `kid`s.
        """
        try:
            described = decode(jwk_set.encode(), _JwkSet).keys
        except GuerdonError as error:
            raise StartupRefused(f"the token keys are not a set of Ed25519 private keys with a kid each: {error.detail}") from None
        except UnicodeEncodeError:
            raise StartupRefused("the token keys are not valid Unicode text") from None
        self._keys: dict[str, OKPKey] = {}
        for jwk in described:
            if jwk.kid in self._keys:
                raise StartupRefused(f"the token keys name the kid {jwk.kid} twice")
            self._keys[jwk.kid] = _import_key(jwk)
        self.signing_kid = described[0].kid
        self._public = JwksView([PublicJwk(kid, str(key.as_dict(private=False)["x"])) for kid, key in self._keys.items()])

    @staticmethod
    def generate() -> str:
        """Return a JWK set with one new private key, as JSON; its kid is the RFC 7638 thumbprint."""
        key = OKPKey.generate_key("Ed25519")
        described = {**key.as_dict(private=True), "kid": key.thumbprint(), "use": "sig", "alg": ALGORITHM}
        return msgspec.json.encode({"keys": [described]}).decode()

    def public_set(self) -> JwksView:
        """Return the public halves, built field by field so that no private member can slip through."""
        return self._public

    def get_key(self, kid: str) -> OKPKey:
        """
        Raises:
            Unauthenticated: no key has this name.
        """
        key = self._keys.get(kid)
        if key is None:
            raise Unauthenticated(_REFUSAL)
        return key


def _import_key(jwk: _PrivateJwk) -> OKPKey:
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


class Tokens:
    """Issues and verifies access tokens."""

    def __init__(self, keys: TokenKeys, clock: Clock, issuer: str, audience: str, ttl_seconds: int) -> None:
        """
        Raises:
            StartupRefused: a lifetime that `verify` would refuse.
        """
        if not 0 < ttl_seconds <= LIFETIME_SECONDS_MAX:
            raise StartupRefused(f"an access token lives 1 to {LIFETIME_SECONDS_MAX} seconds")
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self.ttl_seconds = ttl_seconds
        self._registry = _OneAlgorithm()
        # By the token's digest, in the order of last use; nothing here is believed from the token's `exp` on.
        self._verified: dict[bytes, Claims] = {}

    def issue(self, member_id: str, role: Role, session_id: str) -> str:
        """Return a token that says who somebody is for `ttl_seconds` from now."""
        now = self._clock.now_ms() // 1000
        claims = Claims(
            iss=self._issuer,
            aud=self._audience,
            sub=member_id,
            iat=now,
            nbf=now,
            exp=now + self.ttl_seconds,
            jti=random_base62(22),
            sid=session_id,
            role=role,
        )
        kid = self._keys.signing_kid
        header = {"typ": TYPE, "alg": ALGORITHM, "kid": kid}
        return serialize_compact(header, msgspec.json.encode(claims), self._keys.get_key(kid), registry=self._registry)

    def verify(self, token: str) -> Claims:
        """Return what a token says, once everything about it has been checked.

        Raises:
            Unauthenticated: anything at all is wrong with it; the answer does not say what.
        """
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise Unauthenticated(_REFUSAL)
        now = self._clock.now_ms() // 1000
        name = digest(token)
        claims = self._verified.pop(name, None)
        if claims is None or now >= claims.exp:
            claims = self._read(token)
        if claims.iss != self._issuer or claims.aud != self._audience or not _is_current(claims, now):
            raise Unauthenticated(_REFUSAL)
        self._remember(name, claims)
        return claims

    def _read(self, token: str) -> Claims:
        """Check form, header and signature, in this order; the claims are only decoded when they are ours."""
        match = _COMPACT.match(token)
        if match is None:
            raise Unauthenticated(_REFUSAL)
        try:
            header = decode(urlsafe_b64decode(match[1].encode()), _Header)
            signed = deserialize_compact(token, self._keys.get_key(header.kid), registry=self._registry)
            return decode(signed.payload, Claims)
        except (GuerdonError, JoseError, ValueError):
            raise Unauthenticated(_REFUSAL) from None

    def _remember(self, name: bytes, claims: Claims) -> None:
        """Keep the outcome of a signature check, which takes 200 µs; the least recently used of too many goes."""
        self._verified[name] = claims
        if len(self._verified) > CACHE_MAX:
            del self._verified[next(iter(self._verified))]


def _is_current(claims: Claims, now: int) -> bool:
    """Judge the times of a token; a lifetime that we never grant is a forgery or a fault, whatever the signature says."""
    return (
        claims.iat <= now + LEEWAY_SECONDS
        and claims.nbf <= now + LEEWAY_SECONDS
        and now < claims.exp + LEEWAY_SECONDS
        and 0 < claims.exp - claims.iat <= LIFETIME_SECONDS_MAX
    )
