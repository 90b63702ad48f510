"""Quotas over HTTP: per key, per person, per address; and log-ins that strangers can neither guess nor block."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import pytest

from guerdon.config import Settings
from guerdon.errors import NotFound
from guerdon.http.operation import Request, Response, note, operation
from guerdon.logs import make_logger
from guerdon.permissions import scope
from guerdon.wiring import routes as composition
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, Log, ManualClock, problem
from tests.factories import Factory

PASSWORD = "correct horse battery"
ADA = {"email": "ada@example.com", "password": PASSWORD}
Deployment = Callable[..., AbstractAsyncContextManager["At"]]


class At:
    """Callers of one deployment, from whatever address they like."""

    def __init__(self, services: Services, app: Any) -> None:
        self.services = services
        self._app = app
        self._clients: dict[str, httpx.AsyncClient] = {}

    def address(self, host: str) -> Caller:
        if host not in self._clients:
            transport = httpx.ASGITransport(app=self._app, client=(host, 40_000))
            self._clients[host] = httpx.AsyncClient(transport=transport, base_url="http://test")
        return Caller(self._clients[host])

    async def close(self) -> None:
        for client in self._clients.values():
            await client.aclose()


@pytest.fixture
def deployment(services: Services, settings: Settings, clock: ManualClock, log: Log) -> Deployment:
    """A deployment with settings of its own, on the emptied database. Its time of day stands at the beginning of a window of every quota."""
    clock.stop()
    clock.offset_ms += 900_000 - clock.now_ms() % 900_000

    @asynccontextmanager
    async def deploy(**changes: Any) -> AsyncIterator[At]:
        own = settings.model_copy(update=changes)
        async with open_services(own, clock) as started:
            at = At(started, build_app(started, own, make_logger(clock, "info", log)))
            yield at
            await at.close()

    return deploy


def refused(answer: httpx.Response, quota: str) -> int:
    """Assert that the quota is named in every way that there is, and return the seconds to wait."""
    body = problem(answer, 429, "too-many-requests")
    assert body["violated-policies"] == [quota]
    assert answer.headers["ratelimit-policy"].startswith(f'"{quota}";q=')
    name, remaining, seconds = answer.headers["ratelimit"].split(";")
    assert (name, remaining) == (f'"{quota}"', "r=0")
    wait_seconds = int(answer.headers["retry-after"])
    assert wait_seconds >= int(seconds.removeprefix("t=")) >= 1
    return wait_seconds


async def test_key_has_a_quota_and_receives_its_remaining_requests(deployment: Deployment, clock: ManualClock) -> None:
    async with deployment(rate_key="5/60") as at:
        mine, other = [at.address("192.0.2.1").with_token(await at.services.access.create_key(n, ["*"])) for n in "ab"]
        answers = [await mine.get("/v1/members") for _ in range(5)]
        assert [answer.headers["ratelimit"] for answer in answers] == [f'"key";r={left};t=60' for left in (4, 3, 2, 1, 0)]
        assert {answer.headers["ratelimit-policy"] for answer in answers} == {'"key";q=5;w=60'}
        wait_seconds = refused(await mine.get("/v1/members"), "key")
        assert (await other.get("/v1/members")).status_code == 200
        clock.advance(seconds=wait_seconds)
        assert (await mine.get("/v1/members")).status_code == 200


async def test_rate_limited_debit_has_no_effect_and_leaves_its_key_unused(deployment: Deployment, clock: ManualClock) -> None:
    async with deployment(rate_key="4/60") as at:
        service = at.address("192.0.2.1").with_token(await at.services.access.create_key("k", ["*"]))
        factory = Factory(service, at.services)
        wallet = await factory.wallet(10)
        answers = [await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key=f"debit-{n}") for n in range(4)]
        statuses = [answer.status_code for answer in answers]
        assert statuses == sorted(statuses)
        assert set(statuses) == {201, 429}
        clock.advance(seconds=121)
        again = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 1}, key="debit-3")
        assert (again.status_code, "idempotency-replayed" in again.headers) == (201, False)
        assert again.json()["balance"] == 10 - statuses.count(201) - 1
        await factory.assert_books_balance()


async def test_person_has_one_quota_across_addresses(deployment: Deployment) -> None:
    async with deployment(rate_person="3/60") as at:
        await at.address("192.0.2.1").post("/v1/auth/register", ADA)
        token = (await at.address("192.0.2.1").post("/v1/auth/login", ADA)).json()["access_token"]
        answers = [await at.address(f"192.0.2.{n}").with_token(token).get("/v1/me") for n in range(1, 5)]
        assert [answer.status_code for answer in answers] == [200, 200, 200, 429]
        refused(answers[3], "person")


async def test_anonymous_callers_are_counted_by_address_except_for_probes(deployment: Deployment) -> None:
    async with deployment(rate_stranger="3/60") as at:
        stranger = at.address("192.0.2.1")
        for _ in range(3):
            assert (await stranger.get("/.well-known/jwks.json")).status_code == 200
        refused(await stranger.get("/.well-known/jwks.json"), "stranger")
        # Without credentials, on a route that needs some: that is a stranger too.
        refused(await stranger.get("/v1/me"), "stranger")
        assert (await at.address("192.0.2.2").get("/.well-known/jwks.json")).status_code == 200
        for _ in range(5):
            probe = await stranger.get("/health/ready")
            assert (probe.status_code, "ratelimit" in probe.headers) == (200, False)


async def test_an_ipv6_network_is_one_address(deployment: Deployment) -> None:
    async with deployment(rate_stranger="2/60") as at:
        answers = [await at.address(f"2001:db8:0:1::{n}").get("/.well-known/jwks.json") for n in range(1, 4)]
        assert [answer.status_code for answer in answers] == [200, 200, 429]
        assert (await at.address("2001:db8:0:2::1").get("/.well-known/jwks.json")).status_code == 200
        mapped = [await at.address("::ffff:192.0.2.9").get("/.well-known/jwks.json") for _ in range(2)]
        assert [answer.status_code for answer in mapped] == [200, 200]
        refused(await at.address("192.0.2.9").get("/.well-known/jwks.json"), "stranger")


async def test_forwarded_address_is_accepted_from_configured_proxies_only(deployment: Deployment) -> None:
    """RATE-2: a thousand spoofed addresses do not help."""
    async with deployment(rate_stranger="10/60", trusted_proxies="10.0.0.0/8, 2001:db8::/32") as at:
        client = at.address("192.0.2.1").client
        spoofed = [
            (await client.get("/.well-known/jwks.json", headers={"x-forwarded-for": f"198.51.{n // 250}.{n % 250}"})).status_code
            for n in range(1_000)
        ]
        assert (spoofed.count(200), spoofed.count(429)) == (10, 990)

        proxy = at.address("10.0.0.1").client
        # Our proxies append; what stands before that was written by whoever asks.
        for n in range(11):
            lie = f"198.51.100.{n}, 203.0.113.7, 10.0.0.2"
            answer = await proxy.get("/.well-known/jwks.json", headers={"x-forwarded-for": lie})
            assert answer.status_code == (200 if n < 10 else 429)
        other = await proxy.get("/.well-known/jwks.json", headers={"x-forwarded-for": "203.0.113.8"})
        assert other.status_code == 200
        for nonsense in ("", "somewhere", "1.2.3.4.5, ,", ",".join(["10.0.0.3"] * 500)):
            assert (await proxy.get("/.well-known/jwks.json", headers={"x-forwarded-for": nonsense})).status_code == 200


async def test_invalid_credentials_are_limited_and_valid_ones_continue(deployment: Deployment) -> None:
    async with deployment(rate_invalid="5/60") as at:
        good = await at.services.access.create_key("good", ["members:read"])
        office = at.address("192.0.2.1")
        assert (await office.with_token(good).get("/v1/members")).status_code == 200
        await office.post("/v1/auth/register", ADA)
        token = (await office.post("/v1/auth/login", ADA)).json()["access_token"]
        assert (await office.with_token(token).get("/v1/me")).status_code == 200
        forged = [await office.with_token(f"gk_live_{n:012}_{'b' * 49}").get("/v1/members") for n in range(7)]
        assert [answer.status_code for answer in forged] == [401] * 5 + [429] * 2
        refused(forged[5], "invalid")
        # Not even looked at, though it would be right; what has proven something before is.
        fresh = await at.services.access.create_key("fresh", ["members:read"])
        refused(await office.with_token(fresh).get("/v1/members"), "invalid")
        assert (await at.address("192.0.2.2").with_token(fresh).get("/v1/members")).status_code == 200
        assert (await office.with_token(good).get("/v1/members")).status_code == 200
        assert (await office.with_token(token).get("/v1/me")).status_code == 200


async def test_an_expired_token_is_no_guess(deployment: Deployment, clock: ManualClock) -> None:
    async with deployment(rate_invalid="3/60") as at:
        caller = at.address("192.0.2.1")
        await caller.post("/v1/auth/register", ADA)
        begun = (await caller.post("/v1/auth/login", ADA)).json()
        clock.advance(seconds=931)
        for _ in range(6):
            problem(await caller.with_token(begun["access_token"]).get("/v1/me"), 401, "unauthenticated")
        fresh = (await caller.post("/v1/auth/refresh", {"refresh_token": begun["refresh_token"]})).json()
        assert (await caller.with_token(fresh["access_token"]).get("/v1/me")).status_code == 200


async def guesses(at: At, email: str, addresses: int, count: int) -> list[int]:
    """Wrong passwords for one account, from many addresses at once."""
    body = {"email": email, "password": "not the password"}
    callers = [at.address(f"198.51.{n // 250}.{n % 250}") for n in range(addresses)]
    answers = await asyncio.gather(*(callers[n % addresses].post("/v1/auth/login", body) for n in range(count)))
    return [answer.status_code for answer in answers]


async def test_guesses_of_others_do_not_lock_the_owner_out(deployment: Deployment, clock: ManualClock) -> None:
    """LOGIN-1; with a thousand guesses in tests/trust."""
    async with deployment() as at:
        home = at.address("192.0.2.1")
        await home.post("/v1/auth/register", ADA)
        device = (await home.post("/v1/auth/login", ADA)).json()["device_token"]
        for email in (ADA["email"], "nobody@example.com"):
            statuses = await guesses(at, email, addresses=50, count=100)
            assert (statuses.count(401), statuses.count(429)) == (10, 90)
        refused(await home.post("/v1/auth/login", ADA), "account")
        back = await home.post("/v1/auth/login", {**ADA, "device_token": device})
        assert back.status_code == 200, back.text
        # The token is known again and again, and its holder too may only guess so often.
        device = back.json()["device_token"]
        wrong = [await home.post("/v1/auth/login", {**ADA, "password": "x", "device_token": device}) for _ in range(12)]
        assert [answer.status_code for answer in wrong] == [401] * 10 + [429] * 2
        refused(wrong[11], "device")
        clock.advance(seconds=1_801)
        assert (await home.post("/v1/auth/login", ADA)).status_code == 200


async def test_device_token_is_valid_for_its_own_account_only(deployment: Deployment, clock: ManualClock) -> None:
    async with deployment(rate_guesses="1/900") as at:
        caller, bob = at.address("192.0.2.1"), {"email": "bob@example.com", "password": PASSWORD}
        for person in (ADA, bob):
            await caller.post("/v1/auth/register", person)
        device = (await caller.post("/v1/auth/login", ADA)).json()["device_token"]
        assert "ada" not in device
        problem(await caller.with_token(device).get("/v1/me"), 401, "unauthenticated")
        for person in (ADA, bob):
            assert (await caller.post("/v1/auth/login", {**person, "password": "x"})).status_code == 401
            refused(await caller.post("/v1/auth/login", person), "account")
        refused(await caller.post("/v1/auth/login", {**bob, "device_token": device}), "account")
        for broken in (device[:-2] + "xx", "gd_", "gd_é", "x" * 160, device.replace("gd_", "gx_")):
            refused(await caller.post("/v1/auth/login", {**ADA, "device_token": broken}), "account")
        problem(await caller.post("/v1/auth/login", {**ADA, "device_token": "x" * 161}), 422, "validation")
        assert (await caller.post("/v1/auth/login", {**ADA, "device_token": device})).status_code == 200
        clock.advance(days=181)
        assert (await caller.post("/v1/auth/login", {**ADA, "password": "x", "device_token": device})).status_code == 401
        refused(await caller.post("/v1/auth/login", {**ADA, "device_token": device}), "account")


async def test_one_password_tried_on_many_accounts_is_limited(deployment: Deployment) -> None:
    """LOGIN-3: from then on an address has one try; whoever knows the password needs no second one."""
    async with deployment(rate_failures="6/900") as at:
        await at.address("192.0.2.1").post("/v1/auth/register", ADA)
        bots = [at.address(f"198.51.100.{n}") for n in range(4)]
        statuses = [
            (await bots[n % 4].post("/v1/auth/login", {"email": f"m{n}@example.com", "password": "Password1!"})).status_code
            for n in range(40)
        ]
        # The first six leave the addresses 2 and 3 at the beginning; each of the four has one more.
        assert statuses == [401] * 10 + [429] * 30
        assert (await at.address("192.0.2.1").post("/v1/auth/login", ADA)).status_code == 200


async def test_log_ins_and_sign_ups_of_one_address_are_counted_together(deployment: Deployment) -> None:
    async with deployment(rate_entry="4/60") as at:
        caller = at.address("192.0.2.1")
        assert (await caller.post("/v1/auth/register", ADA)).status_code == 201
        assert [(await caller.post("/v1/auth/login", ADA)).status_code for _ in range(4)] == [200, 200, 200, 429]
        refused(await caller.post("/v1/auth/register", {"email": "bob@example.com", "password": PASSWORD}), "entry")


async def test_the_current_password_cannot_be_guessed_with_a_stolen_token(deployment: Deployment) -> None:
    async with deployment() as at:
        caller = at.address("192.0.2.1")
        await caller.post("/v1/auth/register", ADA)
        mine = caller.with_token((await caller.post("/v1/auth/login", ADA)).json()["access_token"])
        body = {"current_password": "not this", "new_password": "another horse battery"}
        answers = [await mine.put("/v1/me/password", body) for _ in range(12)]
        assert [answer.status_code for answer in answers] == [422] * 10 + [429] * 2
        refused(answers[11], "password")


async def test_quotas_can_be_switched_off_for_trying(deployment: Deployment) -> None:
    async with deployment(rate_limit="off", rate_stranger="1/60") as at:
        answers = [await at.address("192.0.2.1").get("/.well-known/jwks.json") for _ in range(5)]
        assert {(answer.status_code, "ratelimit" in answer.headers) for answer in answers} == {(200, False)}


RIGHT, WRONG = "rightC0deABC", "wrongC0deABC"
"""As long as an id of a key."""


class Shelf:
    """A route that takes a code, of which there is one."""

    def __init__(self) -> None:
        self.looked_up = 0

    @operation("look", scope("wallets:read", own=True), tag="test", answers={204: None}, errors=(NotFound,), guesses=True)
    async def on_get(self, req: Request, resp: Response, code: str) -> None:
        self.looked_up += 1
        await asyncio.sleep(0)
        if code != RIGHT:
            raise NotFound("there is no such code")
        resp.status = 204

    @operation("use", scope("wallets:write"), tag="test", answers={204: None}, errors=(NotFound,), guesses=True)
    async def on_put(self, req: Request, resp: Response, code: str) -> None:
        if code != RIGHT:
            raise NotFound("there is no such code")
        note(req, used="vch_" + "0" * 32)
        resp.status = 204


@pytest.fixture
def shelf(monkeypatch: pytest.MonkeyPatch) -> Shelf:
    """Stands beside all other routes."""
    shelf, routes_of = Shelf(), composition.routes_of

    def with_shelf(*args: Any, **kwargs: Any) -> Any:
        return [*routes_of(*args, **kwargs), ("/v1/shelf/{code}", shelf, None)]

    monkeypatch.setattr(composition, "routes_of", with_shelf)
    return shelf


async def look(caller: Caller, code: str = WRONG) -> int:
    return (await caller.get(f"/v1/shelf/{code}")).status_code


async def test_codes_cannot_be_guessed_for_long(shelf: Shelf, deployment: Deployment, clock: ManualClock) -> None:
    async with deployment(rate_codes="3/60") as at:
        keys = [await at.services.access.create_key(name, ["wallets:read"]) for name in "abc"]
        mine = at.address("192.0.2.1").with_token(keys[0])
        # What is there costs nothing, however often it is asked for.
        assert [await look(mine, RIGHT) for _ in range(10)] == [204] * 10
        assert [await look(mine) for _ in range(3)] == [404] * 3
        wait_seconds = refused(await mine.get(f"/v1/shelf/{RIGHT}"), "code")
        assert shelf.looked_up == 13
        # Neither from another address, nor with another key from this one; everybody else goes on, and so does everything else.
        refused(await at.address("192.0.2.2").with_token(keys[0]).get(f"/v1/shelf/{WRONG}"), "code")
        refused(await at.address("192.0.2.1").with_token(keys[1]).get(f"/v1/shelf/{WRONG}"), "code")
        assert await look(at.address("192.0.2.2").with_token(keys[2])) == 404
        assert (await mine.get("/v1/wallets/acc_0")).status_code == 404
        clock.advance(seconds=wait_seconds)
        assert await look(mine, RIGHT) == 204


async def test_requested_code_is_not_logged(shelf: Shelf, deployment: Deployment, log: Log) -> None:
    async with deployment(rate_codes="1/60") as at:
        olga = {"email": "olga@example.com", "password": "operator's password"}
        await at.services.members.create_operator(olga["email"], olga["password"], "operator")
        token = (await at.address("192.0.2.1").post("/v1/auth/login", olga)).json()["access_token"]
        caller = at.address("192.0.2.1").with_token(token)
        answers = [await caller.put(f"/v1/shelf/{code}") for code in (RIGHT, WRONG, WRONG)]
        assert [answer.status_code for answer in answers] == [204, 404, 429]
        await log.written(answers[-1])
        kept = [record async for record in at.services.database.raw["audit"].find({}, sort=[("_id", 1)])]
    assert [(record["action"], record["phase"], record["status"]) for record in kept] == [
        ("use", phase, status) for status in (204, 404, 429) for phase, status in (("asked", None), ("answered", status))
    ]
    assert kept[1]["facts"] == {"used": "vch_" + "0" * 32}
    told = repr(kept) + log.getvalue()
    assert '"limit_hit"' in told
    assert not [code for code in (RIGHT, WRONG) if code in told]


async def test_concurrent_guesses_of_codes_share_one_quota(shelf: Shelf, deployment: Deployment) -> None:
    async with deployment(rate_codes="5/60") as at:
        key = await at.services.access.create_key("a", ["wallets:read"])
        statuses = await asyncio.gather(*(look(at.address(f"192.0.2.{n}").with_token(key)) for n in range(100)))
        assert (statuses.count(404), statuses.count(429)) == (5, 95)


async def test_members_and_anonymous_callers_have_limited_guesses(shelf: Shelf, deployment: Deployment) -> None:
    async with deployment(rate_codes="3/60") as at:
        tokens: list[str] = []
        for n in range(3):
            person = {"email": f"m{n}@example.com", "password": PASSWORD}
            assert (await at.address("192.0.2.1").post("/v1/auth/register", person)).status_code == 201
            tokens.append((await at.address("192.0.2.1").post("/v1/auth/login", person)).json()["access_token"])
        # Each account a few times: the address tells.
        assert [await look(at.address("192.0.2.1").with_token(tokens[n % 3])) for n in range(5)] == [404] * 3 + [429] * 2
        # One account from everywhere: the account tells.
        assert [await look(at.address(f"198.51.100.{n}").with_token(tokens[2])) for n in range(5)] == [404] * 2 + [429] * 3
        # Who may not ask at all has guessed nothing.
        assert [await look(at.address("192.0.2.7")) for _ in range(5)] == [401] * 5
        assert await look(at.address("192.0.2.7").with_token(tokens[1])) == 404
