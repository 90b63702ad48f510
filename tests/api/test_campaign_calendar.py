"""Campaigns at the edges of days and months, and what a change of their rules leaves alone."""

from collections.abc import AsyncIterator
from datetime import datetime, time, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
import pytest_asyncio

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve
from tests.tier_fixtures import set_tiers

ADA = {"external_id": "ada"}
BERLIN = ZoneInfo("Europe/Berlin")
FIXED = {"type": "fixed", "amount": 100}
BODY = {"name": "n", "asset": "PTS", "event_types": ["purchase"]}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


@pytest.fixture
def there(settings: Settings) -> Settings:
    return settings.model_copy(update={"time_zone": "Europe/Berlin"})


@pytest_asyncio.fixture
async def berlin_services(there: Settings, clock: ManualClock) -> AsyncIterator[Services]:
    """The services of a programme in Berlin, whose days have 23, 24 or 25 hours."""
    async with open_services(there, clock) as services:
        yield services


@pytest_asyncio.fixture
async def berlin(service: Caller, berlin_services: Services, there: Settings, clock: ManualClock) -> AsyncIterator[Caller]:
    """A caller of `berlin_services`."""
    assert service.token is not None
    async with serve(berlin_services, there, clock) as anonymous:
        yield anonymous.with_token(service.token)


@pytest.mark.parametrize(
    ("period", "moments", "paid"),
    [
        # 25 October 2026 has 25 hours: from 22:00 UTC of the day before to 23:00 UTC.
        ("day", ["10-24T21:59:59.999Z", "10-24T22:00:00Z", "10-25T22:59:59.999Z", "10-25T23:00:00Z"], [100, 100, 0, 100]),
        # 29 March 2026 has 23 hours: from 23:00 UTC of the day before to 22:00 UTC.
        ("day", ["03-28T22:59:59.999Z", "03-28T23:00:00Z", "03-29T21:59:59.999Z", "03-29T22:00:00Z"], [100, 100, 0, 100]),
        ("month", ["10-31T22:59:59.999Z", "10-31T23:00:00Z", "11-30T22:59:59.999Z", "11-30T23:00:00Z"], [100, 100, 0, 100]),
        ("week", ["10-25T22:59:59.999Z", "10-25T23:00:00Z", "11-01T22:59:59.999Z", "11-01T23:00:00Z"], [100, 100, 0, 100]),
    ],
    ids=["25 hours", "23 hours", "month", "week"],
)
async def test_caps_follow_the_programme_calendar(
    berlin: Caller, factory: Factory, period: str, moments: list[str], paid: list[int]
) -> None:
    await factory.campaign(award=FIXED, caps=[{"scope": "member", "period": period, "limit": 100}])
    events = [factory.event(member=ADA, occurred_at=f"2026-{moment}") for moment in moments]
    assert [total(await record(berlin, event)) for event in events] == paid
    await factory.assert_books_balance()


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59.999Z"])
async def test_caps_and_hours_work_at_the_ends_of_the_calendar(berlin_services: Services, factory: Factory, moment: str) -> None:
    """In Berlin the last of them is no more in the calendar."""
    caps = [{"scope": "member", "period": period, "limit": 100} for period in ("day", "week", "month", "year", "ever")]
    hours = [{"days": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"]}]
    await factory.campaign(award=FIXED, caps=caps, schedule=hours, condition="!member.birthday_today")
    assert [total(await factory.record_at_any_time(berlin_services, member=ADA, occurred_at=moment)) for _ in range(2)] == [100, 0]
    await factory.assert_books_balance()


async def test_awards_become_available_and_expire_at_programme_midnight(
    berlin: Caller, factory: Factory, clock: ManualClock
) -> None:
    """Through both changes of the clocks, from whatever day it is now."""
    await factory.campaign(award=FIXED, pending={"type": "days", "days": 1}, expiry={"type": "end_of_month", "months": 1})
    offsets: set[timedelta | None] = set()
    for _ in range(12):
        [award] = (await record(berlin, factory.event(member=ADA)))["awards"]
        available, lapses = (datetime.fromisoformat(award[name]).astimezone(BERLIN) for name in ("available_at", "expires_at"))
        assert (available.time(), lapses.time(), lapses.day) == (time.min, time.min, 1)
        offsets.add(lapses.utcoffset())
        clock.advance(days=30)
    assert offsets == {timedelta(hours=1), timedelta(hours=2)}
    await factory.assert_books_balance()


async def test_policy_change_keeps_the_dates_of_existing_lots(service: Caller, factory: Factory, clock: ManualClock) -> None:
    campaign = await factory.campaign(award=FIXED, pending={"type": "days", "days": 3}, expiry={"type": "after_days", "days": 30})
    bought = await record(service, factory.event(member=ADA))
    lots = f"/v1/wallets/{bought['member_id']}:PTS/lots"
    before = (await service.get(lots)).json()
    assert len(before["items"]) == 1
    changed = {**BODY, "award": FIXED, "expiry": {"type": "end_of_year", "years": 2}}
    assert (await service.put(f"/v1/campaigns/{campaign}", changed)).status_code == 200
    assert (await service.get(lots)).json() == before
    later = await record(service, factory.event(member=ADA))
    [old] = [lot for lot in (await service.get(lots)).json()["items"] if lot["expires_at"] != later["awards"][0]["expires_at"]]
    assert old == before["items"][0]
    assert (await service.post(f"/v1/campaigns/{campaign}/end")).status_code == 200
    assert old in (await service.get(lots)).json()["items"]
    clock.advance(days=32)
    assert (await service.get(f"/v1/wallets/{bought['member_id']}:PTS")).json()["available"] == 100, "the first has lapsed"
    await factory.assert_books_balance()


async def test_rule_change_moves_no_value(service: Caller, factory: Factory, database: Database) -> None:
    campaign = await factory.campaign(budget=500, caps=[{"scope": "member", "period": "day", "limit": 300}])
    for _ in range(3):
        await record(service, factory.event(member=ADA))

    async def books() -> dict[str, list[dict[str, Any]]]:
        return {
            name: [row async for row in database.raw[name].find().sort("_id")]
            for name in ("accounts", "entries", "events", "standings", "refunds")
        }

    before = await books()
    changes: list[dict[str, Any]] = [
        {"award": FIXED},
        {"award": FIXED, "budget": 1},
        {"award": {"type": "percent", "percent": "50"}, "caps": [{"scope": "member", "period": "day", "limit": 1}]},
        {"award": FIXED, "clawback": "none", "asset": "GBP"},
    ]
    for change in changes:
        assert (await service.put(f"/v1/campaigns/{campaign}", {**BODY, **change})).status_code == 200
    for step in ("pause", "activate", "end"):
        assert (await service.post(f"/v1/campaigns/{campaign}/{step}")).status_code == 200
    problem(await service.put(f"/v1/campaigns/{campaign}", {**BODY, "award": FIXED}), 409, "invalid-state")
    await set_tiers(service)
    assert await books() == before
    await factory.assert_books_balance()
