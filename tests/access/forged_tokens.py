"""Forged access tokens: each is wrong in one respect only, and most are signed with the service's own key."""

import base64
import hashlib
import hmac
import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.hashes import SHA256
from joserfc.jwk import OKPKey

from tests.access.conftest import NOW, SESSION


def b64(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def segment(value: object) -> str:
    return b64(value if isinstance(value, bytes) else json.dumps(value, separators=(",", ":")).encode())


class Forger:
    """Signs whatever a test wants with the service's own key, so that each row is refused for its own fault only."""

    def __init__(self, jwk_set: str, *, now: int = NOW, session: str = SESSION, canary: str = "http://127.0.0.1:9") -> None:
        self.now = now
        self.session = session
        self.member = session.partition(":")[0]
        self.canary = canary
        self.jwk = json.loads(jwk_set)["keys"][0]
        self.kid = self.jwk["kid"]
        self.key = OKPKey.import_key(self.jwk)
        self.other = OKPKey.generate_key("Ed25519")

    def header(self, **changes: object) -> dict[str, object]:
        return without_dropped({"typ": "at+jwt", "alg": "EdDSA", "kid": self.kid, **changes})

    def claims(self, **changes: object) -> dict[str, object]:
        return without_dropped({
            "iss": "guerdon", "aud": "guerdon", "sub": self.member, "iat": self.now, "nbf": self.now, "exp": self.now + 900,
            "jti": "j" * 22, "sid": self.session,
            "role": "member", **changes,
        })  # fmt: skip

    def sign(self, header: object, claims: object, key: OKPKey | None = None) -> str:
        body = f"{segment(header)}.{segment(claims)}"
        private: Any = (key or self.key).private_key
        return f"{body}.{b64(private.sign(body.encode()))}"

    def p256(self, header: object, claims: object) -> str:
        body = f"{segment(header)}.{segment(claims)}"
        r, s = decode_dss_signature(ec.generate_private_key(ec.SECP256R1()).sign(body.encode(), ec.ECDSA(SHA256())))
        return f"{body}.{b64(r.to_bytes(32) + s.to_bytes(32))}"

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
        "jku": f.header(jku=f"{f.canary}/jwks.json"),
        "x5u": f.header(x5u=f"{f.canary}/jwks.json"),
        "jwk": f.header(jwk=f.other.as_dict(private=False)),
        "x5c": f.header(x5c=["AAAA"]),
        "crit": f.header(crit=["exp"], exp=f.now),
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
    hers = f.other.thumbprint()
    tokens["jku of the forger's own keys"] = f.sign(f.header(kid=hers, jku=f"{f.canary}/jwks.json"), claims, f.other)
    tokens["jwk that has signed it"] = f.sign(f.header(kid=hers, jwk=f.other.as_dict(private=False)), claims, f.other)
    tokens["jwk that has signed it, our kid"] = f.sign(f.header(jwk=f.other.as_dict(private=False)), claims, f.other)
    tokens["P-256"] = f.p256(f.header(alg="ES256"), claims)
    tokens["P-256 called EdDSA"] = f.p256(f.header(), claims)
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
        "sub with a line feed": f.claims(sub=f.member + "\n"),
        "jti missing": f.claims(jti=DROP),
        "sid missing": f.claims(sid=DROP),
        "sid of another form": f.claims(sid=f.member),
        "role missing": f.claims(role=DROP),
        "role unknown": f.claims(role="root"),
        "role a list": f.claims(role=["admin"]),
        "expired": f.claims(iat=f.now - 1000, nbf=f.now - 1000, exp=f.now - 100),
        "expired by the leeway": f.claims(iat=f.now - 500, nbf=f.now - 500, exp=f.now - 30),
        "not yet valid": f.claims(nbf=f.now + 31),
        "issued in the future": f.claims(iat=f.now + 31),
        "exp missing": f.claims(exp=DROP),
        "exp null": f.claims(exp=None),
        "exp a string": f.claims(exp=str(f.now + 900)),
        "exp true": f.claims(exp=True),
        "exp a float": f.claims(exp=f.now + 900.5),
        "exp 10^18": f.claims(exp=10**18),
        "exp of 4,400 bits": f.claims(exp=2**4400),
        "exp negative": f.claims(exp=-1),
        "exp NaN": segment_text(f.claims(exp=DROP), '"exp":NaN'),
        "exp Infinity": segment_text(f.claims(exp=DROP), '"exp":Infinity'),
        "exp twice": segment_text(f.claims(), f'"exp":{f.now + 800}'),
        "lives longer than we ever grant": f.claims(exp=f.now + 901),
        "dies before it is born": f.claims(iat=f.now + 20, exp=f.now + 10),
        "iat missing": f.claims(iat=DROP),
        "nbf missing": f.claims(nbf=DROP),
        "nbf a string": f.claims(nbf=str(f.now)),
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
        "a refresh token": f"gr_{'0' * 32}{'a' * 12}_{'b' * 71}",
        "other key": f.sign(f.header(), f.claims(), f.other),
        "zero signature": f"{head}.{body}.{'A' * 86}",
        "short signature": f"{head}.{body}.{signature[:40]}",
    }


def forged_rows(f: Forger) -> dict[str, str]:
    """Every forged token, by what is wrong with it."""
    return {**forged_headers(f), **forged_claims(f), **forged_forms(f)}
