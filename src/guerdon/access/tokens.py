"""Access tokens: JWTs signed with Ed25519 (RFC 8037, RFC 9068), verified without trusting any of their content.

Only tokens that this service can have signed are accepted: one algorithm, one type, three header fields, one of its own keys. A header that
names the address of a key, contains a key or asks for an extension is rejected before any other check.
"""

import re
from typing import Annotated, Literal

import msgspec
from joserfc.errors import JoseError
from joserfc.jws import deserialize_compact, serialize_compact
from joserfc.util import urlsafe_b64decode
from msgspec import Meta, Struct

from guerdon.access.signing_keys import Kid
from guerdon.access.token_keys import TokenKey, TokenKeys
from guerdon.clock import Clock
from guerdon.crypto.jwk import ALGORITHM, EdDsaRegistry
from guerdon.errors import GuerdonError, StartupRefused, Unauthenticated
from guerdon.http.body import decode
from guerdon.ids import digest, random_base62
from guerdon.permissions import Role

TYPE: Literal["at+jwt"] = "at+jwt"
TOKEN_LENGTH_MAX = 4096
LIFETIME_SECONDS_MAX = 900
LEEWAY_SECONDS = 30
"""Maximum difference between the clocks of two machines of a deployment."""
CACHE_MAX = 4096
"""Maximum number of verified tokens that a process remembers."""
_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]{86}\Z")
_REFUSAL = "the access token is not valid or has expired"

_Seconds = Annotated[int, Meta(ge=0, le=2**40)]


class _TokenHeader(Struct, frozen=True, forbid_unknown_fields=True):
    alg: Literal["EdDSA"]
    typ: Literal["at+jwt"]
    kid: Kid


class Claims(Struct, frozen=True):
    """The claims of a verified access token. Times are seconds since the epoch.

    Unknown claims are ignored, as RFC 7519 requires, so that a newer process may add one during a rolling upgrade.
    """

    iss: str
    aud: str
    sub: Annotated[str, Meta(pattern=r"^mem_[0-9a-f]{32}$(?!\n)")]
    """Id of the member."""
    iat: _Seconds
    nbf: _Seconds
    exp: _Seconds
    jti: Annotated[str, Meta(min_length=1, max_length=64)]
    sid: Annotated[str, Meta(pattern=r"^mem_[0-9a-f]{32}:[0-9A-Za-z]{12}$(?!\n)")]
    """Id of the session in which the token was issued."""
    role: Role


class _VerifiedToken(Struct, frozen=True):
    """The claims of a token, and the key that verified its signature."""

    claims: Claims
    key: TokenKey


class Tokens:
    """Issues and verifies access tokens."""

    def __init__(self, keys: TokenKeys, clock: Clock, issuer: str, audience: str, ttl_seconds: int) -> None:
        """
        Raises:
            StartupRefused: `ttl_seconds` is a lifetime that `verify` rejects.
        """
        if not 0 < ttl_seconds <= LIFETIME_SECONDS_MAX:
            raise StartupRefused(f"the lifetime of an access token is 1 to {LIFETIME_SECONDS_MAX} seconds")
        self._keys = keys
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self.ttl_seconds = ttl_seconds
        self._registry = EdDsaRegistry()
        # By the token's digest, in the order of last use. An entry is valid until the token's `exp`, and while its key is in use.
        self._verified: dict[bytes, _VerifiedToken] = {}

    def issue(self, member_id: str, role: Role, session_id: str) -> str:
        """Return a token that proves the identity of a member for `ttl_seconds`."""
        now_ms = self._clock.now_ms()
        now, signing_key = now_ms // 1000, self._keys.get_signing(now_ms)
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
        header = {"typ": TYPE, "alg": ALGORITHM, "kid": signing_key.described.kid}
        return serialize_compact(header, msgspec.json.encode(claims), signing_key.key, registry=self._registry)

    def verify(self, token: str) -> Claims:
        """Check a token completely and return its claims.

        Raises:
            Unauthenticated: the token is not valid. The message does not give the reason.
        """
        if len(token) > TOKEN_LENGTH_MAX or not token.isascii():
            raise Unauthenticated(_REFUSAL)
        now_ms = self._clock.now_ms()
        now, token_sha256 = now_ms // 1000, digest(token)
        verified = self._verified.pop(token_sha256, None)
        if verified is None or not self._is_current(verified, now_ms):
            verified = self._verify_signature(token, now_ms)
        claims = verified.claims
        if claims.iss != self._issuer or claims.aud != self._audience or not _is_sound(claims, now):
            raise Unauthenticated(_REFUSAL)
        if now >= claims.exp + LEEWAY_SECONDS:
            expired = Unauthenticated(_REFUSAL)
            expired.is_guess = False
            raise expired
        self._remember(token_sha256, verified)
        return claims

    def knows(self, token: str) -> bool:
        """Return True if this process has verified the token before and it is still valid."""
        verified = self._verified.get(digest(token)) if token.isascii() else None
        return verified is not None and self._is_current(verified, self._clock.now_ms())

    def _is_current(self, verified: _VerifiedToken, now_ms: int) -> bool:
        return now_ms // 1000 < verified.claims.exp and self._keys.find(verified.key.described.kid, now_ms) is verified.key

    def _verify_signature(self, token: str, now_ms: int) -> _VerifiedToken:
        """Check form, header and signature, in this order. The claims are decoded only after the signature is verified."""
        match = _COMPACT.match(token)
        if match is None:
            raise Unauthenticated(_REFUSAL)
        try:
            header = decode(urlsafe_b64decode(match[1].encode()), _TokenHeader)
            key = self._keys.find(header.kid, now_ms)
            if key is None:
                raise Unauthenticated(_REFUSAL)
            signed = deserialize_compact(token, key.key, registry=self._registry)
            return _VerifiedToken(decode(signed.payload, Claims), key)
        except (GuerdonError, JoseError, ValueError):
            raise Unauthenticated(_REFUSAL) from None

    def _remember(self, token_sha256: bytes, verified: _VerifiedToken) -> None:
        """Cache the outcome of a signature check, which takes 200 µs. A full cache drops the least recently used token."""
        self._verified[token_sha256] = verified
        if len(self._verified) > CACHE_MAX:
            del self._verified[next(iter(self._verified))]


def _is_sound(claims: Claims, now: int) -> bool:
    """Check the times of a token except its end. A lifetime that this service never grants is rejected even with a valid signature."""
    return (
        claims.iat <= now + LEEWAY_SECONDS
        and claims.nbf <= now + LEEWAY_SECONDS
        and 0 < claims.exp - claims.iat <= LIFETIME_SECONDS_MAX
    )
