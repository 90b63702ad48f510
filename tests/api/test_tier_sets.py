"""The tiers of the programme: checked, versioned, and changed while members have some."""

import asyncio
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import serve
from tests.tier_fixtures import LADDER, Till, earning, set_tiers, show


@pytest.fixture
def till(service: Caller, factory: Factory, clock: ManualClock) -> Till:
    return Till(service, factory, clock)


RAISED = [{"code": "silver", "name": "Silver", "points": 1000}, {"code": "gold", "name": "Gold", "points": 5000}]
LOWERED = [{"code": "silver", "name": "Silver", "points": 10}, {"code": "gold", "name": "Gold", "points": 100}]
OTHERS = [{"code": "one", "name": "One", "points": 50}, {"code": "two", "name": "Two", "points": 5000}]


@pytest.mark.parametrize(
    ("changes", "at_once", "after"),
    [
        ({"tiers": RAISED}, None, None),
        ({"tiers": RAISED, "grace_days": 3}, "silver", None),
        ({"tiers": LOWERED}, "gold", "gold"),
        ({"tiers": OTHERS, "grace_days": 3}, "one", "one"),
        ({"asset": "GBP"}, None, None),
        ({"window": {"type": "calendar_year"}}, None, None),
        ({"window": {"type": "calendar_year"}, "grace_days": 3}, "silver", None),
    ],
)
async def test_new_tier_set_applies_to_members_with_old_tiers(
    till: Till, services: Services, changes: dict[str, Any], at_once: str | None, after: str | None
) -> None:
    show(till.clock, "2027-12-20T12:00:00Z")
    await set_tiers(till.service)
    await earning(till.factory)
    await till.record(200)
    show(till.clock, "2028-01-10T12:00:00Z")
    assert (await set_tiers(till.service, **changes))["version"] == 2
    assert (await till.tier())["tier"] == at_once
    show(till.clock, "2028-01-13T23:59:59Z")
    assert (await till.tier())["tier"] == at_once
    if at_once is not None and after is None:
        assert (await till.tier())["keep"]["until"] == "2028-01-14T00:00:00.000Z"
    assert await services.tiers.review_due() == 1, "everybody is looked at after a change"
    assert await services.tiers.review_due() == 0
    show(till.clock, "2028-01-14T00:00:00Z")
    assert (await till.tier())["tier"] == after
    assert {reason for _, _, reason in (await till.steps())[1:]} <= {"rules"}
    await services.tiers.review_due()
    steps = await till.steps()
    assert (steps[0], steps[-1][1]) == ((None, "silver", "earned"), after)
    assert all(each["recorded_at"] for each in await till.changes())
    await till.factory.assert_books_balance()


async def test_future_tier_set_is_shown_before_it_takes_effect(
    till: Till, service: Caller, factory: Factory, services: Services
) -> None:
    show(till.clock, "2027-06-15T12:00:00Z")
    await set_tiers(service)
    await earning(factory)
    await till.record(200)
    for points in (900, 300):
        tiers = [{"code": "silver", "name": "Silver", "points": points}]
        told = await set_tiers(service, tiers=tiers, effective_at="2027-07-01T09:00:00Z")
    assert (told["version"], told["coming_version"], told["coming_at"]) == (1, 3, "2027-07-01T09:00:00.000Z")
    keep = (await till.tier())["keep"]
    assert keep == {"missing": 100, "counts_from": "2027-06-15T12:00:00.000Z", "until": "2027-07-01T09:00:00.000Z"}
    show(till.clock, "2027-07-01T09:00:00Z")
    assert (await till.tier())["tier"] is None
    assert (await service.get("/v1/tiers")).json()["version"] == 3
    assert await till.steps() == [(None, "silver", "earned"), ("silver", None, "rules")]
    await factory.assert_books_balance()


async def test_first_tier_set_counts_points_earned_before_it(
    till: Till, service: Caller, factory: Factory, services: Services
) -> None:
    show(till.clock, "2027-06-15T12:00:00Z")
    await earning(factory)
    await till.record(200)
    assert (await service.get("/v1/tiers")).json()["version"] == 0
    assert (await till.tier()) == {
        "member_id": till.member, "tier": None, "since": None, "asset": None, "qualifying_points": 0, "version": None,
        "next": None, "keep": None,
    }  # fmt: skip
    await set_tiers(service)
    now = await till.tier()
    assert (now["tier"], now["since"]) == ("silver", "2027-06-15T12:00:00.000Z")
    assert now["next"] == {"code": "gold", "points": 500, "missing": 300}
    till.clock.advance(seconds=61)
    assert await services.tiers.review_due() == 1
    assert await till.steps() == [(None, "silver", "rules")]
    assert (await till.record(300))["tier_change"] == {"from": "silver", "to": "gold"}
    await factory.assert_books_balance()


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"tiers": []}, "/tiers"),
    ({"tiers": LADDER["tiers"][::-1]}, "/tiers/1/points"),
    ({"tiers": [LADDER["tiers"][0], {**LADDER["tiers"][1], "points": 100}]}, "/tiers/1/points"),
    ({"tiers": [LADDER["tiers"][0], {**LADDER["tiers"][1], "code": "silver"}]}, "/tiers/1/code"),
    ({"tiers": [{**LADDER["tiers"][0], "code": "Silver"}]}, "/tiers/0/code"),
    ({"tiers": [{**LADDER["tiers"][0], "points": -1}]}, "/tiers/0/points"),
    ({"asset": "NONE"}, "/asset"),
    ({"window": {"type": "rolling", "months": 37}}, "/window/months"),
    ({"window": {"type": "rolling"}}, "/window"),
    ({"window": {"type": "calendar_year", "months": 1}}, "/window"),
    ({"grace_days": 93}, "/grace_days"),
    ({"grace_months": -1}, "/grace_months"),
    ({"effective_at": "2020-01-01T00:00:00Z"}, "/effective_at"),
    ({"effective_at": "9998-01-01T00:00:00Z"}, "/effective_at"),
]


@pytest.mark.parametrize(("changes", "pointer"), SENSELESS)
async def test_invalid_definition_is_refused_with_its_pointer(
    service: Caller, database: Database, changes: dict[str, Any], pointer: str
) -> None:
    refused = problem(await service.put("/v1/tiers", {**LADDER, **changes}), 422, "validation")
    assert refused["errors"][0]["pointer"].startswith(pointer)
    assert await database.raw["tier_sets"].count_documents({}) == 0


async def test_concurrent_tier_changes_each_become_a_version_or_are_refused(
    service: Caller, settings: Settings, clock: ManualClock, other_services: Services, database: Database
) -> None:
    assert service.token is not None
    async with serve(other_services, settings, clock) as elsewhere:
        callers = (service, elsewhere.with_token(service.token))
        answers = await asyncio.gather(*(callers[number % 2].put("/v1/tiers", LADDER) for number in range(8)))
    won = [answer for answer in answers if answer.status_code == 200]
    for lost in (answer for answer in answers if answer.status_code != 200):
        problem(lost, 409, "invalid-state")
    stored = await database.raw["tier_sets"].find_one({"_id": "programme"})
    assert stored is not None
    assert stored["count"] == len(won) >= 1
    assert await database.raw["tier_set_versions"].count_documents({}) == len(won)


async def test_oldest_kept_tier_version_stands_for_the_dropped_ones(
    till: Till, service: Caller, factory: Factory, database: Database
) -> None:
    await earning(factory)
    await till.record(200, occurred_at="2026-01-31T12:00:00Z")
    for points in range(101, 114):
        await set_tiers(service, tiers=[{"code": "silver", "name": "Silver", "points": points}])
    stored = await database.raw["tier_sets"].find_one({"_id": "programme"})
    assert stored is not None
    assert [each["version"] for each in stored["versions"]] == list(range(4, 14))
    assert await database.raw["tier_set_versions"].count_documents({}) == 13
    late = await till.record(1, occurred_at="2026-02-01T12:00:00Z")
    assert (late["inputs"]["tier"], late["inputs"]["qualifying"]) == ("silver", {"PTS": {"2026-01": 200}})
    await factory.assert_books_balance()
