"""Members over HTTP: registering, logging in, being created and found by a service."""

import asyncio
import re
from datetime import timedelta

import argon2
import pytest
from joserfc.jwk import KeySet, OKPKey
from joserfc.jws import deserialize_compact

from guerdon.clock import to_datetime
from guerdon.database import Database
from guerdon.errors import Validation
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.serving import NOBODY

ADA = {"email": "Ada@Example.com", "password": "correct horse battery"}


async def test_member_registers_logs_in_and_reads_their_profile(anonymous: Caller) -> None:
    made = await anonymous.post("/v1/auth/register", ADA, key=None)
    assert made.status_code == 201
    member = made.json()
    assert made.headers["location"] == f"/v1/members/{member['id']}"
    assert (member["email"], member["role"], member["external_id"], member["attributes"]) == ("Ada@example.com", "member", None, {})
    assert set(member) == {"id", "external_id", "email", "role", "attributes", "status", "created_at", "segments"}
    answer = await anonymous.post("/v1/auth/login", ADA, key=None)
    token = answer.json()
    assert (answer.status_code, token["token_type"], token["expires_in_seconds"]) == (200, "Bearer", 900)
    assert token["member_id"] == member["id"]
    assert answer.headers["cache-control"] == "no-store"
    assert (await anonymous.with_token(token["access_token"]).get("/v1/me")).json() == member


async def test_a_wrong_password_and_an_unknown_person_get_the_same_answer(anonymous: Caller, service: Caller) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    await service.post("/v1/members", {"external_id": "1", "email": "no-password@example.com"})
    attempts = [
        {**ADA, "password": "wrong horse battery"},
        {**ADA, "email": "nobody@example.com"},
        {**ADA, "email": "no-password@example.com"},
        {**ADA, "password": ADA["password"].upper()},
    ]
    answers = [await anonymous.post("/v1/auth/login", attempt) for attempt in attempts]
    bodies = [{**problem(answer, 401, "unauthenticated"), "request_id": ""} for answer in answers]
    assert all(body == bodies[0] for body in bodies)
    assert all(len(answer.headers) == len(answers[0].headers) for answer in answers)


@pytest.mark.parametrize(
    "email",
    [
        "ada@example.com", "ADA@EXAMPLE.COM", "Ada@exaMple.com", "ａda@example.com", "\u0430da@example.com", "АDА@example.com", "ɑԁα@example.com",
        "ada@ex\u0430mple.com",
    ],
)  # fmt: skip
async def test_email_address_identifies_one_member_in_any_spelling(anonymous: Caller, service: Caller, email: str) -> None:
    """IN-4: two that look the same cannot both be there."""
    await anonymous.post("/v1/auth/register", ADA)
    taken = problem(await anonymous.post("/v1/auth/register", {**ADA, "email": email}), 409, "already-exists")
    assert taken["field"] == "email"
    taken = problem(await service.post("/v1/members", {"email": email}), 409, "already-exists")
    assert taken["field"] == "email"
    assert (await anonymous.post("/v1/auth/login", {**ADA, "email": email})).status_code == 200


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("email", ""), ("email", "ada"), ("email", "ada@"), ("email", "@example.com"), ("email", "a b@example.com"), ("email", None),
        ("email", "ada@example.com\n"), ("email", "x" * 250 + "@a.com"), ("email", {"$gt": ""}), ("email", "ada@exa\x00mple.com"),
        ("email", "ad\ufe0fa@example.com"), ("email", "ad\u034fa@example.com"), ("email", "ad\u3164a@example.com"),
        ("password", ""), ("password", "seven77"), ("password", "x" * 129), ("password", None), ("password", 12345678),
        ("password", {"$ne": None}),
    ],
)  # fmt: skip
async def test_invalid_email_address_or_password_is_refused(
    anonymous: Caller, database: Database, field: str, value: object
) -> None:
    refused = problem(await anonymous.post("/v1/auth/register", {**ADA, field: value}), 422, "validation")
    assert refused["errors"][0]["pointer"] == f"/{field}"
    assert await database.raw["members"].count_documents({}) == 0


@pytest.mark.parametrize("password", ["password1", "PASSWORD1", "ada@example.com", "Example.com"])
async def test_common_password_is_refused_on_every_route(anonymous: Caller, services: Services, password: str) -> None:
    refused = problem(await anonymous.post("/v1/auth/register", {**ADA, "password": password}), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/password"]
    assert password not in refused["detail"]
    with pytest.raises(Validation):
        await services.members.create_operator(ADA["email"], password, "admin")
    assert (await anonymous.post("/v1/auth/register", ADA)).status_code == 201
    token = (await anonymous.post("/v1/auth/login", ADA)).json()["access_token"]
    change = {"current_password": ADA["password"], "new_password": password}
    refused = problem(await anonymous.with_token(token).put("/v1/me/password", change), 422, "validation")
    assert [error["pointer"] for error in refused["errors"]] == ["/new_password"]
    assert (await anonymous.post("/v1/auth/login", ADA)).status_code == 200


@pytest.mark.parametrize("password", ["8 chars.", "ψ" * 128, "  spaces  ", "🐎🔋📎🐎🔋📎🐎🔋", "null\x00inside", "line\nbreak"])
async def test_password_may_contain_any_characters(anonymous: Caller, password: str) -> None:
    assert (await anonymous.post("/v1/auth/register", {**ADA, "password": password})).status_code == 201
    assert (await anonymous.post("/v1/auth/login", {**ADA, "password": password})).status_code == 200
    problem(await anonymous.post("/v1/auth/login", {**ADA, "password": password[:-1]}), 401, "unauthenticated")


@pytest.mark.hash_cost
async def test_stored_passwords_are_strong_and_each_has_its_own_salt(anonymous: Caller, database: Database) -> None:
    """PW-1: OWASP's figures, and a hash that is weaker is made anew at the next log-in."""
    for number in range(2):
        assert (await anonymous.post("/v1/auth/register", {**ADA, "email": f"m{number}@example.com"})).status_code == 201
    stored = [row["password_hash"] async for row in database.raw["members"].find({})]
    assert all(re.fullmatch(r"\$argon2id\$v=19\$m=19456,t=2,p=1\$[A-Za-z0-9+/]{22}\$[A-Za-z0-9+/]{43}", each) for each in stored)
    assert len({each.split("$")[4] for each in stored}) == len({each.split("$")[5] for each in stored}) == 2
    weak = argon2.PasswordHasher(time_cost=1, memory_cost=8192, parallelism=1).hash(ADA["password"])
    await database.raw["members"].update_many({}, {"$set": {"password_hash": weak}})
    person = {**ADA, "email": "m0@example.com"}
    assert (await anonymous.post("/v1/auth/login", {**person, "password": "wrong horse battery"})).status_code == 401
    assert await database.raw["members"].count_documents({"password_hash": weak}) == 2
    for _ in range(2):
        assert (await anonymous.post("/v1/auth/login", person)).status_code == 200
    [kept, renewed] = sorted(
        [row["password_hash"] async for row in database.raw["members"].find({})], key=lambda each: each != weak
    )
    assert (kept, renewed.startswith("$argon2id$v=19$m=19456,t=2,p=1$")) == (weak, True)


async def test_a_service_creates_a_member_and_finds_them(service: Caller) -> None:
    body = {"external_id": "17850", "email": None, "attributes": {"country": "GB", "age": 40, "vip": True}}
    made = await service.post("/v1/members", body, key=None)
    assert made.status_code == 201
    member = made.json()
    assert (member["external_id"], member["email"], member["attributes"]) == ("17850", None, body["attributes"])
    assert made.headers["location"] == f"/v1/members/{member['id']}"
    assert (await service.get(f"/v1/members/{member['id']}")).json() == member
    assert (await service.get("/v1/members", external_id="17850")).json() == {"items": [member], "next_cursor": None}
    assert (await service.get("/v1/members", external_id="1785")).json() == {"items": [], "next_cursor": None}
    problem(await service.get(f"/v1/members/{NOBODY}"), 404, "not-found")


async def test_an_external_id_is_unique_and_exact(service: Caller, database: Database) -> None:
    assert (await service.post("/v1/members", {"external_id": "abc"})).status_code == 201
    taken = problem(await service.post("/v1/members", {"external_id": "abc"}), 409, "already-exists")
    assert taken["field"] == "external_id"
    assert (await service.post("/v1/members", {"external_id": "ABC"})).status_code == 201
    both = {"external_id": "new", "email": "ada@example.com"}
    assert (await service.post("/v1/members", both)).status_code == 201
    problem(await service.post("/v1/members", {**both, "external_id": "newer"}), 409, "already-exists")
    assert (await service.get("/v1/members", external_id="newer")).json()["items"] == []
    assert await database.raw["members"].count_documents({}) == 3


async def test_member_requires_an_external_id_or_an_email_address(service: Caller) -> None:
    problem(await service.post("/v1/members", {}), 422, "validation")
    problem(await service.post("/v1/members", {"external_id": None, "email": None, "attributes": {"a": "b"}}), 422, "validation")


@pytest.mark.parametrize(
    "attributes",
    [{"$gt": "x"}, {"a.b": 1}, {"a": {"$gt": 0}}, {"a": [1]}, {"a": 1.5}, {"a": 2**53}, {"a": ""}, {"a": "b\n"}, {"a": None}],
)
async def test_hostile_attributes_are_refused(service: Caller, database: Database, attributes: object) -> None:
    problem(await service.post("/v1/members", {"external_id": "1", "attributes": attributes}), 422, "validation")
    assert await database.raw["members"].count_documents({}) == 0


async def test_members_are_listed_page_by_page_newest_first(service: Caller, clock: ManualClock) -> None:
    made: list[str] = []
    for number in range(7):
        clock.advance(seconds=1)
        made.append((await service.post("/v1/members", {"external_id": f"m-{number}"})).json()["id"])
    seen: list[str] = []
    query: dict[str, str] = {}
    while True:
        page = (await service.get("/v1/members", limit=3, **query)).json()
        seen += [item["id"] for item in page["items"]]
        if page["next_cursor"] is None:
            break
        assert len(page["items"]) == 3
        query = {"cursor": page["next_cursor"]}
    assert seen == made[::-1]


async def test_parallel_registrations_of_one_address_make_one_member(anonymous: Caller, database: Database) -> None:
    answers = await asyncio.gather(*(anonymous.post("/v1/auth/register", ADA) for _ in range(25)))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 24
    assert await database.raw["members"].count_documents({}) == 1


async def test_the_published_keys_verify_a_token_and_hold_nothing_private(anonymous: Caller) -> None:
    await anonymous.post("/v1/auth/register", ADA)
    token = (await anonymous.post("/v1/auth/login", ADA)).json()["access_token"]
    published = await anonymous.get("/.well-known/jwks.json")
    assert published.headers["cache-control"] == "public, max-age=300"
    [key] = published.json()["keys"]
    assert set(key) == {"kid", "x", "kty", "crv", "use", "alg"}
    assert (key["kty"], key["crv"], key["alg"], key["use"]) == ("OKP", "Ed25519", "EdDSA", "sig")
    keys = KeySet([OKPKey.import_key(key)])
    with pytest.warns(match="EdDSA"):
        signed = deserialize_compact(token, keys, algorithms=["EdDSA"])
    assert signed.protected["kid"] == key["kid"]
    head, payload, signature = token.split(".")
    forged = f"{head}.{payload[:-2]}AA.{signature}"
    problem(await anonymous.with_token(forged).get("/v1/me"), 401, "unauthenticated")


async def test_a_birthday_must_be_a_day_that_has_been(service: Caller, clock: ManualClock) -> None:
    """A birthday that is no date would never be one in a condition, and nobody would be told. It is the only attribute with a meaning."""
    values = (
        "1990-13-01",
        "1990-02-30",
        "2023-02-29",
        "19900228",
        "1990-W20-1",
        "1990-2-8",
        "3 May",
        "",
        " 1990-02-28",
        19900228,
        True,
    )
    future = str((to_datetime(clock.now_ms()) + timedelta(days=2)).date())
    for value in (*values, future):
        refused = problem(
            await service.post("/v1/members", {"external_id": "ada", "attributes": {"birthday": value}}), 422, "validation"
        )
        assert [fault["pointer"] for fault in refused["errors"]] == ["/attributes/birthday"], value
    assert (await service.get("/v1/members", external_id="ada")).json()["items"] == []
    today = str(to_datetime(clock.now_ms()).date())
    for number, value in enumerate(("1990-02-28", "1992-02-29", "1899-12-31", today)):
        made = await service.post(
            "/v1/members", {"external_id": str(number), "attributes": {"birthday": value, "since": "1990-13-01"}}
        )
        assert (made.status_code, made.json()["attributes"]["birthday"]) == (201, value)
