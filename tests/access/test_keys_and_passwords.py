"""Service keys, passwords, and the rules that identity decides alone."""

import asyncio
import json
import os
import re
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest
from pymongo.errors import InvalidOperation

from guerdon.access.models import SERVICE_KEYS, ServiceKey
from guerdon.access.rules import known_scopes
from guerdon.access.service import Access
from guerdon.access.service_key_format import KeyParts, is_secret_of, new_key, parse_key
from guerdon.access.tokens import Tokens
from guerdon.database import Database
from guerdon.errors import Overloaded, Unauthenticated, Validation
from guerdon.http.body import decode
from guerdon.ids import checksum62
from guerdon.members import passwords
from guerdon.members.models import MemberCreate
from guerdon.members.passwords import PasswordHasher, check_new_password
from guerdon.members.rules import normal_email, valid_email
from guerdon.permissions import SCOPES
from tests.access.conftest import MEMBER, MEMORY_KIB, SESSION, HandClock

# --- service keys ---------------------------------------------------------------------------------------------------


def test_service_key_has_the_published_form() -> None:
    parts = new_key()
    assert re.fullmatch(r"gk_live_[0-9A-Za-z]{12}_[0-9A-Za-z]{43}[0-9A-Za-z]{6}", parts.text)
    assert parts.text[-6:] == checksum62(parts.text[:-6])
    assert parse_key(parts.text) == parts
    assert len({new_key().secret for _ in range(100)}) == 100


def test_every_single_wrong_character_is_refused() -> None:
    text = new_key().text
    for place in range(len(text)):
        wrong = text[:place] + ("a" if text[place] != "a" else "b") + text[place + 1 :]
        with pytest.raises(Unauthenticated):
            parse_key(wrong)


@pytest.mark.parametrize(
    "change", [lambda t: t[:-1], lambda t: t + "0", lambda t: t + "\n", lambda t: " " + t, lambda t: "", str.upper]
)
def test_malformed_service_key_is_refused(change: Any) -> None:
    with pytest.raises(Unauthenticated):
        parse_key(change(new_key().text))


def test_secret_matches_its_own_digest_only() -> None:
    parts = new_key()
    assert len(parts.secret_sha256) == 32
    assert is_secret_of(parts, parts.secret_sha256)
    assert not is_secret_of(KeyParts(parts.id, new_key().secret), parts.secret_sha256)
    assert not is_secret_of(parts, None)
    assert not is_secret_of(parts, bytes(32))


@pytest.fixture
def access(database: Database, tokens: Tokens, clock: HandClock) -> Access:
    return Access(database, tokens, clock)


async def store(database: Database, parts: KeyParts, **more: Any) -> None:
    row = ServiceKey(id=parts.id, name="till", secret_sha256=parts.secret_sha256, scopes=["events:write"], created_at=0, **more)
    await database.collection(SERVICE_KEYS, ServiceKey).insert(row)


async def test_bad_checksum_is_refused_without_a_read(second_database: Database, tokens: Tokens, clock: HandClock) -> None:
    access = Access(second_database, tokens, clock)
    text = new_key().text
    await second_database.close()  # A read would be an error of the driver now, and not a refusal.
    with pytest.raises(Unauthenticated):
        await access.authenticate("Bearer " + text[:-1] + ("a" if text[-1] != "a" else "b"))
    with pytest.raises(InvalidOperation):
        await access.authenticate("Bearer " + text)


async def test_service_key_row_is_kept_for_two_seconds(access: Access, database: Database, clock: HandClock) -> None:
    parts = new_key()
    await store(database, parts)
    actor = await access.authenticate("Bearer " + parts.text)
    assert (actor.id, actor.kind, actor.scopes) == (f"key_{parts.id}", "service_key", frozenset({"events:write"}))
    await database.raw[SERVICE_KEYS].update_one({"_id": parts.id}, {"$set": {"revoked_at": 1}})
    clock.pass_seconds(1.9)
    await access.authenticate("bearer " + parts.text)
    clock.pass_seconds(0.1)
    with pytest.raises(Unauthenticated):
        await access.authenticate("Bearer " + parts.text)


async def test_key_revoked_in_this_process_is_refused_immediately(access: Access, database: Database) -> None:
    parts = new_key()
    await store(database, parts)
    await asyncio.gather(*[access.authenticate("Bearer " + parts.text) for _ in range(20)])
    await access.revoke_key(parts.id)
    with pytest.raises(Unauthenticated):
        await access.authenticate("Bearer " + parts.text)


async def test_cancelled_authentication_does_not_cancel_a_concurrent_one(access: Access, database: Database) -> None:
    parts = new_key()
    await store(database, parts)
    first, second = (asyncio.ensure_future(access.authenticate("Bearer " + parts.text)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    assert (await second).id == f"key_{parts.id}"


async def test_cached_row_still_requires_the_secret_and_an_unexpired_key(
    access: Access, database: Database, clock: HandClock
) -> None:
    parts = new_key()
    await store(database, parts, expires_at=clock.now_ms() + 1000)
    await access.authenticate("Bearer " + parts.text)
    with pytest.raises(Unauthenticated) as wrong:
        await access.authenticate("Bearer " + KeyParts(parts.id, new_key().secret).text)
    with pytest.raises(Unauthenticated) as unknown:
        await access.authenticate("Bearer " + new_key().text)
    clock.pass_seconds(1)
    with pytest.raises(Unauthenticated) as expired:
        await access.authenticate("Bearer " + parts.text)
    assert wrong.value.detail == unknown.value.detail == expired.value.detail


async def test_cached_authentication_requires_an_identical_header(access: Access, database: Database, clock: HandClock) -> None:
    parts = new_key()
    header = f"Bearer {parts.text}"
    await store(database, parts, expires_at=clock.now_ms() + 10_000)
    assert access.find_recent(header) is None
    actor = await access.authenticate(header)
    assert access.find_recent(header) == actor
    others = [KeyParts(parts.id, new_key().secret).text, parts.text[:-1], parts.text + "x", parts.text.upper(), ""]
    assert [access.find_recent(f"Bearer {other}") for other in others] == [None] * 5
    assert (access.find_recent(None), access.find_recent(""), access.find_recent(header.lower())) == (None, None, None)
    with pytest.raises(Unauthenticated):
        await access.authenticate("Bearer " + others[0])
    assert access.find_recent("Bearer " + others[0]) is None
    assert access.find_recent(header) == actor
    clock.pass_seconds(2)
    assert access.find_recent(header) is None
    clock.pass_seconds(7)
    await access.authenticate(header)
    clock.pass_seconds(1)
    assert access.find_recent(header) is None, "the key has expired"


async def test_revoked_key_has_no_cached_authentication(access: Access, database: Database) -> None:
    parts = new_key()
    await store(database, parts)
    await access.authenticate("Bearer " + parts.text)
    await access.revoke_key(parts.id)
    assert access.find_recent("Bearer " + parts.text) is None


async def test_kept_rows_are_bounded(access: Access, database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("guerdon.access.service.ROWS_MAX", 24)
    for _ in range(30):
        parts = new_key()
        await store(database, parts)
        await access.authenticate("Bearer " + parts.text)
    assert len(access._cached) == 24


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer ", "Basic YTpi", "Token abc", "Bearer  x", "Bearer x", "Bearer\tx", "x" * 100_000]
)
async def test_other_authorization_is_refused(access: Access, header: str) -> None:
    with pytest.raises(Unauthenticated):
        await access.authenticate(header)


async def test_token_makes_a_member_or_an_operator(access: Access, tokens: Tokens) -> None:
    assert (await access.authenticate(None)).kind == "anonymous"
    member = await access.authenticate("Bearer " + tokens.issue(MEMBER, "member", SESSION))
    assert (member.id, member.kind, member.scopes) == (MEMBER, "member", frozenset())
    support = await access.authenticate("Bearer " + tokens.issue(MEMBER, "support", SESSION))
    assert support.kind == "operator"
    assert (support.may("wallets:read"), support.may("wallets:write")) == (True, False)
    assert (await access.authenticate("Bearer " + tokens.issue(MEMBER, "admin", SESSION))).may("campaigns:write")


# --- passwords ------------------------------------------------------------------------------------------------------


@pytest.fixture
def hasher() -> Iterator[PasswordHasher]:
    made = PasswordHasher(2, 4, MEMORY_KIB)
    yield made
    made.close()


async def test_password_hash_has_the_documented_parameters_and_its_own_salt(hasher: PasswordHasher) -> None:
    one, two = await asyncio.gather(hasher.hash("correct horse"), hasher.hash("correct horse"))
    for made in (one, two):
        assert made.startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    assert one.split("$")[4] != two.split("$")[4]
    assert await hasher.verify("correct horse", one)
    for typed in ("correct horse ", "Correct horse", "correct hors", "correct horse\0", "c"):
        assert not await hasher.verify(typed, one)


async def test_password_is_verified_exactly_as_typed(hasher: PasswordHasher) -> None:
    composed, decomposed = "caf\u00e9 au lait", "cafe\u0301 au lait"
    made = await hasher.hash(composed)
    assert await hasher.verify(composed, made)
    assert not await hasher.verify(decomposed, made)


async def test_missing_password_hash_costs_a_full_verification(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    matches = hasher._matches
    monkeypatch.setattr(hasher, "_matches", lambda stored, raw: seen.append(stored) or matches(stored, raw))
    assert not await hasher.verify("correct horse", None)
    assert seen[0].startswith("$argon2id$v=19$m=19456,t=2,p=1$"), "an unknown member costs the same work"


@pytest.mark.parametrize(
    ("password", "accepted"),
    [
        ("1234567", False),
        ("8 chars.", True),
        ("a" * 128, True),
        ("\U0001f600" * 128, True),
        ("a" * 129, False),
        ("", False),
        ("\ud800" * 8, False),
    ],
    ids=["7", "8", "128", "128 of four bytes", "129", "empty", "surrogates"],
)
def test_password_length_is_bounded(password: str, accepted: bool) -> None:
    if accepted:
        check_new_password(password)
        return
    with pytest.raises(Validation):
        check_new_password(password)


@pytest.mark.parametrize(
    "password", ["password", "PassWord", "12345678", "iloveyou", "qwertyuiop", "QWERTYUIOP", "!qaz2wsx", "zzzzzzzz"]
)
def test_common_password_is_refused_in_any_spelling(password: str) -> None:
    with pytest.raises(Validation) as refused:
        check_new_password(password, "/new_password")
    assert refused.value.members["errors"] == [
        {"pointer": "/new_password", "detail": "this password is too common; choose another one"}
    ]


@pytest.mark.parametrize(
    "password", ["password ", " password", "xpassword", "passwordx", "password\n12345678", "word\npass", "assword1x"]
)
def test_password_that_contains_a_common_password_is_accepted(password: str) -> None:
    check_new_password(password + "\0" * max(0, 8 - len(password)))


def test_common_password_list_is_well_formed() -> None:
    lines = passwords._common().decode("ascii").split("\n")
    assert (lines[0], lines[-1]) == ("", "")
    entries = lines[1:-1]
    assert len(entries) == len(set(entries)) == 19_294
    assert all(entry == entry.casefold() and 8 <= len(entry) <= 128 for entry in entries)
    assert all(passwords.is_common(entry) for entry in (*entries[:3], *entries[-3:]))


@pytest.mark.parametrize("password", ["ada.lovelace", "ADA.Lovelace", "Ada.Lovelace@example.com", "example.com", "EXAMPLE.COM"])
def test_email_address_and_its_parts_are_refused_as_a_password(password: str) -> None:
    with pytest.raises(Validation, match="/password: the password must not be the e-mail address"):
        check_new_password(password, email="Ada.Lovelace@example.com")
    check_new_password(password)
    check_new_password(password + "!", email="Ada.Lovelace@example.com")


async def test_huge_password_is_refused_before_hashing(hasher: PasswordHasher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hasher, "_run", None)
    for attempt in (hasher.hash("a" * 1_000_000), hasher.verify("a" * 1_000_000, None)):
        with pytest.raises(Validation):
            await attempt


def test_hash_with_weaker_parameters_needs_a_rehash(hasher: PasswordHasher) -> None:
    salt, digest = "A" * 22, "A" * 43
    today = f"$argon2id$v=19$m=19456,t=2,p=1${salt}${digest}"
    assert not hasher.needs_rehash(today)
    assert not hasher.needs_rehash(today.replace("m=19456", "m=65536"))
    for weaker in (("m=19456", "m=8192"), ("t=2", "t=1"), ("argon2id", "argon2i"), ("v=19", "v=16")):
        assert hasher.needs_rehash(today.replace(*weaker))


async def test_full_hashing_queue_refuses_immediately_and_recovers() -> None:
    threads, queue_max = 2, 3
    hasher = PasswordHasher(threads, queue_max, MEMORY_KIB)
    gate = threading.Event()

    async def wait() -> bool:
        async with hasher.slot():
            return await hasher._run(gate.wait)

    async def refused_at_once() -> None:
        for _ in range(10):
            with pytest.raises(Overloaded) as refused:
                async with asyncio.timeout(5), hasher.slot():
                    pytest.fail("there was no room")
            assert refused.value.retry_after_seconds == 1

    try:
        waiting = [asyncio.ensure_future(wait()) for _ in range(threads + queue_max)]
        await asyncio.sleep(0)
        await refused_at_once()
        # Callers who hang up make room, whether they were waiting or not; a hash that has begun goes on for nobody.
        for gone in (waiting[0], waiting[-1]):
            gone.cancel()
        await asyncio.gather(waiting[0], waiting[-1], return_exceptions=True)
        others = [asyncio.ensure_future(wait()) for _ in range(2)]
        await asyncio.sleep(0)
        await refused_at_once()
        gate.set()
        assert all(await asyncio.gather(*waiting[1:-1], *others))
        async with hasher.slot():
            assert await hasher.verify("correct horse", await hasher.hash("correct horse"))
    finally:
        gate.set()
        hasher.close()


async def test_only_callers_with_a_hashing_slot_proceed() -> None:
    """The rest of the line costs nothing: what they would read is not read before."""
    hasher = PasswordHasher(1, 50, MEMORY_KIB)
    gate, begun = asyncio.Event(), []

    async def log_in(number: int) -> None:
        async with hasher.slot():
            begun.append(number)
            await gate.wait()

    try:
        crowd = [asyncio.ensure_future(log_in(number)) for number in range(40)]
        await asyncio.sleep(0)
        assert begun == list(range(1 + passwords.AHEAD))
        gate.set()
        await asyncio.gather(*crowd)
        assert begun == list(range(40)), "one after the other"
    finally:
        hasher.close()


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a priority belongs to the whole process")
async def test_hashing_threads_run_at_a_lower_priority(hasher: PasswordHasher) -> None:
    def niceness() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    before = niceness()
    assert await hasher._run(niceness) == min(before + passwords.NICENESS, 19)
    assert await asyncio.to_thread(niceness) == niceness() == before


# --- rules ----------------------------------------------------------------------------------------------------------


def test_spellings_of_one_address_make_one_claim() -> None:
    spellings = ["Ada@Example.com", "ada@EXAMPLE.COM", "ADA@example.com", "\uff21da@example.com"]
    assert {normal_email(valid_email(text)) for text in spellings} == {"ada@example.com"}
    composed, decomposed = valid_email("caf\u00e9@example.com"), valid_email("cafe\u0301@example.com")
    assert normal_email(composed) == normal_email(decomposed)
    assert valid_email("Ada@EXAMPLE.com") == "Ada@example.com", "stored as validated: only the domain has one spelling"
    assert valid_email("ada@shop.test") == "ada@shop.test"


@pytest.mark.parametrize(
    "text",
    ["", "ada", "ada@", "@example.com", "ada@localhost", "a b@example.com", "ada@example.com\n", "ada@exa mple.com",
     "Ada <ada@example.com>",
     "ada@[127.0.0.1]", "ada@example.com,bob@example.com", "a" * 65 + "@example.com", "a@" + "b" * 1_000_000, "ada\u202e@example.com",
     '"ada"@example.com;'],
)  # fmt: skip
def test_invalid_email_address_is_refused_without_being_quoted(text: str) -> None:
    with pytest.raises(Validation) as refused:
        valid_email(text)
    assert refused.value.detail == "/email: not a valid e-mail address"


def test_unknown_scopes_are_refused() -> None:
    assert known_scopes(["wallets:read", "events:write", "wallets:read"]) == ["events:write", "wallets:read"]
    assert known_scopes(["*"]) == ["*"]
    assert known_scopes(SCOPES) == sorted(SCOPES)
    for wrong in ([], ["wallets"], ["wallets:*"], ["WALLETS:READ"], ["events:write", ""]):
        with pytest.raises(Validation):
            known_scopes(wrong)


@pytest.mark.parametrize(
    ("attributes", "accepted"),
    [
        ('{"country":"GB","age":41,"vip":true}', True),
        ("null", True),
        ('{"a":"' + "x" * 200 + '"}', True),
        ('{"a":"' + "x" * 201 + '"}', False),
        ('{"a":1.5}', False),
        ('{"a":null}', False),
        ('{"a":{}}', False),
        ('{"a":["x"]}', False),
        ('{"a":9007199254740992}', False),
        ('{"$gt":""}', False),
        ('{"a.b":1}', False),
        ('{"":1}', False),
        ('{"a":"\\u202e"}', False),
        (json.dumps({f"k{number}": number for number in range(20)}), True),
        (json.dumps({f"k{number}": number for number in range(21)}), False),
    ],
)
def test_member_attributes_are_bounded_and_flat(attributes: str, accepted: bool) -> None:
    raw = f'{{"external_id":"1","email":null,"attributes":{attributes}}}'.encode()
    if accepted:
        assert decode(raw, MemberCreate).external_id == "1"
        return
    with pytest.raises(Validation):
        decode(raw, MemberCreate)


@pytest.mark.parametrize("field", ["id", "role", "password_hash", "created_at", "_id"])
def test_client_cannot_set_server_controlled_fields(field: str) -> None:
    with pytest.raises(Validation):
        decode(json.dumps({"external_id": "1", field: "admin"}).encode(), MemberCreate)


def test_longest_password_has_at_most_512_bytes() -> None:
    assert passwords.PASSWORD_LENGTH_MAX * 4 == 512, "bytes of UTF-8 at most"
