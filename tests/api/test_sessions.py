"""Sessions over HTTP: refresh tokens that rotate, families that die of reuse, and standing that is looked at again."""

import asyncio
import hashlib
from collections import Counter
from typing import Any

import httpx
import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.sessions.refresh import first_token
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

ADA = {"email": "ada@example.com", "password": "correct horse battery"}
NEW_PASSWORD = "another horse battery"


async def registered(anonymous: Caller, person: dict[str, str] = ADA) -> dict[str, Any]:
    """Somebody new who has logged in once; the answer to the log-in."""
    assert (await anonymous.post("/v1/auth/register", person)).status_code == 201
    return await logged_in(anonymous, person)


async def logged_in(anonymous: Caller, person: dict[str, str] = ADA) -> dict[str, Any]:
    answer = await anonymous.post("/v1/auth/login", person)
    assert answer.status_code == 200, answer.text
    assert answer.headers["cache-control"] == "no-store"
    return dict(answer.json())


async def refresh(anonymous: Caller, token: str) -> httpx.Response:
    return await anonymous.post("/v1/auth/refresh", {"refresh_token": token}, key=None)


async def refreshed(anonymous: Caller, token: str) -> dict[str, Any]:
    answer = await refresh(anonymous, token)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def standing_of(anonymous: Caller, token: str) -> int:
    return (await anonymous.with_token(token).get("/v1/me")).status_code


async def test_refresh_returns_a_new_pair_of_tokens(anonymous: Caller) -> None:
    first = await registered(anonymous)
    second = await refreshed(anonymous, first["refresh_token"])
    assert second["refresh_token"] != first["refresh_token"]
    assert {name: second[name] for name in ("member_id", "session_id", "session_ends_at")} == {
        name: first[name] for name in ("member_id", "session_id", "session_ends_at")
    }
    assert await standing_of(anonymous, second["access_token"]) == 200
    assert (await refresh(anonymous, second["refresh_token"])).status_code == 200


async def test_reused_refresh_token_ends_its_session(anonymous: Caller, clock: ManualClock) -> None:
    """RT-1."""
    first = await registered(anonymous)
    second = await refreshed(anonymous, first["refresh_token"])
    third = await refreshed(anonymous, second["refresh_token"])
    problem(await refresh(anonymous, first["refresh_token"]), 401, "unauthenticated")
    for dead in (third, second, first):
        problem(await refresh(anonymous, dead["refresh_token"]), 401, "unauthenticated")
    clock.advance(seconds=30)
    for dead in (third, second, first):
        assert await standing_of(anonymous, dead["access_token"]) == 401


@pytest.mark.parametrize(("seconds", "again"), [(9.9, 200), (10.1, 401)])
async def test_repeated_refresh_returns_the_same_token_within_the_grace_only(
    anonymous: Caller, clock: ManualClock, seconds: float, again: int
) -> None:
    first = await registered(anonymous)
    second = await refreshed(anonymous, first["refresh_token"])
    clock.advance(seconds=seconds)
    answer = await refresh(anonymous, first["refresh_token"])
    assert answer.status_code == again
    if again == 200:
        assert answer.json()["refresh_token"] == second["refresh_token"]
    assert (await refresh(anonymous, second["refresh_token"])).status_code == again


async def test_refresh_token_with_a_used_successor_ends_its_session(anonymous: Caller) -> None:
    first = await registered(anonymous)
    second = await refreshed(anonymous, first["refresh_token"])
    third = await refreshed(anonymous, second["refresh_token"])
    assert (await refresh(anonymous, second["refresh_token"])).json()["refresh_token"] == third["refresh_token"]
    problem(await refresh(anonymous, first["refresh_token"]), 401, "unauthenticated")
    problem(await refresh(anonymous, third["refresh_token"]), 401, "unauthenticated")


async def test_concurrent_refreshes_get_one_successor(
    anonymous: Caller, services: Services, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    """RT-2, through two processes."""
    first = await registered(anonymous)
    async with serve(other_services, settings, clock) as elsewhere:
        callers = [anonymous, elsewhere.with_token("")]
        answers = await asyncio.gather(*(refresh(callers[n % 2], first["refresh_token"]) for n in range(50)))
    assert Counter(answer.status_code for answer in answers) == {200: 50}
    [successor] = {answer.json()["refresh_token"] for answer in answers}
    assert (await refresh(anonymous, successor)).status_code == 200


async def test_stored_sessions_contain_no_usable_token(anonymous: Caller, database: Database) -> None:
    """RT-3: what is stored are digests, and the successor sealed by a secret that is not stored."""
    first = await registered(anonymous)
    second = await refreshed(anonymous, first["refresh_token"])
    [stored] = [document async for document in database.raw["sessions"].find({})]
    text = repr(stored)
    for token in (first["refresh_token"], second["refresh_token"]):
        secret = token.split("_")[2]
        assert len(secret) == 22 + 43 + 6
        assert secret[:22] not in text
        assert secret[22:65] not in text
        assert all(part not in text for part in (token, hashlib.sha256(token.encode()).hexdigest()))


async def test_malformed_refresh_token_reads_and_ends_nothing(anonymous: Caller, database: Database) -> None:
    first = await registered(anonymous)
    token: str = first["refresh_token"]
    wrong = [
        "x",
        token[:-1],
        token + "x",
        token[:-1] + ("a" if token[-1] != "a" else "b"),
        token.upper(),
        first["access_token"][:200],
    ]
    for text in wrong:
        problem(await refresh(anonymous, text), 401, "unauthenticated")
    assert (await refresh(anonymous, token)).status_code == 200


async def test_session_id_alone_does_not_end_a_session(anonymous: Caller) -> None:
    first = await registered(anonymous)
    problem(await refresh(anonymous, first_token(first["session_id"]).text), 401, "unauthenticated")
    forged = first_token(first["session_id"]).text
    assert (await anonymous.post("/v1/auth/logout", {"refresh_token": forged})).status_code == 204
    assert (await refresh(anonymous, first["refresh_token"])).status_code == 200


async def test_session_ends_when_idle_and_at_its_absolute_limit(anonymous: Caller, clock: ManualClock, settings: Settings) -> None:
    idle, used = await registered(anonymous), await logged_in(anonymous)
    token = used["refresh_token"]
    for _ in range(settings.session_absolute_hours // settings.session_idle_hours):
        clock.advance(seconds=settings.session_idle_hours * 3600 - 1)
        token = (await refreshed(anonymous, token))["refresh_token"]
    problem(await refresh(anonymous, idle["refresh_token"]), 401, "unauthenticated")
    clock.advance(seconds=settings.session_idle_hours * 3600 - 1)
    problem(await refresh(anonymous, token), 401, "unauthenticated")


async def test_logout_ends_one_session_and_may_be_repeated(anonymous: Caller, clock: ManualClock) -> None:
    here, there = await registered(anonymous), await logged_in(anonymous)
    for _ in range(2):
        answer = await anonymous.post("/v1/auth/logout", {"refresh_token": here["refresh_token"]}, key=None)
        assert (answer.status_code, answer.content) == (204, b"")
    problem(await refresh(anonymous, here["refresh_token"]), 401, "unauthenticated")
    assert await standing_of(anonymous, here["access_token"]) == 401, "at once in the process that was told"
    assert await standing_of(anonymous, there["access_token"]) == 200
    assert (await refresh(anonymous, there["refresh_token"])).status_code == 200


async def test_sessions_are_listed_and_ended_one_by_one_or_all(anonymous: Caller, clock: ManualClock) -> None:
    await registered(anonymous)
    second, third = await logged_in(anonymous), await logged_in(anonymous)
    stranger = await registered(anonymous, {**ADA, "email": "bob@example.com"})
    ada, bob = anonymous.with_token(third["access_token"]), anonymous.with_token(stranger["access_token"])
    items = (await ada.get("/v1/me/sessions")).json()["items"]
    assert len(items) == 3
    assert [item["id"] for item in items if item["current"]] == [third["session_id"]]
    assert set(items[0]) == {"id", "device", "created_at", "used_at", "ends_at", "current"}
    assert items[0]["device"].startswith("python-httpx")
    problem(await bob.delete(f"/v1/me/sessions/{second['session_id']}"), 404, "not-found")
    assert (await ada.delete(f"/v1/me/sessions/{second['session_id']}")).status_code == 204
    problem(await ada.delete(f"/v1/me/sessions/{second['session_id']}"), 404, "not-found")
    problem(await refresh(anonymous, second["refresh_token"]), 401, "unauthenticated")
    assert len((await ada.get("/v1/me/sessions")).json()["items"]) == 2
    assert (await ada.delete("/v1/me/sessions")).status_code == 204
    problem(await ada.get("/v1/me/sessions"), 401, "unauthenticated")
    problem(await refresh(anonymous, third["refresh_token"]), 401, "unauthenticated")
    assert await standing_of(anonymous, stranger["access_token"]) == 200


async def test_oldest_of_more_than_twenty_sessions_ends(anonymous: Caller) -> None:
    first = await registered(anonymous)
    others = [await logged_in(anonymous) for _ in range(20)]
    problem(await refresh(anonymous, first["refresh_token"]), 401, "unauthenticated")
    items = (await anonymous.with_token(others[-1]["access_token"]).get("/v1/me/sessions")).json()["items"]
    assert {item["id"] for item in items} == {other["session_id"] for other in others}


async def test_a_new_password_ends_the_other_sessions(anonymous: Caller) -> None:
    here, there = await registered(anonymous), await logged_in(anonymous)
    ada = anonymous.with_token(here["access_token"])
    body = {"current_password": ADA["password"], "new_password": NEW_PASSWORD}
    for wrong in ({**body, "current_password": "wrong horse battery"}, {**body, "new_password": "short"}):
        problem(await ada.put("/v1/me/password", wrong), 422, "validation")
    assert (await refresh(anonymous, there["refresh_token"])).status_code == 200
    assert (await ada.put("/v1/me/password", body)).status_code == 204
    problem(await anonymous.post("/v1/auth/login", ADA), 401, "unauthenticated")
    assert (await anonymous.post("/v1/auth/login", {**ADA, "password": NEW_PASSWORD})).status_code == 200
    problem(await refresh(anonymous, there["refresh_token"]), 401, "unauthenticated")
    assert await standing_of(anonymous, there["access_token"]) == 401
    assert await standing_of(anonymous, here["access_token"]) == 200
    assert (await refresh(anonymous, here["refresh_token"])).status_code == 200


async def test_two_password_changes_at_once_have_one_winner(anonymous: Caller) -> None:
    here = await registered(anonymous)
    ada = anonymous.with_token(here["access_token"])
    answers = await asyncio.gather(
        *(ada.put("/v1/me/password", {"current_password": ADA["password"], "new_password": f"new password {n}"}) for n in range(8))
    )
    assert Counter(answer.status_code for answer in answers) == {204: 1, 422: 7}
    [winner] = [number for number, answer in enumerate(answers) if answer.status_code == 204]
    assert (await anonymous.post("/v1/auth/login", {**ADA, "password": f"new password {winner}"})).status_code == 200


async def test_disabled_member_loses_writes_immediately_and_reads_soon(
    anonymous: Caller, service: Caller, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    here = await registered(anonymous)
    async with serve(other_services, settings, clock) as elsewhere:
        there = elsewhere.with_token(here["access_token"])
        assert (await there.get("/v1/me")).status_code == 200
        answer = await service.post(f"/v1/members/{here['member_id']}/disable", key=None)
        assert (answer.status_code, answer.json()["status"]) == (200, "disabled")
        problem(await there.delete("/v1/me/sessions"), 401, "unauthenticated")
        clock.advance(seconds=30)
        problem(await there.get("/v1/me"), 401, "unauthenticated")
        problem(await refresh(anonymous, here["refresh_token"]), 401, "unauthenticated")
        problem(await anonymous.post("/v1/auth/login", ADA), 401, "unauthenticated")
        assert (await service.post(f"/v1/members/{here['member_id']}/enable", key=None)).json()["status"] == "active"
        assert (await there.get("/v1/me")).status_code == 200
        await logged_in(anonymous)


async def test_changed_role_applies_to_writes_immediately(
    anonymous: Caller, service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    person = {"email": "olga@example.com", "password": "operator's password"}
    olga = await services.members.create_operator(person["email"], person["password"], "operator")
    wallet = await factory.wallet(10)
    caller = anonymous.with_token((await logged_in(anonymous, person))["access_token"])
    assert (await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1})).status_code == 201
    assert (await caller.get(f"/v1/wallets/{wallet}")).status_code == 200
    answer = await service.put(f"/v1/members/{olga.id}/role", {"role": "member"})
    assert (answer.status_code, answer.json()["role"]) == (200, "member")
    problem(await caller.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 403, "forbidden")
    clock.advance(seconds=30)
    problem(await caller.get(f"/v1/wallets/{wallet}"), 404, "not-found")
    assert await factory.balance(wallet) == 9
    await factory.assert_books_balance()


async def test_only_an_admin_changes_staff_and_never_themselves(anonymous: Caller, services: Services, factory: Factory) -> None:
    people = {}
    for role in ("operator", "admin"):
        person = {"email": f"{role}@example.com", "password": "operator's password"}
        await services.members.create_operator(person["email"], person["password"], role)
        people[role] = await logged_in(anonymous, person)
    operator, admin = (anonymous.with_token(people[role]["access_token"]) for role in ("operator", "admin"))
    member = await factory.member()
    ids = {role: people[role]["member_id"] for role in people}
    problem(await operator.put(f"/v1/members/{member}/role", {"role": "admin"}), 403, "forbidden")
    problem(await operator.post(f"/v1/members/{ids['admin']}/disable", key=None), 403, "forbidden")
    problem(await operator.post(f"/v1/members/{ids['operator']}/disable", key=None), 403, "forbidden")
    problem(await admin.put(f"/v1/members/{ids['admin']}/role", {"role": "member"}), 403, "forbidden")
    problem(await admin.put(f"/v1/members/{member}/role", {"role": "root"}), 422, "validation")
    problem(await admin.put(f"/v1/members/mem_{'0' * 32}/role", {"role": "support"}), 404, "not-found")
    assert (await operator.post(f"/v1/members/{member}/disable", key=None)).status_code == 200
    assert (await admin.put(f"/v1/members/{ids['operator']}/role", {"role": "support"})).json()["role"] == "support"
