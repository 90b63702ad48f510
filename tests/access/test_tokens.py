"""Access tokens: which ones are refused, above all."""

import base64
import json
import re

import pytest

from guerdon.access.token_keys import TokenKeys
from guerdon.access.tokens import CACHE_MAX, Tokens
from guerdon.errors import StartupRefused, Unauthenticated
from tests.access.conftest import JWK_SET, MEMBER, NOW, SESSION, HandClock
from tests.access.forged_tokens import Forger, forged_rows

FORGER = Forger(JWK_SET)
FORGED = forged_rows(FORGER)


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_forged_token_is_refused(tokens: Tokens, token: str) -> None:
    # The control first: the same forger's token without a fault passes, so the refusal is for the fault.
    assert tokens.verify(FORGER.sign(FORGER.header(), FORGER.claims())).sub == MEMBER
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refused:
            tokens.verify(token)
        assert refused.value.detail == "the access token is not valid or has expired"
        assert refused.value.__cause__ is None


def test_issued_token_has_the_documented_claims(tokens: Tokens) -> None:
    token = tokens.issue(MEMBER, "support", SESSION)
    header, claims, _ = (json.loads(base64.urlsafe_b64decode(part + "==")) for part in [*token.split(".")[:2], "e30"])
    assert header == {"typ": "at+jwt", "alg": "EdDSA", "kid": FORGER.kid}
    jti = claims.pop("jti")
    assert claims == {
        "iss": "guerdon", "aud": "guerdon", "sub": MEMBER, "iat": NOW, "nbf": NOW, "exp": NOW + 900, "role": "support", "sid": SESSION,
    }  # fmt: skip
    assert re.fullmatch(r"[0-9A-Za-z]{22}", jti)
    assert tokens.verify(token).role == "support"
    assert tokens.issue(MEMBER, "support", SESSION) != token


def test_unknown_claim_is_ignored(tokens: Tokens) -> None:
    assert tokens.verify(FORGER.sign(FORGER.header(), FORGER.claims(amr="later"))).sub == MEMBER


@pytest.mark.parametrize("seconds", [900, 929])
def test_leeway_is_thirty_seconds(tokens: Tokens, clock: HandClock, seconds: int) -> None:
    token = tokens.issue(MEMBER, "member", SESSION)
    clock.pass_seconds(seconds)
    assert tokens.verify(token).sub == MEMBER


def test_cache_never_outlives_the_token(tokens: Tokens, clock: HandClock, monkeypatch: pytest.MonkeyPatch) -> None:
    reads: list[str] = []
    read = tokens._verify_signature
    monkeypatch.setattr(tokens, "_verify_signature", lambda token, now_ms: reads.append(token) or read(token, now_ms))
    token = tokens.issue(MEMBER, "member", SESSION)
    tokens.verify(token)
    clock.pass_seconds(899)
    tokens.verify(token)
    assert len(reads) == 1
    clock.pass_seconds(1)
    tokens.verify(token)
    tokens.verify(token)
    assert len(reads) == 3, "from exp on, the signature is checked each time"
    clock.pass_seconds(30)
    with pytest.raises(Unauthenticated):
        tokens.verify(token)
    clock.ms = (NOW - 31) * 1000
    with pytest.raises(Unauthenticated):
        tokens.verify(token)


def test_cache_is_bounded_and_keeps_no_refused_token(tokens: Tokens) -> None:
    for token in FORGED.values():
        with pytest.raises(Unauthenticated):
            tokens.verify(token)
    assert not tokens._verified
    tokens.verify(tokens.issue(MEMBER, "member", SESSION))
    [proven] = tokens._verified.values()
    for number in range(CACHE_MAX + 10):
        tokens._remember(number.to_bytes(4), proven)
    assert len(tokens._verified) == CACHE_MAX


def test_another_issuer_with_the_same_keys_is_refused(clock: HandClock) -> None:
    staging = Tokens(TokenKeys(JWK_SET), clock, "staging", "guerdon", 900)
    ours = Tokens(TokenKeys(JWK_SET), clock, "guerdon", "guerdon", 900)
    with pytest.raises(Unauthenticated):
        ours.verify(staging.issue(MEMBER, "admin", SESSION))


@pytest.mark.parametrize("ttl_seconds", [0, -1, 901])
def test_lifetime_is_bounded(clock: HandClock, ttl_seconds: int) -> None:
    with pytest.raises(StartupRefused):
        Tokens(TokenKeys(JWK_SET), clock, "guerdon", "guerdon", ttl_seconds)
