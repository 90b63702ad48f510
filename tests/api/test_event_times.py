"""Times of events: tills whose clocks are a little wrong are served, and those that are far ahead are refused."""

from typing import Any

import pytest

from guerdon.clock import rfc3339
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve

HOUR = 3_600_000
DAY_CAP = {"caps": [{"scope": "member", "period": "day", "limit": 100}], "award": {"type": "fixed", "amount": 60}}
ADA = {"external_id": "ada"}


def variants(factory: Factory, occurred_at: str) -> list[dict[str, Any]]:
    """An event of every kind."""
    refund, visit = {"type": "refund", "amount": 100}, {"type": "visit", "amount": 0, "currency": None}
    kinds: tuple[dict[str, Any], ...] = ({}, refund, {**refund, "refund_of": "x"}, visit, {**visit, "confirms": "x"})
    return [factory.event(member=ADA, occurred_at=occurred_at, **kind) for kind in kinds]


async def test_event_far_ahead_of_the_clock_is_refused(
    service: Caller, factory: Factory, clock: ManualClock, database: Database
) -> None:
    """It was paid, used caps of its own day, and every later purchase seemed to come less than a day after it."""
    clock.stop()
    await factory.campaign(**DAY_CAP)
    before = await count_rows(database)
    for ahead in (24 * HOUR + 1, 36 * 8766 * HOUR):
        for event in variants(factory, rfc3339(clock.now_ms() + ahead)):
            for path in ("/v1/events", "/v1/events/preview"):
                [fault] = problem(await service.post(path, event, key=None), 422, "validation")["errors"]
                assert fault["pointer"] == "/occurred_at"
                assert rfc3339(clock.now_ms() + 24 * HOUR) in fault["detail"]
    both = problem(
        await service.post("/v1/events", factory.event(occurred_at="9999-12-31T23:59:59.999Z", currency=None)), 422, "validation"
    )
    assert [fault["pointer"] for fault in both["errors"]] == ["/currency", "/occurred_at"]
    assert await count_rows(database) == before
    good, ahead = factory.event(member=ADA), factory.event(member=ADA, occurred_at=rfc3339(clock.now_ms() + 25 * HOUR))
    answer = await service.post("/v1/events/bulk", {"events": [ahead, good, ahead]}, key=None)
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [422, 201, 422]
    assert results[0]["problem"]["errors"][0]["pointer"] == "/occurred_at"
    await factory.assert_books_balance()


async def test_event_a_little_ahead_or_behind_is_served(service: Caller, factory: Factory, clock: ManualClock) -> None:
    clock.stop()
    await factory.campaign(award={"type": "fixed", "amount": 60})
    for ahead in (24 * HOUR, HOUR, 180_000, 0, -2 * HOUR, -50 * 8766 * HOUR):
        for event in variants(factory, rfc3339(clock.now_ms() + ahead)):
            assert (await service.post("/v1/events", event, key=None)).status_code == 201
    await factory.assert_books_balance()


@pytest.mark.parametrize("hours", [0, 1, 8_760])
async def test_the_bound_is_a_setting(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, hours: int
) -> None:
    clock.stop()
    there = settings.model_copy(update={"event_ahead_hours_max": hours})
    assert service.token is not None
    async with open_services(there, clock) as services, serve(services, there, clock) as anonymous:
        caller = anonymous.with_token(service.token)
        for ahead, status in ((hours * HOUR, 201), (hours * HOUR + 1, 422)):
            event = factory.event(occurred_at=rfc3339(clock.now_ms() + ahead))
            assert (await caller.post("/v1/events", event, key=None)).status_code == status
