"""Streaks and achievements: so many events within a window, paid once, in any order, and taken back with what they rest on."""

import asyncio
from datetime import date, timedelta
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve

ADA = {"external_id": "ada"}
FIXED = {"type": "fixed", "amount": 100}
WEEKS = {"events": 3, "within": {"type": "streak", "unit": "week"}}
VISITS = {"events": 3, "within": {"type": "days", "days": 10}}
MONDAY = date(2026, 1, 5)


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def total(recorded: dict[str, Any]) -> int:
    return sum(award["amount"] for award in recorded["awards"])


def bought(factory: Factory, day: int, **changes: Any) -> dict[str, Any]:
    """A purchase so many days after a Monday."""
    return factory.event(member=ADA, amount=1000, occurred_at=f"{MONDAY + timedelta(days=day)}T12:00:00Z", **changes)


async def earned(service: Caller, factory: Factory, days: list[int]) -> list[int]:
    return [total(await record(service, bought(factory, day))) for day in days]


@pytest.mark.parametrize(
    ("achievement", "days", "expected"),
    [
        (WEEKS, [0, 6, 7, 14, 20, 21, 28, 35], [0, 0, 0, 100, 0, 0, 0, 100]),  # Two streaks, and a second purchase in some weeks.
        (WEEKS, [0, 7, 21, 28, 14], [0, 0, 0, 0, 100]),  # The missing week arrives late.
        (WEEKS, [0, 14, 28], [0, 0, 0]),
        ({**WEEKS, "repeats": False}, [0, 7, 14, 21, 28, 35], [0, 0, 100, 0, 0, 0]),
        ({"events": 2, "within": {"type": "streak", "unit": "month"}}, [0, 20, 40], [0, 0, 100]),
        ({"events": 2, "within": {"type": "streak", "unit": "day"}}, [0, 0, 1, 3], [0, 0, 100, 0]),
        (VISITS, [0, 9, 9, 10, 11, 12], [0, 0, 100, 0, 0, 100]),
        (VISITS, [0, 10, 20, 15, 16], [0, 0, 0, 0, 100]),
        (VISITS, [40, 0, 41, 42], [0, 0, 0, 100]),  # What is older than a window counts no more.
    ],
)
async def test_goals_are_reached_once(
    service: Caller, factory: Factory, achievement: dict[str, Any], days: list[int], expected: list[int]
) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement=achievement)
    assert await earned(service, factory, days) == expected
    await factory.assert_books_balance()


async def test_only_matching_events_count_and_progress_is_reported(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement=WEEKS, condition="event.amount >= 1000")
    first = await record(service, bought(factory, 0))
    assert first["decisions"][0]["reasons"] == ["1 of 3 weeks in a row"]
    small = await record(service, {**bought(factory, 7), "amount": 999})
    assert small["decisions"][0]["reasons"] == ["the condition is false: event.amount >= 1000"]
    await record(service, bought(factory, 7))
    event = bought(factory, 14)
    preview = (await service.post("/v1/events/preview", event, key=None)).json()
    last = await record(service, event)
    assert last["decisions"][0]["reasons"] == ["3 of 3 weeks in a row; fixed award of 100"]
    assert (preview["decisions"], total(preview)) == (last["decisions"], 100)
    await factory.assert_books_balance()


@pytest.mark.parametrize(("amount", "taken"), [(499, 0), (500, -100), (1000, -100)])
async def test_a_purchase_counts_while_less_than_half_is_refunded(
    service: Caller, factory: Factory, amount: int, taken: int
) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement=VISITS)
    events = [bought(factory, day) for day in (0, 1, 2)]
    answers = [await record(service, event) for event in events]
    back = await record(service, factory.event(type="refund", refund_of=events[1]["id"], member=ADA, amount=amount))
    assert total(back) == taken
    assert await factory.balance(f"{answers[0]['member_id']}:PTS") == 100 + taken
    # The other two count again, so that one more completes the goal, and the whole can be taken back again.
    assert await earned(service, factory, [3]) == [-taken]
    again = [factory.event(type="refund", refund_of=event["id"], member=ADA, amount=1000) for event in events]
    assert sum([total(await record(service, event)) for event in again]) == -100
    assert await factory.balance(f"{answers[0]['member_id']}:PTS") == 0
    await factory.assert_books_balance()


async def test_another_purchase_in_the_week_keeps_a_streak(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement=WEEKS)
    events = [bought(factory, day) for day in (0, 7, 8, 14, 15)]
    assert [total(await record(service, event)) for event in events] == [0, 0, 0, 100, 0]
    refunds = [factory.event(type="refund", refund_of=events[n]["id"], member=ADA, amount=1000) for n in (1, 3, 4)]
    assert [total(await record(service, event)) for event in refunds] == [0, 0, -100]
    await factory.assert_books_balance()


async def test_purchase_refunded_before_its_arrival_never_counts(service: Caller, factory: Factory) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement={**VISITS, "events": 2})
    late = bought(factory, 1)
    await record(service, factory.event(type="refund", refund_of=late["id"], member=ADA, amount=500))
    assert [total(await record(service, event)) for event in (bought(factory, 0), late, bought(factory, 2))] == [0, 0, 100]
    await factory.assert_books_balance()


async def test_events_at_once_in_two_processes_reach_a_goal_once(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement={**VISITS, "events": 5})
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [bought(factory, n % 3) for n in range(14)]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    assert sorted(total(answer.json()) for answer in answers) == [0] * 12 + [100] * 2
    await factory.assert_books_balance()


async def test_goal_beyond_the_budget_is_still_reached(service: Caller, factory: Factory) -> None:
    goal = {**VISITS, "events": 2}
    await factory.campaign(event_types=["purchase"], award=FIXED, achievement=goal, budget=100)
    answers = [await record(service, bought(factory, day)) for day in (0, 1, 2, 3, 4)]
    assert [answer["decisions"][0]["outcome"] for answer in answers] == [
        "not_matched", "awarded", "not_matched", "capped", "not_matched"
    ]  # fmt: skip
    await factory.assert_books_balance()


async def test_refunds_count_for_no_achievement(service: Caller) -> None:
    body = {"name": "x", "asset": "PTS", "event_types": ["purchase", "refund"], "award": FIXED, "achievement": VISITS}
    assert problem(await service.post("/v1/campaigns", body), 422, "validation")["errors"][0]["pointer"] == "/event_types"
