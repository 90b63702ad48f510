"""What a campaign can say: when, what, how much at most, for how long, and beside whom."""

import asyncio
from typing import Any

import pytest

from guerdon.config import Settings
from guerdon.database import Database
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve

FIXED = {"type": "fixed", "amount": 100}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


def amounts(recorded: dict[str, Any]) -> list[int]:
    return [award["amount"] for award in recorded["awards"]]


def outcomes(recorded: dict[str, Any]) -> list[str]:
    return [decision["outcome"] for decision in recorded["decisions"]]


SENSELESS: list[tuple[dict[str, Any], str]] = [
    ({"caps": [{"scope": "member", "limit": 1}]}, "/caps/0/period"),
    ({"caps": [{"scope": "event", "limit": 1, "period": "day"}]}, "/caps/0/period"),
    ({"caps": [{"scope": "member", "limit": 0, "period": "day"}]}, "/caps/0/limit"),
    ({"caps": [{"scope": "member", "limit": 1, "period": "decade"}]}, "/caps/0/period"),
    ({"stacking": {"policy": "best"}}, "/stacking/group"),
    ({"stacking": {"priority": -1}}, "/stacking/priority"),
    ({"schedule": [{"days": ["mon"], "starts": "09:00", "ends": "09:00"}]}, "/schedule/0/starts"),
    ({"schedule": [{"days": ["monday"]}]}, "/schedule/0/days/0"),
    ({"schedule": [{"days": ["mon"], "starts": "9:00"}]}, "/schedule/0/starts"),
    ({"schedule": []}, "/schedule"),
    ({"budget": 0}, "/budget"),
    ({"award": {"type": "percent", "percent": "2.55555"}}, "/award/percent"),
    ({"award": {"type": "percent", "percent": 2.5}}, "/award/percent"),
    ({"award": {"type": "formula", "expression": "event.nothing"}}, "/award/expression"),
    ({"award": {"type": "formula", "expression": "'text'"}}, "/award/expression"),
    ({"award": {"type": "formula", "expression": "event.amount +"}}, "/award/expression"),
    ({"tier_multipliers": {"Gold": "2"}}, "/tier_multipliers"),
    ({"tier_multipliers": {"gold": "-2"}}, "/tier_multipliers"),
    ({"pending": {"type": "days", "days": 0}}, "/pending/days"),
    ({"pending": {"days": 1}}, "/pending"),
    ({"expiry": {}}, "/expiry"),
    ({"expiry": {"type": "end_of_month", "months": 121}}, "/expiry/months"),
    ({"effective_at": "2020-01-01T00:00:00Z"}, "/effective_at"),
    ({"event_types": ["Purchase"]}, "/event_types/0"),
]


@pytest.mark.parametrize(("changes", "pointer"), SENSELESS)
async def test_invalid_definition_is_refused_with_its_pointer(
    service: Caller, database: Database, changes: dict[str, Any], pointer: str
) -> None:
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": FIXED, **changes}
    refused = problem(await service.post("/v1/campaigns", body), 422, "validation")
    assert refused["errors"][0]["pointer"].startswith(pointer)
    assert await database.raw["campaigns"].count_documents({}) == 0


@pytest.mark.parametrize(
    ("award", "amount", "expected"),
    [
        ({"type": "percent", "percent": "2.5"}, 13999, 349), ({"type": "percent", "percent": "2.5", "rounding": "ceil"}, 13999, 350),
        ({"type": "percent", "percent": "0.0001"}, 10**15, 10**9), ({"type": "percent", "percent": "100"}, 1, 1),
        ({"type": "formula", "expression": "event.amount / 50"}, 13999, 279),
        ({"type": "formula", "expression": "event.amount > 100 ? 7 : 3"}, 100, 3),
        ({"type": "formula", "expression": "double(event.amount) * 0.5", "rounding": "half_even"}, 5, 2),
        ({"type": "formula", "expression": "event.items.filter(i, i.category == 'tea').size() * 10"}, 100, 20),
    ],
)  # fmt: skip
async def test_percent_and_formula_are_rounded_once(
    service: Caller, factory: Factory, award: dict[str, Any], amount: int, expected: int
) -> None:
    await factory.campaign(award=award)
    items = [{"sku": f"s{n}", "quantity": 1, "category": "tea" if n else None} for n in range(3)]
    recorded = await record(service, factory.event(amount=amount, items=items))
    assert amounts(recorded) == [expected]
    assert await factory.balance(f"{recorded['member_id']}:PTS") == expected
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "expression",
    [
        "event.amount / 0", "event.amount * 9223372036854775807", "event.attributes.missing", "double(event.amount) / 0.0",
        "event.amount * 1000000000000", "event.currency",
    ],
)  # fmt: skip
async def test_formula_that_fails_pays_nothing_and_states_the_reason(service: Caller, factory: Factory, expression: str) -> None:
    await factory.campaign(award={"type": "formula", "expression": expression})
    other = await factory.campaign(award=FIXED)
    recorded = await record(service, factory.event())
    assert outcomes(recorded) == ["refused", "awarded"]
    assert "formula" in recorded["decisions"][0]["reasons"][0] or "evaluated" in recorded["decisions"][0]["reasons"][0]
    assert [award["campaign"] for award in recorded["awards"]] == [other]
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "case",
    [
        ("UTC", [{"days": ["mon"], "starts": "09:00", "ends": "17:00"}], "2026-11-23T09:00:00Z", True),
        ("UTC", [{"days": ["mon"], "starts": "09:00", "ends": "17:00"}], "2026-11-23T17:00:00Z", False),
        ("UTC", [{"days": ["mon"]}], "2026-11-23T23:59:59Z", True),
        ("UTC", [{"days": ["sun"], "starts": "22:00", "ends": "02:00"}], "2026-11-23T01:59:59Z", True),
        ("UTC", [{"days": ["sun"], "starts": "22:00", "ends": "02:00"}], "2026-11-22T01:00:00Z", False),
        # Berlin: clocks went back on 25 October 2026, so 10 o'clock was 8 and then 9 hours UTC.
        ("Europe/Berlin", [{"days": ["sat", "sun"], "starts": "10:00", "ends": "11:00"}], "2026-10-24T08:30:00Z", True),
        ("Europe/Berlin", [{"days": ["sat", "sun"], "starts": "10:00", "ends": "11:00"}], "2026-10-25T08:30:00Z", False),
        ("Europe/Berlin", [{"days": ["sat", "sun"], "starts": "10:00", "ends": "11:00"}], "2026-10-25T09:30:00Z", True),
        ("Europe/Berlin", [{"days": ["sun"], "starts": "02:00", "ends": "03:00"}], "2026-10-25T01:30:00Z", True),
    ],
)  # fmt: skip
async def test_weekly_hours_follow_the_clocks_of_the_time_zone(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, case: tuple[str, list[Any], str, bool]
) -> None:
    zone, schedule, occurred_at, matches = case
    await factory.campaign(schedule=schedule)
    assert service.token is not None
    there = settings.model_copy(update={"time_zone": zone})
    async with open_services(there, clock) as services, serve(services, there, clock) as anonymous:
        recorded = await record(anonymous.with_token(service.token), factory.event(occurred_at=occurred_at))
    assert outcomes(recorded) == ["awarded" if matches else "not_matched"]
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    ("policy", "paid", "said"),
    [("all", [100, 300, 200], ["awarded"] * 3), ("best", [300], ["refused", "awarded", "refused"]), ("first", [100], ["awarded", "refused", "refused"])],
)  # fmt: skip
async def test_stacking_group_pays_by_its_policy(
    service: Caller, factory: Factory, policy: str, paid: list[int], said: list[str]
) -> None:
    for priority, amount in ((9, 100), (5, 300), (1, 200)):
        stacking = {"group": "sale", "policy": policy, "priority": priority}
        await factory.campaign(award={"type": "fixed", "amount": amount}, stacking=stacking)
    beside = await factory.campaign(award={"type": "fixed", "amount": 1})
    recorded = await record(service, factory.event())
    assert amounts(recorded) == [*paid, 1]
    assert outcomes(recorded) == [*said, "awarded"]
    assert recorded["decisions"][-1]["campaign"] == beside
    await factory.assert_books_balance()


@pytest.mark.parametrize("policy", ["best", "first"])
async def test_exhausted_campaign_does_not_block_its_stacking_group(service: Caller, factory: Factory, policy: str) -> None:
    stacking = {"group": "sale", "policy": policy, "priority": 5}
    await factory.campaign(award={"type": "fixed", "amount": 300}, budget=300, stacking=stacking)
    await factory.campaign(award={"type": "fixed", "amount": 100}, stacking={**stacking, "priority": 1})
    assert [amounts(await record(service, factory.event())) for _ in range(2)] == [[300], [100]]
    await factory.assert_books_balance()


async def test_caps_hold_per_event_and_per_period(service: Caller, factory: Factory) -> None:
    caps = [
        {"scope": "event", "limit": 60},
        {"scope": "member", "period": "day", "limit": 100},
        {"scope": "member", "period": "month", "limit": 150},
    ]
    await factory.campaign(award=FIXED, caps=caps)  # fmt: skip
    member = {"external_id": "ada"}
    paid: list[list[int]] = []
    for day in ("01", "01", "01", "02", "03"):
        event = factory.event(member=member, occurred_at=f"2026-10-{day}T12:00:00Z")
        paid.append(amounts(recorded := await record(service, event)))
    assert paid == [[60], [40], [], [50], []]
    assert outcomes(recorded) == ["capped"]
    assert "0 of 150 are left for this member in that month" in recorded["decisions"][0]["reasons"]
    assert amounts(await record(service, factory.event(member=member, occurred_at="2026-11-01T00:00:00Z"))) == [60]
    assert amounts(await record(service, factory.event(member={"external_id": "bob"}))) == [60]
    await factory.assert_books_balance()


async def test_rest_of_a_budget_pays_nothing_without_partial_awards(service: Caller, factory: Factory) -> None:
    await factory.campaign(award=FIXED, budget=250, partial_award=False)
    recorded = [await record(service, factory.event()) for _ in range(3)]
    assert [amounts(each) for each in recorded] == [[100], [100], []]
    assert outcomes(recorded[2]) == ["capped"]
    assert recorded[2]["decisions"][0]["reasons"][1:] == ["50 of 250 are left in the budget", "a part is not awarded"]
    await factory.assert_books_balance()


async def test_a_budget_is_raised_and_lowered_by_a_new_version(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(award=FIXED, budget=150)
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": FIXED}
    paid = [amounts(await record(service, factory.event())) for _ in range(2)]
    assert (await service.put(f"/v1/campaigns/{campaign}", {**body, "budget": 220})).status_code == 200
    paid += [amounts(await record(service, factory.event())) for _ in range(2)]
    assert (await service.put(f"/v1/campaigns/{campaign}", {**body, "budget": 10})).status_code == 200
    paid.append(amounts(await record(service, factory.event())))
    assert paid == [[100], [50], [70], [], []]
    await factory.assert_books_balance()


async def test_two_processes_share_a_budget_and_a_cap(
    service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock
) -> None:
    await factory.campaign(
        award={"type": "fixed", "amount": 30}, budget=1000, caps=[{"scope": "member", "period": "ever", "limit": 100}]
    )
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [factory.event(member={"external_id": f"m{n % 8}"}) for n in range(80)]
        posts = [callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)]
        answers = [answer.json() for answer in await asyncio.gather(*posts)]
    by_member: dict[str, int] = {}
    for answer in answers:
        by_member[answer["member_id"]] = by_member.get(answer["member_id"], 0) + sum(amounts(answer))
    assert sorted(by_member.values()) == [100] * 8
    await factory.assert_books_balance()


async def test_pending_awards_become_available_and_dated_awards_expire(
    service: Caller, factory: Factory, clock: ManualClock, services: Services
) -> None:
    await factory.campaign(award=FIXED, pending={"type": "days", "days": 14}, expiry={"type": "after_days", "days": 30})
    recorded = await record(service, factory.event())
    [award] = recorded["awards"]
    assert award["status"] == "pending"
    wallet = f"/v1/wallets/{recorded['member_id']}:PTS"
    read = (await service.get(wallet)).json()
    assert (read["balance"], read["available"], read["pending"]) == (100, 0, 100)
    clock.advance(days=14)
    assert (await service.get(wallet)).json()["available"] == 0
    clock.advance(days=1)
    assert (await service.get(wallet)).json()["available"] == 100
    clock.advance(days=16)
    assert (await service.get(wallet)).json()["available"] == 0
    await factory.assert_books_balance()


async def test_campaign_version_applies_from_its_effective_time(service: Caller, factory: Factory, clock: ManualClock) -> None:
    campaign = await factory.campaign(award=FIXED)
    from_then = (await service.get(f"/v1/campaigns/{campaign}")).json()["changed_at"]
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 5}}
    later = from_then[:2] + "99" + from_then[4:]
    coming = (await service.put(f"/v1/campaigns/{campaign}", {**body, "effective_at": later})).json()
    assert (coming["version"], coming["coming_version"], coming["coming_at"]) == (1, 2, later)
    assert amounts(await record(service, factory.event())) == [100]
    now = (await service.put(f"/v1/campaigns/{campaign}", body)).json()
    assert (now["version"], now["coming_version"]) == (3, None)
    first = await record(service, factory.event())
    assert (amounts(first), first["decisions"][0]["version"]) == ([5], 3)
    tomorrow = (await service.get("/v1/campaigns")).json()["items"][0]["changed_at"]
    day = int(tomorrow[8:10])
    soon = f"{tomorrow[:8]}{day + 1:02d}{tomorrow[10:]}" if day < 28 else f"{int(tomorrow[:4]) + 1}{tomorrow[4:8]}01{tomorrow[10:]}"
    await service.put(f"/v1/campaigns/{campaign}", {**body, "award": FIXED, "effective_at": soon})
    clock.advance(days=370)
    second = await record(service, factory.event())
    assert (amounts(second), second["decisions"][0]["version"]) == ([100], 4)
    await factory.assert_books_balance()


async def test_an_ended_campaign_stays_ended(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(award=FIXED)
    assert (await service.post(f"/v1/campaigns/{campaign}/end")).json()["status"] == "ended"
    for path in ("activate", "pause"):
        problem(await service.post(f"/v1/campaigns/{campaign}/{path}"), 409, "invalid-state")
    body = {"name": "n", "asset": "PTS", "event_types": ["purchase"], "award": FIXED}
    problem(await service.put(f"/v1/campaigns/{campaign}", body), 409, "invalid-state")
    assert (await record(service, factory.event()))["decisions"] == []
    await factory.assert_books_balance()


async def test_events_without_an_amount_earn_fixed_awards(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign(event_types=["signup"], award=FIXED)
    event = {"id": "s1", "type": "signup", "member": {"external_id": "ada"}, "occurred_at": "2026-01-31T12:00:00Z"}
    recorded = await record(service, event)
    assert (amounts(recorded), recorded["amount"], recorded["currency"]) == ([100], 0, None)
    before = await count_rows(database)
    for changes, pointer in (({"type": "purchase"}, "/amount"), ({"type": "refund"}, "/amount"), ({"amount": 5}, "/currency")):
        refused = problem(await service.post("/v1/events", {**event, "id": "s2", **changes}, key=None), 422, "validation")
        assert refused["errors"][0]["pointer"] == pointer
    assert await count_rows(database) == before
    await factory.assert_books_balance()


async def test_conditions_read_the_purchase_history_of_the_member(service: Caller, factory: Factory) -> None:
    first = await factory.campaign(condition="member.first_purchase", award=FIXED)
    back = await factory.campaign(condition="member.days_since_last >= 60", award={"type": "fixed", "amount": 7})
    member = {"external_id": "ada"}
    paid = [
        [award["campaign"] for award in (await record(service, factory.event(member=member, occurred_at=f"2026-{day}T12:00:00Z")))["awards"]]
        for day in ("01-01", "02-01", "04-02", "04-03")
    ]  # fmt: skip
    assert paid == [[first], [], [back], []]
    await factory.assert_books_balance()


async def test_concurrent_first_purchases_earn_the_award_once(service: Caller, factory: Factory, other_services: Services, settings: Settings, clock: ManualClock) -> None:  # fmt: skip
    await factory.campaign(condition="member.first_purchase", award=FIXED)
    assert service.token is not None
    async with serve(other_services, settings, clock) as anonymous:
        callers = (service, anonymous.with_token(service.token))
        events = [factory.event(member={"external_id": "ada"}) for _ in range(50)]
        answers = await asyncio.gather(*(callers[n % 2].post("/v1/events", event, key=None) for n, event in enumerate(events)))
    assert sorted(sum(amounts(answer.json())) for answer in answers) == [0] * 49 + [100]
    assert (await other_services.database.raw["standings"].find_one({}))["purchases"] == 50
    await factory.assert_books_balance()
