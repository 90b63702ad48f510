"""Tiers: earned in the commit, used by the next event, lost with time and with refunds, and explained."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import pytest

from guerdon.clock import rfc3339
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.ledger.models import Command
from guerdon.ledger.service import Ledger
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.serving import count_rows, serve
from tests.tier_fixtures import LADDER, SHOPPER, Till, earning, open_there, set_tiers, show


@pytest.fixture
def till(service: Caller, factory: Factory, clock: ManualClock) -> Till:
    return Till(service, factory, clock)


async def test_a_tier_is_earned_in_the_commit_and_used_by_the_very_next_event(
    till: Till, service: Caller, factory: Factory
) -> None:
    await set_tiers(service)
    await earning(factory, event_types=["purchase"], tier_multipliers={"silver": "2", "gold": "3"})
    only_gold = await factory.campaign(condition="member.tier == 'gold'", award={"type": "fixed", "amount": 7})
    first = await till.record(99)
    assert (await till.tier())["tier"] is None
    assert first["tier_change"] is None
    second = await till.record(1)
    assert second["tier_change"] == {"from": None, "to": "silver"}
    third = await till.record(200)
    assert [each["amount"] for each in third["awards"]] == [400]
    assert third["tier_change"] == {"from": "silver", "to": "gold"}
    fourth = await till.record(1)
    assert {each["campaign"]: each["amount"] for each in fourth["awards"]}[only_gold] == 7
    assert await till.steps() == [(None, "silver", "earned"), ("silver", "gold", "earned")]
    [gold, _] = await till.changes()
    assert (gold["event_id"], gold["qualifying_points"], gold["version"]) == (third["id"], 500, 1)
    now = await till.tier()
    assert (now["tier"], now["qualifying_points"], now["next"], now["since"]) == ("gold", 510, None, gold["at"])
    await factory.assert_books_balance()


async def test_event_stores_the_tier_inputs_of_its_evaluation(
    till: Till, factory: Factory, service: Caller, database: Database
) -> None:
    await set_tiers(service)
    await earning(factory)
    await till.record(150)
    second = await till.record(10)
    stored = await database.raw["events"].find_one({"_id": second["id"]})
    assert stored is not None
    inputs = stored["inputs"]
    month = rfc3339(till.clock.now_ms())[:7]
    assert (inputs["tier"], inputs["tier_versions"], inputs["qualifying"]) == ("silver", [1], {"PTS": {month: 150}})
    await factory.assert_books_balance()


async def test_preview_applies_the_tier_and_writes_nothing(
    till: Till, service: Caller, factory: Factory, database: Database
) -> None:
    await set_tiers(service, tiers=[{"code": "base", "name": "Base", "points": 0}, *LADDER["tiers"]])
    await earning(factory, tier_multipliers={"base": "2"})
    before = await count_rows(database)
    event = factory.event(member=SHOPPER, amount=60, occurred_at=rfc3339(till.clock.now_ms()))
    answer = await service.post("/v1/events/preview", event, key=None)
    assert answer.status_code == 200, answer.text
    assert [each["amount"] for each in answer.json()["awards"]] == [120], "everybody has the tier of no points"
    assert await count_rows(database) == before
    await till.record(50)
    answer = await service.post("/v1/events/preview", {**event, "id": "next"}, key=None)
    assert answer.json()["awards"][0]["amount"] == 60
    assert (await till.tier())["tier"] == "silver"
    assert await till.steps() == [(None, "silver", "earned")]
    await factory.assert_books_balance()


async def test_points_leave_the_rolling_window_at_the_end_of_their_month(
    till: Till, service: Caller, factory: Factory, services: Services
) -> None:
    show(till.clock, "2027-01-15T12:00:00Z")
    await set_tiers(service)
    await earning(factory, tier_multipliers={"gold": "2"})
    await till.record(450)
    show(till.clock, "2027-03-31T23:59:59Z")
    await till.record(60)
    now = await till.tier()
    assert (now["tier"], now["qualifying_points"]) == ("gold", 510)
    keep = {"missing": 440, "counts_from": "2027-03-31T23:59:59.000Z", "until": "2028-02-01T00:00:00.000Z"}
    assert now["keep"] == keep
    show(till.clock, "2028-01-31T23:59:59.999Z")
    assert (await till.tier())["tier"] == "gold"
    show(till.clock, "2028-02-01T00:00:00Z")
    now = await till.tier()
    assert (now["tier"], now["qualifying_points"], now["since"]) == (None, 60, None)
    [lapsed, *_] = await till.changes()
    assert (lapsed["reason"], lapsed["at"], lapsed["recorded_at"]) == ("lapsed", "2028-02-01T00:00:00.000Z", None)
    # An event judges by the tier of its own time: this one comes late, and was gold's.
    late = await till.record(10, occurred_at="2028-01-31T23:00:00Z")
    assert [each["amount"] for each in late["awards"]] == [20]
    assert await till.steps() == [(None, "silver", "earned"), ("silver", "gold", "earned"), ("gold", None, "lapsed")]
    assert (await till.changes())[0]["recorded_at"] == "2028-02-01T00:00:00.000Z"
    assert await services.tiers.review_due() == 0
    await factory.assert_books_balance()


async def test_calendar_year_ends_in_the_time_zone_and_grace_follows(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock
) -> None:
    show(clock, "2027-12-31T10:59:59Z")
    assert service.token is not None
    there = settings.model_copy(update={"time_zone": "Pacific/Auckland"})
    async with open_there(there, clock) as anonymous:
        caller = anonymous.with_token(service.token)
        till = Till(caller, Factory(caller, factory._services), clock)
        await set_tiers(caller, window={"type": "calendar_year"}, grace_days=10)
        await earning(till.factory)
        await till.record(100)
        now = await till.tier()
        assert now["tier"] == "silver"
        until = "2028-01-10T11:00:00.000Z"
        assert now["keep"] == {"missing": 100, "counts_from": "2027-12-31T11:00:00.000Z", "until": until}
        show(clock, "2027-12-31T11:00:00Z")
        now = await till.tier()
        assert (now["tier"], now["qualifying_points"]) == ("silver", 0)
        await till.record(99)
        show(clock, "2028-01-10T10:59:59.999Z")
        now = await till.tier()
        assert (now["tier"], now["keep"]["missing"]) == ("silver", 1)
        show(clock, until)
        assert (await till.tier())["tier"] is None
        await till.record(1)
        assert await till.steps() == [
            (None, "silver", "earned"),
            ("silver", None, "lapsed"),
            (None, "silver", "earned"),
        ]
    await factory.assert_books_balance()


async def test_points_earned_during_the_grace_keep_the_tier(
    till: Till, service: Caller, factory: Factory, services: Services
) -> None:
    show(till.clock, "2027-01-31T12:00:00Z")
    await set_tiers(service, window={"type": "rolling", "months": 1}, grace_months=1)
    await earning(factory)
    await till.record(100)
    assert (await till.tier())["keep"]["until"] == "2027-04-01T00:00:00.000Z"
    show(till.clock, "2027-03-20T12:00:00Z")
    assert (await till.tier())["keep"] == {
        "missing": 100,
        "counts_from": "2027-03-20T12:00:00.000Z",
        "until": "2027-04-01T00:00:00.000Z",
    }
    await till.record(100)
    show(till.clock, "2027-04-02T00:00:00Z")
    assert await services.tiers.review_due() == 1, "what was due has moved"
    assert (await till.tier())["tier"] == "silver"
    assert await till.steps() == [(None, "silver", "earned")]
    await factory.assert_books_balance()


def cut_off_after_one(ledger: Ledger) -> Callable[[Sequence[Command]], Awaitable[None]]:
    """The process is lost when the ledger has decided the first of the commands."""
    submit_all = ledger.submit_all

    async def lost(commands: Sequence[Command]) -> None:
        await submit_all(commands[:1])
        raise ConnectionError

    return lost


@pytest.mark.parametrize("booked", ["never", "once", "twice at once", "cut off"])
async def test_tier_review_records_only_changes_already_in_effect(
    till: Till, services: Services, other_services: Services, monkeypatch: pytest.MonkeyPatch, booked: str
) -> None:
    show(till.clock, "2027-01-10T00:00:00Z")
    await set_tiers(till.service, tiers=[*LADDER["tiers"]], grace_days=5)
    await earning(till.factory)
    await till.record(400)
    show(till.clock, "2027-02-10T00:00:00Z")
    await till.record(100)
    for moment, amount in (("2027-01-20T00:00:00Z", 400), ("2027-02-10T00:00:00Z", 100)):
        await till.record(amount, member={"external_id": "bob"}, occurred_at=moment)
    bob, till.member = till.member, (await till.record(1))["member_id"]
    assert bob != till.member
    for moment in ("2028-02-06T00:00:00Z", "2028-03-20T00:00:00Z"):
        show(till.clock, moment)
        if booked == "once":
            assert await services.tiers.review_due() == 2
        if booked == "twice at once":
            await asyncio.gather(services.tiers.review_due(), other_services.tiers.review_due())
        if booked == "cut off":
            with monkeypatch.context() as faults, pytest.raises(ConnectionError):
                faults.setattr(services.ledger, "submit_all", cut_off_after_one(services.ledger))
                await services.tiers.review_due()
            assert await services.tiers.review_due() == 1, "the other one"
    assert (await till.tier())["tier"] is None
    changes = await till.changes()
    assert [(each["from"], each["to"], each["reason"], each["at"]) for each in changes[:2]] == [
        ("silver", None, "lapsed", "2028-03-06T00:00:00.000Z"),
        ("gold", "silver", "lapsed", "2028-02-06T00:00:00.000Z"),
    ]
    assert [each["recorded_at"] is None for each in changes] == [booked == "never", booked == "never", False, False]
    assert await services.tiers.review_due() == (2 if booked == "never" else 0)
    assert [each["at"] for each in await till.changes()] == [each["at"] for each in changes]
    await till.factory.assert_books_balance()


async def test_events_at_once_in_two_processes_change_the_tier_once(
    till: Till, service: Caller, factory: Factory, settings: Settings, other_services: Services
) -> None:
    await set_tiers(service)
    await earning(factory, caps=[{"scope": "event", "limit": 20}], tier_multipliers={"gold": "2"})
    first = await till.record(20)
    assert service.token is not None
    async with serve(other_services, settings, till.clock) as elsewhere:
        callers = (service, elsewhere.with_token(service.token))
        events = [factory.event(member=SHOPPER, amount=20, occurred_at=first["occurred_at"]) for _ in range(40)]
        answers = await asyncio.gather(
            *(callers[number % 2].post("/v1/events", event, key=None) for number, event in enumerate(events))
        )
    assert {answer.status_code for answer in answers} == {201}
    told = [answer.json()["tier_change"] for answer in answers]
    assert sorted(step["to"] for step in told if step) == ["gold", "silver"]
    assert await till.steps() == [(None, "silver", "earned"), ("silver", "gold", "earned")]
    changes = await till.changes()
    assert [each["qualifying_points"] for each in changes] == [500, 100]
    now = await till.tier()
    assert (now["tier"], now["qualifying_points"]) == ("gold", 41 * 20)
    assert await factory.balance(f"{till.member}:PTS") == 41 * 20
    await factory.assert_books_balance()


@pytest.mark.parametrize("clawback", ["debt", "up_to_balance", "none"])
async def test_refund_removes_an_unjustified_tier_immediately(till: Till, service: Caller, factory: Factory, clawback: str) -> None:
    await set_tiers(service, grace_months=12)
    await earning(factory, event_types=["purchase"], clawback=clawback)
    kept = await till.record(100)
    returned = await till.record(500)
    answer = await service.post(f"/v1/wallets/{till.member}:PTS/debit", {"amount": 600})
    assert answer.status_code == 201
    part = await till.refund(returned, 100)
    assert part["tier_change"] is None
    rest = await till.refund(returned, 10**6)
    assert rest["tier_change"] == {"from": "gold", "to": "silver"}
    assert (await till.tier())["qualifying_points"] == 100
    assert (await till.refund(kept, 1))["tier_change"] == {"from": "silver", "to": None}
    assert await till.steps() == [
        (None, "silver", "earned"),
        ("silver", "gold", "earned"),
        ("gold", "silver", "refunded"),
        ("silver", None, "refunded"),
    ]
    assert (await till.tier())["keep"] is None
    await factory.assert_books_balance()


async def test_early_and_unlinked_refunds_reduce_qualifying_points(till: Till, service: Caller, factory: Factory) -> None:
    await set_tiers(service)
    await earning(factory)
    await till.record(450, type="refund", refund_of="order-late")
    late = await till.record(500, id="order-late")
    assert (late["tier_change"], (await till.tier())["qualifying_points"]) == (None, 50)
    assert (await till.record(100))["tier_change"] == {"from": None, "to": "silver"}
    assert (await till.record(60, type="refund"))["tier_change"] == {"from": "silver", "to": None}
    assert (await till.tier())["qualifying_points"] == 90
    await factory.assert_books_balance()


async def test_refund_reduces_points_in_the_month_of_its_purchase(till: Till, service: Caller, factory: Factory) -> None:
    show(till.clock, "2027-01-20T00:00:00Z")
    await set_tiers(service, window={"type": "rolling", "months": 2})
    await earning(factory)
    bought = await till.record(300)
    show(till.clock, "2027-02-20T00:00:00Z")
    await till.record(500)
    assert (await till.tier())["tier"] == "gold"
    assert (await till.refund(bought, 300))["tier_change"] is None
    show(till.clock, "2027-04-30T23:59:59Z")
    assert (await till.tier())["tier"] == "gold"
    show(till.clock, "2027-05-01T00:00:00Z")
    assert (await till.tier())["tier"] is None
    await factory.assert_books_balance()


async def test_tier_history_is_paged_and_visible_to_its_member_only(
    till: Till, service: Caller, factory: Factory, services: Services, anonymous: Caller
) -> None:
    show(till.clock, "2027-01-31T12:00:00Z")
    await set_tiers(service, window={"type": "rolling", "months": 1})
    await earning(factory)
    await till.record(100)
    await till.record(400)
    show(till.clock, "2028-01-31T12:00:00Z")
    path = f"/v1/members/{till.member}/tier/changes"
    seen: list[str] = []
    cursor: dict[str, str] = {}
    while True:
        page = (await service.get(path, limit=1, **cursor)).json()
        seen += [each["to"] for each in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = {"cursor": page["next_cursor"]}
        await services.tiers.review_due()  # Between two pages what was waiting is written down.
    assert seen == [None, "gold", "silver"]
    other = await factory.member()
    problem(await service.get(f"/v1/members/{other}/tier/changes", **cursor), 422, "validation")
    person = {"email": "ada@example.com", "password": "correct horse battery"}
    await anonymous.post("/v1/auth/register", person)
    token = (await anonymous.post("/v1/auth/login", person)).json()["access_token"]
    member = anonymous.with_token(token)
    problem(await member.get(path), 404, "not-found")
    assert (await member.get("/v1/me/tier")).json()["tier"] is None
    assert (await member.get("/v1/me/tier/changes")).json() == {"items": [], "next_cursor": None}
    await factory.assert_books_balance()


@pytest.mark.parametrize(
    "moment",
    [
        ("America/New_York", "0001-01-01T00:00:00Z"),
        ("Pacific/Auckland", "1969-12-31T23:59:59Z"),
        ("Pacific/Auckland", "9999-12-31T23:59:59Z"),
    ],
)
async def test_events_at_the_ends_of_the_calendar_do_not_break_tiers(
    service: Caller, factory: Factory, settings: Settings, clock: ManualClock, moment: tuple[str, str]
) -> None:
    assert service.token is not None
    zone, occurred_at = moment
    there = settings.model_copy(update={"time_zone": zone})
    async with open_services(there, clock) as services, serve(services, there, clock) as anonymous:
        caller = anonymous.with_token(service.token)
        till = Till(caller, Factory(caller, services), clock)
        await set_tiers(caller, grace_months=12)
        await earning(till.factory)
        recorded = await till.factory.record_at_any_time(member=SHOPPER, amount=10**6, occurred_at=occurred_at)
        till.member = recorded["member_id"]
        now = await till.tier()
        assert (now["tier"], now["qualifying_points"]) == (None, 0)
        assert (await till.record(500))["tier_change"] == {"from": None, "to": "gold"}
    await factory.assert_books_balance()
