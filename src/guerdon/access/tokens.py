"""Access tokens: JWTs signed with Ed25519 (RFC 8037, RFC 9068), read without trusting a word of them.

Only what this service signs is accepted: one algorithm, one type, three header fields, a key of ours. A header that names a key's address,
brings a key along or asks for an extension is refused before anything is done with it.
"""

import re
from typing import Annotated, Literal

import msgspec
from joserfc.errors import JoseError, UnsupportedAlgorithmError
from joserfc.jwa import JWSAlgModel
from joserfc.jws import JWSRegistry, deserialize_compact, serialize_compact
from joserfc.registry import HeaderParameter
from joserfc.util import urlsafe_b64decode
from msgspec import Meta, Struct

from guerdon.access.signing_keys import Kid
from guerdon.access.token_keys import TokenKey, TokenKeys
from guerdon.clock import Clock
from guerdon.errors import GuerdonError, StartupRefused, Unauthenticated
from guerdon.http.body import decode
from guerdon.ids import digest, random_base62
from guerdon.permissions import Role

ALGORITHM: Literal["EdDSA"] = "EdDSA"
TYPE: Literal["at+jwt"] = "at+jwt"
TOKEN_LENGTH_MAX = 4096
LIFETIME_SECONDS_MAX = 900
LEEWAY_SECONDS = 30
"""How far the clocks of two of our machines may be apart."""
CACHE_MAX = 4096
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")
_REFUSAL = "the access token is not valid or has expired"

_Seconds = Annotated[int, Meta(ge=0, le=2**40)]


class _TokenHeader(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["at+jwt"]
    kid: Kid


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


class _Proven(Struct, frozen=True):
    """Claims, and the very key that has proven them."""

    claims: Claims
    by: TokenKey


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
        # By the token's digest, in the order of last use; nothing here is believed from the token's `exp` on, or without its key.
        self._verified: dict[bytes, _Proven] = {}

    def issue(self, member_id: str, role: Role, session_id: str) -> str:
        """Return a token that says who somebody is for `ttl_seconds` from now."""
        now_ms = self._clock.now_ms()
        now, signing = now_ms // 1000, self._keys.get_signing(now_ms)
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
        header = {"typ": TYPE, "alg": ALGORITHM, "kid": signing.described.kid}
        return serialize_compact(header, msgspec.json.encode(claims), signing.key, registry=self._registry)

    def verify(self, token: str) -> Claims:
        """Return what a token says, once everything about it has been checked.

        Raises:
            Unauthenticated: anything at all is wrong with it; the answer does not say what.
        """
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise Unauthenticated(_REFUSAL)
        now_ms = self._clock.now_ms()
        now, name = now_ms // 1000, digest(token)
        proven = self._verified.pop(name, None)
        if proven is None or not self._still_proves(proven, now_ms):
            proven = self._read(token, now_ms)
        claims = proven.claims
        if claims.iss != self._issuer or claims.aud != self._audience or not _is_sound(claims, now):
            raise Unauthenticated(_REFUSAL)
        if now >= claims.exp + LEEWAY_SECONDS:
            expired = Unauthenticated(_REFUSAL)
            expired.is_guess = False
            raise expired
        self._remember(name, proven)
        return claims

    def knows(self, token: str) -> bool:
        """Tell whether the token was found to be good before, and has not ended since."""
        proven = self._verified.get(digest(token)) if token.isascii() else None
        return proven is not None and self._still_proves(proven, self._clock.now_ms())

    def _still_proves(self, proven: _Proven, now_ms: int) -> bool:
        return now_ms // 1000 < proven.claims.exp and self._keys.find(proven.by.described.kid, now_ms) is proven.by

    def _read(self, token: str, now_ms: int) -> _Proven:
        """Check form, header and signature, in this order; the claims are only decoded when they are ours."""
        match = _COMPACT.match(token)
        if match is None:
            raise Unauthenticated(_REFUSAL)
        try:
            header = decode(urlsafe_b64decode(match[1].encode()), _TokenHeader)
            by = self._keys.find(header.kid, now_ms)
            if by is None:
                raise Unauthenticated(_REFUSAL)
            signed = deserialize_compact(token, by.key, registry=self._registry)
            return _Proven(decode(signed.payload, Claims), by)
        except (GuerdonError, JoseError, ValueError):
            raise Unauthenticated(_REFUSAL) from None

    def _remember(self, name: bytes, proven: _Proven) -> None:
        """Keep the outcome of a signature check, which takes 200 µs; the least recently used of too many goes."""
        self._verified[name] = proven
        if len(self._verified) > CACHE_MAX:
            del self._verified[next(iter(self._verified))]


def _is_sound(claims: Claims, now: int) -> bool:
    """Judge the times of a token but its end; a lifetime that we never grant is a forgery or a fault, whatever the signature says."""
    return (
        claims.iat <= now + LEEWAY_SECONDS
        and claims.nbf <= now + LEEWAY_SECONDS
        and 0 < claims.exp - claims.iat <= LIFETIME_SECONDS_MAX
    )
