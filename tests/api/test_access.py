"""Who may call what: a matrix over every route that is served, so that a new route is in it by itself."""

from typing import Any

import pytest
from falcon.asgi import App
from msgspec import inspect as mi

from guerdon.config import Settings
from guerdon.errors import Forbidden, ViewsNotBuilt
from guerdon.permissions import ANY_SCOPE, SCOPES, Actor, Role, scope
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import Route, routes_of, serve
from tests.tidy.access import ROLES, reach, reach_of_key

PASSWORD = "correct horse battery"
PUBLIC = {
    "POST /v1/auth/register", "POST /v1/auth/login", "POST /v1/auth/refresh", "POST /v1/auth/logout", "POST /v1/auth/forgot", "POST /v1/auth/reset",
    "GET /.well-known/jwks.json", "GET /health/live", "GET /health/ready", "HEAD /health/live", "HEAD /health/ready",
    "GET /openapi.json", "GET /docs", "GET /docs/{name}", "GET /docs/reports", "GET /problems", "GET /problems/{code}",
}  # fmt: skip
"""Everything that needs no credentials. A route that joins these has to be put here on purpose."""


ALSO_NEEDED = {"GET /v1/members/{member_id}/timeline": {"events:read", "vouchers:read", "wallets:read"}}
"""Scopes that a route needs besides its own, for everything that it may list."""
LAST = {"logOutEverywhere"}
"""Operations after which the caller is nobody any more: they are tried at the end."""


@pytest.fixture
def settings(settings: Settings) -> Settings:
    """There are more routes than an address may have refused in a minute."""
    return settings.model_copy(update={"rate_invalid": "1000/60"})


async def log_in(anonymous: Caller, email: str) -> Caller:
    await anonymous.post("/v1/auth/register", {"email": email, "password": PASSWORD})
    answer = await anonymous.post("/v1/auth/login", {"email": email, "password": PASSWORD})
    return anonymous.with_token(answer.json()["access_token"])


async def log_in_as(anonymous: Caller, services: Services, role: Role) -> Caller:
    """Somebody with a role, by a log-in like everybody's."""
    if role != "member":
        await services.members.create_operator("ada@example.com", PASSWORD, role)
    return await log_in(anonymous, "ada@example.com")


def name(route: Route) -> str:
    return f"{route.method} {route.path}"


def admitted(route: Route) -> int:
    """The status of a request that is let in: it names nothing that exists, and has no body."""
    if (route.operation.body is not None and not route.operation.body_optional) or route.operation.takes is not None:
        return 415
    if route.operation.query is not None and any(field.required for field in mi.type_info(route.operation.query).fields):
        return 422
    if "{" in route.path:
        return 404
    if ViewsNotBuilt in route.operation.errors:
        return 503
    return min(route.operation.answers)


async def statuses(caller: Caller, routes: list[Route]) -> dict[str, int]:
    found: dict[str, int] = {}
    for route in routes:
        answer = await caller.send(route.method, route.url, b"", content_type="text/plain")
        found[name(route)] = answer.status_code
    return found


@pytest.fixture
def routes(app: App[Any, Any]) -> list[Route]:
    return routes_of(app)


async def test_only_listed_routes_are_public(anonymous: Caller, routes: list[Route]) -> None:
    wanted = {name(r): admitted(r) if name(r) in PUBLIC else 401 for r in routes}
    assert set(wanted) >= PUBLIC
    assert await statuses(anonymous, routes) == wanted


@pytest.mark.parametrize(
    "token", ["garbage", "gk_live_x", "gk_live_" + "a" * 12 + "_" + "b" * 49, "a.b.c", "null", "é", "x" * 5000]
)
async def test_invalid_credentials_reach_no_guarded_route(
    anonymous: Caller, routes: list[Route], clock: ManualClock, token: str
) -> None:
    guarded = [route for route in routes if not route.operation.policy.public]
    for route in guarded:
        clock.advance(seconds=2)  # There are more routes than guesses in a minute.
        headers = {b"authorization": b"Bearer " + token.encode()}
        problem(await anonymous.client.request(route.method, route.url, headers=headers), 401, "unauthenticated")


@pytest.mark.parametrize("value", ["", "Bearer", "Bearer ", "Basic YTpi", "bearer", "Token x", "Bearer  "])
async def test_malformed_bearer_header_is_refused(anonymous: Caller, value: str) -> None:
    answer = await anonymous.client.get("/v1/members", headers={"authorization": value})
    problem(answer, 401, "unauthenticated")


@pytest.mark.parametrize("role", ROLES)
async def test_each_role_reaches_exactly_its_routes(anonymous: Caller, services: Services, routes: list[Route], role: Role) -> None:
    caller = await log_in_as(anonymous, services, role)
    ordered = sorted(routes, key=lambda route: route.operation.operation_id in LAST)
    wanted = {name(r): admitted(r) if reach(r.operation.policy, role) != "—" else 403 for r in ordered}
    assert await statuses(caller, ordered) == wanted


@pytest.mark.parametrize(
    "scopes",
    [*([scope] for scope in sorted(SCOPES)), sorted(SCOPES), [ANY_SCOPE]],
    ids=lambda scopes: scopes[0] if len(scopes) == 1 else "all",
)
async def test_key_reaches_exactly_the_routes_of_its_scopes(
    anonymous: Caller, services: Services, routes: list[Route], scopes: list[str]
) -> None:
    caller = anonymous.with_token(await services.access.create_key("some scopes", scopes))
    reached = {name(r) for r in routes if reach_of_key(r.operation.policy, frozenset(scopes)) != "—"}
    if ANY_SCOPE not in scopes:
        reached -= {route for route, needed in ALSO_NEEDED.items() if not needed <= set(scopes)}
    wanted = {name(r): admitted(r) if name(r) in reached else 403 for r in routes}
    assert await statuses(caller, routes) == wanted


async def test_a_key_with_all_scopes_but_one_lacks_that_one(anonymous: Caller, services: Services, routes: list[Route]) -> None:
    for lacking in sorted(SCOPES):
        caller = anonymous.with_token(await services.access.create_key("all but one", SCOPES - {lacking}))
        needing = [route for route in routes if route.operation.policy.scope == lacking]
        assert needing
        assert set((await statuses(caller, needing)).values()) == {403}


@pytest.mark.parametrize("end", ["expired", "revoked"])
async def test_expired_or_revoked_key_reaches_no_route(
    anonymous: Caller, services: Services, routes: list[Route], clock: ManualClock, end: str
) -> None:
    text = await services.access.create_key("ended", [ANY_SCOPE], expires_in_days=1)
    caller = anonymous.with_token(text)
    assert (await caller.get("/v1/members")).status_code == 200
    if end == "expired":
        clock.advance(days=1)
    else:
        await services.access.revoke_key(text.split("_")[2])
    guarded = [route for route in routes if not route.operation.policy.public]
    for route in guarded:
        clock.advance(seconds=2)
        assert set((await statuses(caller, [route])).values()) == {401}


def test_staff_need_the_scope_of_a_scoped_route() -> None:
    """Nothing holds them to what is their own, so `own` must not let them in."""
    policy = scope("wallets:write", own=True)
    policy.check(Actor("mem_1", "member"))
    policy.check(Actor("mem_1", "operator", frozenset({"wallets:write"})))
    with pytest.raises(Forbidden):
        policy.check(Actor("mem_1", "operator", frozenset({"wallets:read"})))


async def test_objects_of_another_member_are_not_found(anonymous: Caller, service: Caller, factory: Factory) -> None:
    member = await log_in(anonymous, "ada@example.com")
    wallet, event = await factory.wallet(7), factory.event()
    recorded = (await service.post("/v1/events", event)).json()
    owner = wallet.partition(":")[0]
    foreign = [f"/v1/wallets/{wallet}", f"/v1/wallets/{wallet}/entries", f"/v1/members/{owner}", f"/v1/members/{owner}/wallets"]
    foreign += [f"/v1/events/{event['id']}", f"/v1/members/{recorded['member_id']}"]
    missing = problem(await member.get("/v1/events/nothing"), 404, "not-found")
    for path in foreign:
        assert (await service.get(path)).status_code == 200
        problem(await member.get(path), 404, "not-found")
    hidden = problem(await member.get(f"/v1/events/{event['id']}"), 404, "not-found")
    assert {**hidden, "request_id": ""} == {**missing, "request_id": ""}
    await factory.assert_books_balance()


async def test_foreign_and_missing_wallets_get_the_same_response(anonymous: Caller, factory: Factory) -> None:
    member = await log_in(anonymous, "ada@example.com")
    exists = await factory.wallet(7)
    missing = f"{await factory.member()}:PTS"
    for suffix in ("", "/entries"):
        answers = [problem(await member.get(f"/v1/wallets/{wallet}{suffix}"), 404, "not-found") for wallet in (exists, missing)]
        assert {**answers[0], "request_id": ""} == {**answers[1], "request_id": ""}
    await factory.assert_books_balance()


async def test_a_member_reads_their_own_wallet_history_and_event(anonymous: Caller, service: Caller, factory: Factory) -> None:
    member = await log_in(anonymous, "ada@example.com")
    member_id = (await member.get("/v1/me")).json()["id"]
    await factory.campaign()
    wallet = await factory.wallet(7, member=member_id)
    event = factory.event(member={"id": member_id})
    assert (await service.post("/v1/events", event)).status_code == 201
    assert (await member.get(f"/v1/wallets/{wallet}")).json()["balance"] == 7 + 139
    assert [item["amount"] for item in (await member.get(f"/v1/wallets/{wallet}/entries")).json()["items"]] == [139, 7]
    assert (await member.get(f"/v1/events/{event['id']}")).json()["member_id"] == member_id
    assert [item["id"] for item in (await member.get("/v1/me/wallets")).json()["items"]] == [wallet]
    problem(await member.post(f"/v1/wallets/{wallet}/credit", {"amount": 1}), 403, "forbidden")
    problem(await member.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}), 403, "forbidden")
    assert await factory.balance(wallet) == 146
    await factory.assert_books_balance()


async def test_revoked_key_is_refused_here_immediately_and_elsewhere_soon(
    anonymous: Caller, services: Services, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    text = await services.access.create_key("revoked", ["members:read"])
    async with serve(other_services, settings, clock) as elsewhere:
        here, there = anonymous.with_token(text), elsewhere.with_token(text)
        assert (await here.get("/v1/members")).status_code == 200
        assert (await there.get("/v1/members")).status_code == 200
        await services.access.revoke_key(text.split("_")[2])
        problem(await here.get("/v1/members"), 401, "unauthenticated")
        clock.advance(seconds=2)
        problem(await there.get("/v1/members"), 401, "unauthenticated")


async def test_access_token_expires(anonymous: Caller, clock: ManualClock, settings: Settings) -> None:
    member = await log_in(anonymous, "ada@example.com")
    clock.advance(seconds=settings.access_token_ttl_seconds - 1)
    assert (await member.get("/v1/me")).status_code == 200
    clock.advance(seconds=32)
    problem(await member.get("/v1/me"), 401, "unauthenticated")
