"""In development the clock can be put forward, and everything follows it: tokens, holds, lots, campaigns, other processes."""

from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.ledger.jobs import sweep
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

DAY = 86_400


async def advance(service: Caller, seconds: int) -> dict[str, Any]:
    answer = await service.post("/v1/test/clock/advance", {"seconds": seconds}, key=None)
    assert answer.status_code == 200, answer.text
    view: dict[str, Any] = answer.json()
    return view


async def test_advanced_clock_ends_holds_and_dated_value(service: Caller, factory: Factory, services: Services) -> None:
    wallet = await factory.wallet(100)
    campaign = await factory.campaign(award={"type": "fixed", "amount": 10}, pending={"type": "days", "days": 14})
    await factory.campaign(award={"type": "fixed", "amount": 7}, expiry={"type": "after_days", "days": 30}, event_types=["signup"])
    member = {"id": wallet.partition(":")[0]}
    for kind in ("purchase", "signup"):
        assert (await service.post("/v1/events", factory.event(type=kind, member=member), key=None)).status_code == 201
    assert (await service.post("/v1/holds", {"wallet": wallet, "amount": 60, "expires_in_seconds": 900})).status_code == 201

    async def available() -> int:
        return int((await service.get(f"/v1/wallets/{wallet}")).json()["available"])

    assert await available() == 47
    await advance(service, 901)
    assert await available() == 107
    await advance(service, 15 * DAY)
    assert await available() == 117
    await advance(service, 16 * DAY)
    assert await available() == 110
    assert await sweep(services.ledger, services.database, services.clock) == 1
    assert await factory.balance(wallet) == 110
    assert campaign
    await factory.assert_books_balance()


async def test_advanced_clock_expires_tokens(service: Caller, anonymous: Caller) -> None:
    body = {"email": "ada@example.com", "password": "correct horse battery"}
    assert (await anonymous.post("/v1/auth/register", body, key=None)).status_code == 201
    token = (await anonymous.post("/v1/auth/login", body, key=None)).json()["access_token"]
    ada = anonymous.with_token(token)
    assert (await ada.get("/v1/me")).status_code == 200
    await advance(service, 1000)
    problem(await ada.get("/v1/me"), 401, "unauthenticated")
    assert (await anonymous.post("/v1/auth/login", body, key=None)).status_code == 200


async def test_other_processes_follow_the_advanced_clock(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    before = other_services.clock.now_ms()
    view = await advance(service, 10 * DAY)
    assert view["advanced_seconds"] == 10 * DAY
    assert other_services.clock_control is not None
    await other_services.clock_control.follow()
    assert other_services.clock.now_ms() - before >= 10 * DAY * 1000
    assert (await advance(service, 1))["advanced_seconds"] == 10 * DAY + 1
    async with open_services(settings, clock) as services:
        assert services.clock.now_ms() - before >= (10 * DAY + 1) * 1000


@pytest.mark.parametrize("seconds", [0, -1, 1.5, "60", 10**12, None])
async def test_invalid_clock_advance_is_refused(service: Caller, database: Database, seconds: object) -> None:
    problem(await service.post("/v1/test/clock/advance", {"seconds": seconds}, key=None), 422, "validation")
    assert await database.raw["clocks"].count_documents({}) == 0


async def test_clock_advances_at_most_ten_years(service: Caller, database: Database) -> None:
    await advance(service, 3650 * DAY)
    problem(await service.post("/v1/test/clock/advance", {"seconds": 1}, key=None), 422, "validation")
    assert (await database.raw["clocks"].find_one({}))["offset_ms"] == 3650 * DAY * 1000


async def test_production_has_no_clock_route(settings: Settings, clock: ManualClock, service: Caller) -> None:
    production = settings.model_copy(update={"profile": "production"})
    async with open_services(production, clock) as services, serve(services, production, clock) as anonymous:
        assert service.token is not None
        assert services.clock is clock
        answer = await anonymous.with_token(service.token).post("/v1/test/clock/advance", {"seconds": 1}, key=None)
        problem(answer, 404, "not-found")
