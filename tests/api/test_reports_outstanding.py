"""Liability, expiring value, debts, months of a time zone with daylight saving, and waiting for a transaction: figures worked by hand."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
from falcon.asgi import App

from guerdon.clock import rfc3339
from guerdon.config import Settings
from guerdon.logs import make_logger
from guerdon.wiring.routes import build_app
from guerdon.wiring.services import Services, open_services
from tests.api.report_fixtures import read_report, set_clock, sweep_all, ties, without_zeros
from tests.clients import Caller, Log, ManualClock, client_of
from tests.factories import Factory
from tests.views.build import build_views

ROLL, LIABILITY, EXPIRING = "/v1/reports/roll-forward", "/v1/reports/liability", "/v1/reports/expiring"


async def credit(service: Caller, wallet: str, amount: int, **more: Any) -> None:
    answer = await service.post(f"/v1/wallets/{wallet}/credit", {"amount": amount, **more})
    assert answer.status_code == 201, answer.text


def rows_by(liability: dict[str, Any], by: str) -> dict[str | None, tuple[int, int, int]]:
    """Outstanding, paid and promotional value by month."""
    rows = [row for row in liability["rows"] if row["by"] == by]
    return {row["month"]: (row["outstanding"], row["paid"], row["promotional"]) for row in rows}


async def test_liability_by_state_and_month(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    set_clock(clock, "2031-01-20T12:00:00+00:00")
    ada, bob, carol = [await factory.member() for _ in range(3)]
    wallet = f"{ada}:PTS"
    await credit(service, wallet, 1000)
    await credit(service, wallet, 400, source="promotional", expires_at="2031-05-10T00:00:00Z")
    set_clock(clock, "2031-02-03T12:00:00+00:00")
    await credit(service, wallet, 60, source="promotional", expires_at="2031-03-01T00:00:00Z")
    await credit(service, f"{carol}:PTS", 30, source="promotional", available_at="2031-03-15T00:00:00Z")
    # Bob owes 25: what a refund takes back has been spent.
    campaign = await factory.campaign(clawback="debt")
    sold = factory.event(member={"id": bob}, amount=2500, occurred_at=rfc3339(clock.now_ms()))
    assert (await service.post("/v1/events", sold)).status_code == 201
    assert (await service.post(f"/v1/wallets/{bob}:PTS/debit", {"amount": 25})).status_code == 201
    back = factory.event(type="refund", refund_of=sold["id"], member={"id": bob}, amount=2500, occurred_at=rfc3339(clock.now_ms()))
    assert (await service.post("/v1/events", back)).status_code == 201
    assert await factory.balance(f"{bob}:PTS") == -25
    assert (await service.post(f"/v1/campaigns/{campaign}/pause")).status_code == 200
    # 50 points of a purchase await a confirmation, and expire if none comes within a year.
    await factory.campaign(pending={"type": "event", "event_type": "delivered", "within_days": 365})
    bought = factory.event(member={"id": carol}, amount=5000, occurred_at=rfc3339(clock.now_ms()))
    assert (await service.post("/v1/events", bought)).status_code == 201
    # First out are the 60 that expire first, then 40 of the 400.
    spent = await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 100})
    assert spent.status_code == 201
    assert (await service.post("/v1/holds", {"wallet": wallet, "amount": 35, "expires_in_seconds": 600})).status_code == 201

    liability = await read_report(service, services, LIABILITY)
    total = liability["total"]
    # 1000 + 400 + 60 - 100 = 1360 of Ada, 30 + 50 of Carol, and Bob's debt apart.
    assert without_zeros(total) == {
        "outstanding": 1440, "spendable": 1440 - 30 - 50 - 35, "pending": 30, "waiting": 50, "held": 35, "debt": -25, "balance": 1415,
    }  # fmt: skip
    assert total["spendable"] + total["pending"] + total["waiting"] + total["held"] == total["outstanding"]
    assert total["outstanding"] + total["expired"] + total["debt"] == total["balance"]
    # The debt lowers the month in which it was made.
    assert rows_by(liability, "earning_month") == {"2031-01": (1360, 1000, 360), "2031-02": (30 + 50 - 25, -25, 80)}
    assert rows_by(liability, "expiry_month") == {
        "2031-05": (360, 0, 360),
        "2032-02": (50, 0, 50),
        None: (1000 - 25 + 30, 975, 30),
    }
    assert total["maximum_cost"] is total["cost_currency"] is None

    january = await read_report(service, services, LIABILITY, at="2031-02-01")
    assert (january["total"]["outstanding"], january["at"]) == (1400, "2031-02-01T00:00:00.000Z")
    assert rows_by(january, "earning_month") == {"2031-01": (1400, 1000, 400)}
    roll = await read_report(service, services, ROLL, start="2031-01-01")
    assert roll["check"] == {"closing": 1415, "system_accounts": -1415, "wallets": 1415, "debt": -25, "difference": 0}
    assert ties(roll)
    await factory.assert_books_balance()


async def test_money_is_worth_its_face_value(service: Caller, services: Services, factory: Factory) -> None:
    await factory.wallet(699, asset="GBP")
    liability = await read_report(service, services, LIABILITY, asset="GBP")
    assert liability["scale"] == 2
    assert (liability["total"]["maximum_cost"], liability["total"]["cost_currency"]) == (699, "GBP")
    assert [row["maximum_cost"] for row in liability["rows"]] == [699, 699]


async def test_expiring_value_by_day_and_member(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    set_clock(clock, "2031-06-01T09:00:00+00:00")
    ada, bob = await factory.wallet(1000), await factory.wallet(1000)
    # Noon of today, the midnight that ends 3 June, and 20 and 40 days ahead.
    for wallet, amount, expires_at in (
        (ada, 10, "2031-06-01T12:00:00Z"),
        (ada, 20, "2031-06-04T00:00:00Z"),
        (bob, 40, "2031-06-04T00:00:00Z"),
        (bob, 80, "2031-06-21T00:00:00Z"),
        (ada, 160, "2031-07-11T00:00:00Z"),
    ):
        await credit(service, wallet, amount, source="promotional", expires_at=expires_at)
    # Ada's 10 and 5 of her 20 are set aside, and do not expire before they return.
    assert (await service.post("/v1/holds", {"wallet": ada, "amount": 15, "expires_in_seconds": 86_400 * 7})).status_code == 201
    expiring = await read_report(service, services, EXPIRING)
    assert (expiring["from"], expiring["to"], expiring["days"]) == ("2031-06-01", "2031-07-01", 30)
    assert [(row["day"], row["amount"]) for row in expiring["rows"]] == [("2031-06-04", 15 + 40), ("2031-06-21", 80)]
    assert expiring["total"] == {"amount": 135, "paid": 0, "promotional": 135}
    members = {row["wallet"]: (row["amount"], row["expires_at"]) for row in expiring["members"]}
    assert members == {ada: (15, "2031-06-04T00:00:00.000Z"), bob: (120, "2031-06-04T00:00:00.000Z")}
    assert [row["member_id"] for row in expiring["members"]] == sorted(wallet.partition(":")[0] for wallet in (ada, bob))

    seen, cursor = list[str](), None
    while True:
        page = await read_report(service, services, EXPIRING, limit=1, **({} if cursor is None else {"cursor": cursor}))
        seen += [row["wallet"] for row in page["members"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == sorted((ada, bob))
    assert (await read_report(service, services, EXPIRING, days=3))["rows"] == []
    assert (await read_report(service, services, EXPIRING, days=60))["total"]["amount"] == 135 + 160

    # What has expired and is not written off yet is no longer counted, and no liability.
    set_clock(clock, "2031-06-04T00:00:01+00:00")
    late = await read_report(service, services, EXPIRING)
    assert [(row["day"], row["amount"]) for row in late["rows"]] == [("2031-06-21", 80)]
    assert [(row["wallet"], row["amount"]) for row in late["members"]] == [(bob, 80)]
    liability = await read_report(service, services, LIABILITY)
    # 2000 + 310 - 55; 15 are held, and 10 of them are past their expiry.
    assert (liability["total"]["outstanding"], liability["total"]["expired"], liability["total"]["held"]) == (2255, 55, 15)
    assert liability["total"]["spendable"] == 2240
    assert sum(row["outstanding"] for row in liability["rows"] if row["by"] == "earning_month") == 2255
    assert sum(row["outstanding"] for row in liability["rows"] if row["by"] == "expiry_month") == 2255
    assert await sweep_all(services) == 2
    swept = await read_report(service, services, LIABILITY)
    assert (swept["total"]["outstanding"], swept["total"]["expired"], swept["total"]["balance"]) == (2255, 0, 2255)
    assert swept["rows"] == liability["rows"]
    await factory.assert_books_balance()


async def test_value_that_expires_within_the_day(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    set_clock(clock, "2031-06-01T09:00:00+00:00")
    ada, bob = await factory.wallet(1), await factory.wallet(1)
    await credit(service, ada, 10, source="promotional", expires_at="2031-06-01T12:00:00Z")
    await credit(service, bob, 7, expires_at="2031-06-01T18:00:00Z")
    today = {"day": "2031-06-01", "amount": 17, "paid": 7, "promotional": 10}
    assert (await read_report(service, services, EXPIRING, days=1))["rows"] == [today]
    set_clock(clock, "2031-06-01T15:00:00+00:00")
    left = await read_report(service, services, EXPIRING, days=1)
    assert left["rows"] == [{"day": "2031-06-01", "amount": 7, "paid": 7, "promotional": 0}]
    assert [row["wallet"] for row in left["members"]] == [bob]


async def test_report_waits_for_a_transaction(service: Caller, services: Services, factory: Factory) -> None:
    wallet = await factory.wallet(100)
    await build_views(services)
    spent = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 30})).json()
    late = asyncio.create_task(service.get(ROLL, asset="PTS", wait_for=spent["id"]))
    await asyncio.sleep(0)
    await build_views(services)
    found = (await late).json()
    assert (found["stale"], found["total"]["closing"]) == (False, 70)
    again = (await service.post(f"/v1/wallets/{wallet}/debit", {"amount": 30})).json()
    stale = (await service.get(ROLL, asset="PTS", wait_for=again["id"])).json()
    assert (stale["stale"], stale["total"]["closing"]) == (True, 70)


# --- a time zone with daylight saving -------------------------------------------------------------------------------


@pytest.fixture
def london(settings: Settings) -> Settings:
    return settings.model_copy(update={"time_zone": "Europe/London"})


@pytest_asyncio.fixture
async def londoner(london: Settings, clock: ManualClock, database: object) -> AsyncIterator[tuple[Services, Caller, Factory]]:
    async with open_services(london, clock) as services:
        app: App[Any, Any] = build_app(services, london, make_logger(services.clock, "info", Log()))
        async with client_of(app) as client:
            caller = Caller(client).with_token(await services.access.create_key("tests", ["*"]))
            yield services, caller, Factory(caller, services)


async def test_days_and_months_are_those_of_the_time_zone(londoner: tuple[Services, Caller, Factory], clock: ManualClock) -> None:
    services, service, factory = londoner
    wallet = f"{await factory.member()}:PTS"
    for amount, moment in (
        (1, "2031-03-31T22:59:59+00:00"),  # 23:59:59 in London, still in March
        (2, "2031-03-31T23:00:00+00:00"),  # midnight in London: April
        (4, "2031-10-25T22:59:59+00:00"),  # the last second of 25 October
        (8, "2031-10-25T23:00:00+00:00"),  # 26 October has 25 hours ...
        (16, "2031-10-26T23:59:59+00:00"),
        (32, "2031-10-27T00:00:00+00:00"),  # ... and this is the next day
    ):
        set_clock(clock, moment)
        await credit(service, wallet, amount)
    months = await read_report(service, services, ROLL, start="2031-03-01", end="2031-11-01")
    assert months["time_zone"] == "Europe/London"
    loaded = {row["period"]: row["loaded"] for row in months["rows"] if row["loaded"]}
    assert loaded == {"2031-03": 1, "2031-04": 2, "2031-10": 4 + 8 + 16 + 32}
    days = await read_report(service, services, ROLL, start="2031-10-24", end="2031-10-28", group="day")
    assert [(row["period"], row["loaded"], row["closing"]) for row in days["rows"]] == [
        ("2031-10-24", 0, 3), ("2031-10-25", 4, 7), ("2031-10-26", 24, 31), ("2031-10-27", 32, 63),
    ]  # fmt: skip
    # The same range by the midnights of London: summer time before 26 October, winter time after it.
    same = await read_report(service, services, ROLL, start="2031-10-24T00:00:00+01:00", end="2031-10-28T00:00:00Z", group="day")
    assert same["rows"] == days["rows"]
    assert ties(months)
    assert ties(days)
    april = await read_report(service, services, "/v1/books/trial-balance", at="2031-04-01")
    assert (april["at"], april["sum"]) == ("2031-03-31T23:00:00.000Z", 0)
    assert april["accounts"][-1] == {"account": "wallets", "balance": 1}
