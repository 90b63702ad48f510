"""The keys that sign: which sets stop the start, which key signs when, and what rotating and revoking do to everybody."""

import base64
import json
import random
import re
from collections.abc import Iterator

import msgspec
import pytest
from joserfc.jwk import OKPKey

from guerdon.access.key_file import CHECK_SECONDS
from guerdon.access.signing_keys import KEYS_MAX, State, revoked, rotated, state_of
from guerdon.access.token_keys import JWKS_MAX_AGE_SECONDS_MAX, TokenKeys, decode_set, encode_set, new_signing_key
from guerdon.access.tokens import LEEWAY_SECONDS, LIFETIME_SECONDS_MAX, Tokens
from guerdon.cli.token_keys import MARGIN_SECONDS
from guerdon.errors import NotFound, StartupRefused, Unauthenticated, Validation
from tests.access.conftest import JWK_SET, MEMBER, NOW, SESSION, HandClock

WAIT_MS = 60_000
OVERLAP_MS = (900 + 30) * 1000

# --- sets -----------------------------------------------------------------------------------------------------------


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


def test_public_key_set_has_no_private_field() -> None:
    private = [key_of(TokenKeys.generate()) for _ in range(3)]
    private[1]["oth"] = "not a public field either"
    text = msgspec.json.encode(TokenKeys(jwk_set(*private)).public_set(NOW)).decode()
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
    yield "17 keys", jwk_set(*(key_of(TokenKeys.generate()) for _ in range(KEYS_MAX + 1)))
    yield "the only one ends", jwk_set({**good, "verifies_until": NOW})
    yield "ends before the next one signs", jwk_set({**good, "verifies_until": 5}, {**other, "signs_from": 6})
    yield "the last one ends", jwk_set(good, {**other, "signs_from": 6, "verifies_until": 7})
    yield "signs_from a string", jwk_set({**good, "signs_from": "now"})
    yield "signs_from negative", jwk_set({**good, "signs_from": -1})


@pytest.mark.parametrize(("name", "text"), [pytest.param(*row, id=row[0]) for row in bad_key_sets()])
def test_unusable_key_set_stops_the_start(name: str, text: str) -> None:
    with pytest.raises(StartupRefused) as refused:
        TokenKeys(text)
    secrets = re.findall(r'"d": ?"([^"]{20,})"', text)
    assert not any(secret in refused.value.detail for secret in secrets)


# --- times ----------------------------------------------------------------------------------------------------------


def rotate(text: str, now_ms: int, wait_ms: int = WAIT_MS) -> str:
    return encode_set(rotated(decode_set(text), new_signing_key(), now_ms, wait_ms=wait_ms, overlap_ms=OVERLAP_MS))


def revoke(text: str, kid: str, now_ms: int) -> str:
    return encode_set(revoked(decode_set(text), kid, new_signing_key(), now_ms, overlap_ms=OVERLAP_MS))


def states(text: str, now_ms: int) -> list[State]:
    keys = decode_set(text)
    return [state_of(key, keys, now_ms) for key in keys]


def kid_of(token: str) -> str:
    return str(json.loads(base64.urlsafe_b64decode(token.partition(".")[0] + "=="))["kid"])


def test_one_write_of_the_file_completes_a_rotation(clock: HandClock) -> None:
    keys = TokenKeys(JWK_SET)
    tokens = Tokens(keys, clock, "guerdon", "guerdon", 900)
    text = rotate(JWK_SET, clock.now_ms())
    assert keys.replace(text)
    assert not keys.replace(text), "the same again is no change"
    [old, new] = [key.kid for key in decode_set(text)]

    def published() -> list[str]:
        return [key.kid for key in keys.public_set(clock.now_ms()).keys]

    assert (states(text, clock.now_ms()), published()) == (["signing", "next"], [old, new])
    clock.pass_seconds(59.999)
    last = tokens.issue(MEMBER, "member", SESSION)
    assert kid_of(last) == old
    clock.pass_seconds(0.001)
    first = tokens.issue(MEMBER, "member", SESSION)
    assert kid_of(first) == new
    assert (states(text, clock.now_ms()), published()) == (["retiring", "signing"], [old, new])
    clock.pass_seconds(928)
    assert tokens.verify(last).sub == tokens.verify(first).sub == MEMBER, "to its end, with the leeway"
    clock.pass_seconds(2)
    assert (states(text, clock.now_ms()), published()) == (["ended", "signing"], [new])
    with pytest.raises(Unauthenticated):
        tokens.verify(last)
    again = rotate(text, clock.now_ms())
    assert (states(again, clock.now_ms()), decode_set(again)[0].kid) == (["signing", "next"], new), "what has ended is dropped"


def test_tokens_of_an_ended_key_are_refused_despite_the_cache(clock: HandClock) -> None:
    """A hand-made end that comes before its last token's: the memory of proven tokens must not outlive the key."""
    old, new = key_of(JWK_SET), {**key_of(TokenKeys.generate()), "signs_from": (NOW + 10) * 1000}
    tokens = Tokens(TokenKeys(jwk_set({**old, "verifies_until": (NOW + 20) * 1000}, new)), clock, "guerdon", "guerdon", 900)
    token = tokens.issue(MEMBER, "member", SESSION)
    clock.pass_seconds(19)
    assert tokens.verify(token).sub == MEMBER
    clock.pass_seconds(1)
    with pytest.raises(Unauthenticated):
        tokens.verify(token)


def test_tokens_of_a_replaced_key_set_are_refused_despite_the_cache(clock: HandClock) -> None:
    keys = TokenKeys(JWK_SET)
    tokens = Tokens(keys, clock, "guerdon", "guerdon", 900)
    token = tokens.issue(MEMBER, "member", SESSION)
    tokens.verify(token)
    same_name = {**key_of(TokenKeys.generate()), "kid": key_of(JWK_SET)["kid"]}
    for other in (revoke(JWK_SET, str(key_of(JWK_SET)["kid"]), clock.now_ms()), jwk_set(same_name)):
        keys.replace(other)
        with pytest.raises(Unauthenticated):
            tokens.verify(token)
        assert tokens.verify(tokens.issue(MEMBER, "member", SESSION)).sub == MEMBER
        keys.replace(JWK_SET)
        assert tokens.verify(token).sub == MEMBER


def test_unusable_replacement_key_set_changes_nothing(clock: HandClock) -> None:
    keys = TokenKeys(JWK_SET)
    tokens = Tokens(keys, clock, "guerdon", "guerdon", 900)
    token = tokens.issue(MEMBER, "member", SESSION)
    for _, text in bad_key_sets():
        with pytest.raises(StartupRefused):
            keys.replace(text)
    assert (tokens.verify(token).sub, [key.kid for key in keys.described()]) == (MEMBER, [key_of(JWK_SET)["kid"]])


def test_rotation_of_a_handmade_set_retires_keys_that_do_not_sign(clock: HandClock) -> None:
    text = rotate(jwk_set(key_of(JWK_SET), key_of(TokenKeys.generate())), clock.now_ms())
    assert states(text, clock.now_ms()) == ["signing", "retiring", "next"]
    assert len({key.verifies_until for key in decode_set(text)[:2]}) == 1
    assert states(text, clock.now_ms() + WAIT_MS + OVERLAP_MS) == ["ended", "ended", "signing"]


def test_repeated_rotations_take_effect_one_after_another(clock: HandClock) -> None:
    text = JWK_SET
    for _ in range(KEYS_MAX - 1):
        text = rotate(text, clock.now_ms())
    assert states(text, clock.now_ms()) == ["signing", *["next"] * (KEYS_MAX - 1)]
    assert len({key.signs_from for key in decode_set(text)}) == KEYS_MAX
    with pytest.raises(Validation):
        rotate(text, clock.now_ms())
    later = clock.now_ms() + WAIT_MS + KEYS_MAX
    assert states(text, later) == [*["retiring"] * (KEYS_MAX - 1), "signing"]
    assert states(rotate(text, later + OVERLAP_MS), later + OVERLAP_MS) == ["signing", "next"]


def test_revoking_the_signing_key_promotes_the_next_immediately(clock: HandClock) -> None:
    now, kid = clock.now_ms(), str(key_of(JWK_SET)["kid"])
    alone = revoke(JWK_SET, kid, now)
    assert states(alone, now) == ["signing"]
    assert kid not in alone
    waiting = rotate(JWK_SET, now)
    promoted = revoke(waiting, kid, now)
    assert [key.kid for key in decode_set(promoted)] == [decode_set(waiting)[1].kid], "others have seen the next one already"
    assert [key.signs_from for key in decode_set(promoted)] == [now]
    switched = now + WAIT_MS
    retired = revoke(waiting, decode_set(waiting)[1].kid, switched)
    assert (decode_set(retired)[0].kid, states(retired, switched)) == (kid, ["retiring", "signing"]), "the old one does not return"
    with pytest.raises(NotFound):
        revoke(alone, kid, now)


def test_revoking_the_next_or_a_retiring_one_leaves_the_signing_one(clock: HandClock) -> None:
    now, waiting = clock.now_ms(), rotate(JWK_SET, clock.now_ms())
    [old, new] = decode_set(waiting)
    called_off = decode_set(revoke(waiting, new.kid, now))
    assert [(key.kid, key.verifies_until) for key in called_off] == [(old.kid, None)], "it goes on without an end"
    switched = now + WAIT_MS
    cut_short = decode_set(revoke(waiting, old.kid, switched))
    assert [(key.kid, key.signs_from) for key in cut_short] == [(new.kid, new.signs_from)]
    both = revoke(revoke(waiting, new.kid, now), old.kid, now)
    assert states(both, now) == ["signing"]
    assert not {key.kid for key in decode_set(both)} & {old.kid, new.kid}


def test_keys_show_nothing_private_when_they_are_printed() -> None:
    key = new_signing_key()
    assert (
        key.d not in f"{key} {[key]!r} {TokenKeys(encode_set([key])).described()} {TokenKeys(encode_set([key])).find(key.kid, 0)}"
    )


# --- many processes ---------------------------------------------------------------------------------------------------


class Host:
    """A process with a clock of its own, which sees a change of the file some time later."""

    def __init__(self, chance: random.Random) -> None:
        self.skew_ms = chance.randint(-LEEWAY_SECONDS * 500, LEEWAY_SECONDS * 500)
        self.keys = TokenKeys(JWK_SET)
        self._coming: list[tuple[int, str]] = []

    def hear(self, text: str, at_ms: int) -> None:
        self._coming.append((at_ms, text))

    def look(self, now_ms: int) -> None:
        while self._coming and self._coming[0][0] <= now_ms:
            self.keys.replace(self._coming.pop(0)[1])

    def sign(self, now_ms: int) -> str:
        return self.keys.get_signing(now_ms + self.skew_ms).described.kid

    def believes(self, kid: str, now_ms: int) -> bool:
        return self.keys.find(kid, now_ms + self.skew_ms) is not None

    def published(self, now_ms: int) -> set[str]:
        return {key.kid for key in self.keys.public_set(now_ms + self.skew_ms).keys}


@pytest.mark.parametrize("seed", range(4))
def test_no_rotation_fails_a_valid_token(seed: int) -> None:
    """Four hosts whose clocks differ by up to 30 s and whose files come late, and somebody who asks for our keys every 300 s only."""
    chance = random.Random(seed)
    hosts = [Host(chance) for _ in range(4)]
    text, cached, rotations, checked = JWK_SET, set[str](), 0, 0
    tokens: list[tuple[str, int]] = []
    start = NOW * 1000
    for now in range(start, start + 3 * 3_600_000, 1000):
        if chance.random() < 1 / 1500:
            wait_ms = int(JWKS_MAX_AGE_SECONDS_MAX + CHECK_SECONDS + MARGIN_SECONDS) * 1000
            text, rotations = rotate(text, now + chance.choice(hosts).skew_ms, wait_ms), rotations + 1
            for host in hosts:
                host.hear(text, now + chance.randint(0, 200_000))
        for host in hosts:
            host.look(now)
        if (now - start) % (JWKS_MAX_AGE_SECONDS_MAX * 1000) == 0:
            cached = chance.choice(hosts).published(now)
        tokens.append((chance.choice(hosts).sign(now), now + LIFETIME_SECONDS_MAX * 1000))
        for kid, expires in chance.choices(tokens[-LIFETIME_SECONDS_MAX - LEEWAY_SECONDS :], k=3):
            if now < expires:
                checked += 1
                assert chance.choice(hosts).believes(kid, now), (seed, now - start)
                assert kid in cached, (seed, now - start)
    assert rotations > 2, "nothing was tried"
    assert checked > 10_000
    assert len({kid for kid, _ in tokens}) > 2


@pytest.mark.parametrize("seed", range(4))
def test_revoked_signing_key_is_refused_everywhere_within_one_check(seed: int) -> None:
    chance = random.Random(seed)
    hosts = [Host(chance) for _ in range(4)]
    text, gone = JWK_SET, set[str]()
    quiet_from = start = NOW * 1000
    for now in range(start, start + 3_600_000, 1000):
        draw = chance.random()
        if draw < 1 / 200:
            key = chance.choice(decode_set(text))
            gone.add(key.kid)
            text = revoke(text, key.kid, now)
        elif draw < 1 / 100:
            text = rotate(text, now, chance.choice([1000, WAIT_MS]))
        if draw < 1 / 100:
            for host in hosts:
                host.hear(text, now + chance.randint(0, int(CHECK_SECONDS) * 1000))
            quiet_from = now + int(CHECK_SECONDS) * 1000
        for host in hosts:
            host.look(now)
        if now > quiet_from:
            assert not any(host.believes(kid, now) for kid in gone for host in hosts), (seed, now - start)
            signed = [host.sign(now) for host in hosts]
            assert not gone & set(signed)
            assert all(host.believes(kid, now) for kid in signed for host in hosts), (seed, now - start)
    assert len(gone) > 3, "nothing was tried"
