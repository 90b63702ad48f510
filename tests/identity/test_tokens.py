"""Which tokens are refused, above all; and which key sets stop the start."""

import base64
import hashlib
import hmac
import json
import re
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from joserfc.jwk import OKPKey

from guerdon.errors import StartupRefused, Unauthenticated
from guerdon.identity.tokens import CACHE_MAX, TokenKeys, Tokens
from tests.identity.conftest import JWK_SET, MEMBER, NOW, SESSION, HandClock

# --- access tokens --------------------------------------------------------------------------------------------------


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def segment(value: object) -> str:
    return b64(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


class Forger:
    """Signs whatever a test wants with the service's own key, so that each row is refused for its own fault only."""

    def __init__(self, jwk_set: str) -> None:
        self.jwk = json.loads(jwk_set)["keys"][0]
        self.kid = self.jwk["kid"]
        self.key = OKPKey.import_key(self.jwk)
        self.other = OKPKey.generate_key("Ed25519")

    def header(self, **changes: object) -> dict[str, object]:
        return without_dropped({"typ": "at+jwt", "alg": "EdDSA", "kid": self.kid, **changes})

    def claims(self, **changes: object) -> dict[str, object]:
        return without_dropped({
            "iss": "guerdon", "aud": "guerdon", "sub": MEMBER, "iat": NOW, "nbf": NOW, "exp": NOW + 900, "jti": "j" * 22, "sid": SESSION,
            "role": "member", **changes,
        })  # fmt: skip

    def sign(self, header: object, claims: object, key: OKPKey | None = None) -> str:
        body = f"{segment(header)}.{segment(claims)}"
        private: Any = (key or self.key).private_key
        return f"{body}.{b64(private.sign(body.encode()))}"

    def hmac(self, header: object, claims: object, secret: bytes) -> str:
        body = f"{segment(header)}.{segment(claims)}"
        return f"{body}.{b64(hmac.digest(secret, body.encode(), hashlib.sha256))}"


DROP = object()


def without_dropped(values: dict[str, object]) -> dict[str, object]:
    return {name: value for name, value in values.items() if value is not DROP}


def last_character_changed(token: str) -> str:
    """Another spelling of the same bytes: the last character of 64 bytes in base64 carries four unused bits."""
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    return token[:-1] + alphabet[alphabet.index(token[-1]) + 1]


def forged_headers(f: Forger) -> dict[str, str]:
    """Tokens whose header is wrong; all but the unsigned ones carry a signature that our own key really made."""
    claims = f.claims()
    rows: dict[str, object] = {
        "typ JWT": f.header(typ="JWT"),
        "typ of a refresh token": f.header(typ="rt+jwt"),
        "typ in capitals": f.header(typ="AT+JWT"),
        "typ missing": f.header(typ=DROP),
        "alg missing": f.header(alg=DROP),
        "alg a list": f.header(alg=["EdDSA"]),
        "alg null": f.header(alg=None),
        "alg ES256": f.header(alg="ES256"),
        "alg Ed448": f.header(alg="Ed448"),
        "alg in small letters": f.header(alg="eddsa"),
        "kid missing": f.header(kid=DROP),
        "kid empty": f.header(kid=""),
        "kid null": f.header(kid=None),
        "kid unknown": f.header(kid="another"),
        "kid path": f.header(kid="../../../../dev/null"),
        "kid query": f.header(kid={"$ne": None}),
        "kid a number": f.header(kid=0),
        "kid with a line feed": f.header(kid=f.kid + "\n"),
        "jku": f.header(jku="http://127.0.0.1:9/canary"),
        "x5u": f.header(x5u="http://127.0.0.1:9/canary"),
        "jwk": f.header(jwk=f.other.as_dict(private=False)),
        "x5c": f.header(x5c=["AAAA"]),
        "crit": f.header(crit=["exp"], exp=NOW),
        "crit empty": f.header(crit=[]),
        "crit a number": f.header(crit=1),
        "b64 false": f.header(b64=False, crit=["b64"]),
        "unknown header field": f.header(zip="DEF"),
        "header a list": [f.header()],
        "header a string": "alg EdDSA",
        "header a number": 1,
        "header not JSON": b"{",
        "header not UTF-8": b"\xff\xfe",
        "header too deep": b'{"alg":' + b"[" * 400 + b"]" * 400 + b"}",
        "kid twice": f'{{"typ":"at+jwt","alg":"EdDSA","kid":"x","kid":"{f.kid}"}}'.encode(),
    }
    tokens = {name: f.sign(header, claims) for name, header in rows.items()}
    public = base64.urlsafe_b64decode(f.jwk["x"] + "=")
    for alg in ("none", "None", "nOnE"):
        tokens[f"alg {alg}, no signature"] = f"{segment(f.header(alg=alg))}.{segment(claims)}."
        tokens[f"alg {alg}, signed"] = f.sign(f.header(alg=alg), claims)
    tokens["HS256 with the public key's bytes"] = f.hmac(f.header(alg="HS256"), claims, public)
    tokens["HS256 with the public key's text"] = f.hmac(f.header(alg="HS256"), claims, f.jwk["x"].encode())
    return tokens


def forged_claims(f: Forger) -> dict[str, str]:
    """Tokens of ours in every respect but one claim."""
    rows: dict[str, object] = {
        "iss wrong": f.claims(iss="somebody"),
        "iss missing": f.claims(iss=DROP),
        "aud wrong": f.claims(aud="somebody"),
        "aud missing": f.claims(aud=DROP),
        "aud a list": f.claims(aud=["guerdon", "somebody"]),
        "sub missing": f.claims(sub=DROP),
        "sub a query": f.claims(sub={"$gt": ""}),
        "sub not a member": f.claims(sub="anonymous"),
        "sub with a line feed": f.claims(sub=MEMBER + "\n"),
        "jti missing": f.claims(jti=DROP),
        "sid missing": f.claims(sid=DROP),
        "sid of another form": f.claims(sid=MEMBER),
        "role missing": f.claims(role=DROP),
        "role unknown": f.claims(role="root"),
        "role a list": f.claims(role=["admin"]),
        "expired": f.claims(iat=NOW - 1000, nbf=NOW - 1000, exp=NOW - 100),
        "expired by the leeway": f.claims(iat=NOW - 500, nbf=NOW - 500, exp=NOW - 30),
        "not yet valid": f.claims(nbf=NOW + 31),
        "issued in the future": f.claims(iat=NOW + 31),
        "exp missing": f.claims(exp=DROP),
        "exp null": f.claims(exp=None),
        "exp a string": f.claims(exp=str(NOW + 900)),
        "exp true": f.claims(exp=True),
        "exp a float": f.claims(exp=NOW + 900.5),
        "exp 10^18": f.claims(exp=10**18),
        "exp of 4,400 bits": f.claims(exp=2**4400),
        "exp negative": f.claims(exp=-1),
        "exp NaN": segment_text(f.claims(exp=DROP), '"exp":NaN'),
        "exp Infinity": segment_text(f.claims(exp=DROP), '"exp":Infinity'),
        "exp twice": segment_text(f.claims(), f'"exp":{NOW + 800}'),
        "lives longer than we ever grant": f.claims(exp=NOW + 901),
        "dies before it is born": f.claims(iat=NOW + 20, exp=NOW + 10),
        "iat missing": f.claims(iat=DROP),
        "nbf missing": f.claims(nbf=DROP),
        "nbf a string": f.claims(nbf=str(NOW)),
        "claims a list": [f.claims()],
        "claims null": None,
        "claims not JSON": b"{",
        "claims not UTF-8": b"\xff",
        "claims too deep": b"[" * 2000,
    }
    return {name: f.sign(f.header(), claims) for name, claims in rows.items()}


def segment_text(claims: dict[str, object], more: str) -> bytes:
    return (json.dumps(claims)[:-1] + "," + more + "}").encode()


def forged_forms(f: Forger) -> dict[str, str]:
    """Tokens whose outer form, or signature, is wrong."""
    good = f.sign(f.header(), f.claims())
    head, body, signature = good.split(".")
    longer = f.sign(f.header(), f.claims(role="admin")).split(".")[1]
    return {
        "empty": "",
        "one part": head,
        "two parts": f"{head}.{body}",
        "only dots": "..",
        "empty header": f".{body}.{signature}",
        "empty claims": f"{head}..{signature}",
        "empty signature": f"{head}.{body}.",
        "four parts": f"{good}.{signature}",
        "two signatures": f"{good}{signature}",
        "two tokens joined": f"{good}.{good}",
        "two tokens with a comma": f"{good},{good}",
        "five parts, as encrypted ones have": f"{head}.{body}.{signature}.{body}.{signature}",
        "trailing byte": good + "A",
        "trailing line feed": good + "\n",
        "leading space": " " + good,
        "padding": good + "==",
        "not canonical base64": last_character_changed(good),
        "standard alphabet": f"{head}.{body}.{'+/' * 43}",
        "not ASCII": good[:-1] + "é",
        "null byte": good + "\0",
        "1 MB": f"{head}.{'A' * 1_000_000}.{signature}",
        "signed by us, but too long": f.sign(f.header(), f.claims(more="x" * 3000)),
        "JSON serialisation": json.dumps({"protected": head, "payload": body, "signature": signature}),
        "other claims under the signature": f"{head}.{longer}.{signature}",
        "other key": f.sign(f.header(), f.claims(), f.other),
        "zero signature": f"{head}.{body}.{'A' * 86}",
        "short signature": f"{head}.{body}.{signature[:40]}",
    }


FORGER = Forger(JWK_SET)
FORGED = {**forged_headers(FORGER), **forged_claims(FORGER), **forged_forms(FORGER)}


@pytest.mark.parametrize("token", FORGED.values(), ids=FORGED.keys())
def test_forged_token_is_refused(tokens: Tokens, token: str) -> None:
    # The control first: the same forger's token without a fault passes, so the refusal is for the fault.
    assert tokens.verify(FORGER.sign(FORGER.header(), FORGER.claims())).sub == MEMBER
    for _ in range(2):
        with pytest.raises(Unauthenticated) as refused:
            tokens.verify(token)
        assert refused.value.detail == "the access token is not valid or has expired"
        assert refused.value.__cause__ is None


def test_issued_token_says_who_and_for_how_long(tokens: Tokens) -> None:
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
    read = tokens._read
    monkeypatch.setattr(tokens, "_read", lambda token: reads.append(token) or read(token))
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
    claims = tokens.verify(tokens.issue(MEMBER, "member", SESSION))
    for number in range(CACHE_MAX + 10):
        tokens._remember(number.to_bytes(4), claims)
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


# --- token keys -----------------------------------------------------------------------------------------------------


def jwk_set(*keys: dict[str, object]) -> str:
    return json.dumps({"keys": keys})


def key_of(text: str) -> dict[str, object]:
    return json.loads(text)["keys"][0]


def test_rotation_keeps_old_tokens_valid(clock: HandClock) -> None:
    old, new = key_of(TokenKeys.generate()), key_of(TokenKeys.generate())
    before = Tokens(TokenKeys(jwk_set(old, new)), clock, "guerdon", "guerdon", 900)
    after = Tokens(TokenKeys(jwk_set(new, old)), clock, "guerdon", "guerdon", 900)
    retired = Tokens(TokenKeys(jwk_set(new)), clock, "guerdon", "guerdon", 900)
    first, second = before.issue(MEMBER, "member", SESSION), after.issue(MEMBER, "member", SESSION)
    for verifier in (before, after):
        assert verifier.verify(first).sub == verifier.verify(second).sub == MEMBER
    assert retired.verify(second).sub == MEMBER
    with pytest.raises(Unauthenticated):
        retired.verify(first)


def test_public_set_has_no_private_member() -> None:
    private = [key_of(TokenKeys.generate()) for _ in range(3)]
    private[1]["oth"] = "not a public field either"
    text = msgspec.json.encode(TokenKeys(jwk_set(*private)).public_set()).decode()
    published = json.loads(text)["keys"]
    assert [set(key) for key in published] == [{"kid", "x", "kty", "crv", "use", "alg"}] * 3
    assert [key["kid"] for key in published] == [key["kid"] for key in private]
    for key in private:
        assert str(key["d"]) not in text
    assert "not a public field" not in text


def test_generated_keys_differ_and_are_named_by_thumbprint() -> None:
    one, two = key_of(TokenKeys.generate()), key_of(TokenKeys.generate())
    assert one["d"] != two["d"]
    assert one["kid"] == OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": one["x"]}).thumbprint()


def bad_key_sets() -> Iterator[tuple[str, str]]:
    good, other = key_of(TokenKeys.generate()), key_of(TokenKeys.generate())
    x25519 = {**OKPKey.generate_key("X25519").as_dict(private=True), "kid": "a"}
    yield "not JSON", "secret"
    yield "no keys", jwk_set()
    yield "one key instead of a set", json.dumps(good)
    yield "no kid", jwk_set({name: value for name, value in good.items() if name != "kid"})
    yield "empty kid", jwk_set({**good, "kid": ""})
    yield "same kid", jwk_set(good, {**other, "kid": good["kid"]})
    yield "public key", jwk_set({name: value for name, value in good.items() if name != "d"})
    yield "second key public", jwk_set(good, {name: value for name, value in other.items() if name != "d"})
    yield "X25519", jwk_set(x25519)
    yield "X25519 called Ed25519", jwk_set({**x25519, "crv": "Ed25519"})
    yield "symmetric", jwk_set({"kty": "oct", "k": "c2VjcmV0", "kid": "a"})
    yield "for encryption", jwk_set({**good, "use": "enc"})
    yield "for another algorithm", jwk_set({**good, "alg": "HS256"})
    yield "x of another key", jwk_set({**good, "x": other["x"]})
    yield "short d", jwk_set({**good, "d": "AAAA"})
    yield "d not base64", jwk_set({**good, "d": "*" * 43})
    yield "d a number", jwk_set({**good, "d": 1})


@pytest.mark.parametrize(("name", "text"), [pytest.param(*row, id=row[0]) for row in bad_key_sets()])
def test_unusable_key_set_stops_the_start(name: str, text: str) -> None:
    with pytest.raises(StartupRefused) as refused:
        TokenKeys(text)
    secrets = re.findall(r'"d": ?"([^"]{20,})"', text)
    assert not any(secret in refused.value.detail for secret in secrets)
