"""Runs of segments: what they measure, when they are made, and how they are interrupted."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from zoneinfo import ZoneInfo

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS
from guerdon.clock import to_ms
from guerdon.config import Settings
from guerdon.segments import running
from guerdon.segments.measuring import Measured, MemberSpan
from guerdon.segments.models import RFM_GROUPS, SEGMENT_RUNS
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.segment_fixtures import buy, days_ago, fans, refresh, refunded, row_of, runs_of, segments_of


async def test_a_run_puts_every_member_into_exactly_one_group(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    members = await fans(service, factory, clock)
    nobody = await factory.member()
    assert await segments_of(service, members[-1]) == []
    run = await refresh(service, services)
    assert (run["kind"], run["currency"], run["members"], run["scored"]) == ("refresh", "GBP", 6, 5)
    assert run["bounds"]["purchases"] == [1, 2, 3, 4]
    assert run["bounds"]["spent"] == [1000, 4000, 9000, 16000]
    assert run["bounds"]["days_since_last"] == [1, 31, 61, 91]
    assert await segments_of(service, members[-1]) == ["champions"]
    assert await segments_of(service, members[0]) == ["dormant"]
    assert await segments_of(service, nobody) == ["prospects"]
    assert set(run["counts"]) == set(RFM_GROUPS)
    assert sum(run["counts"].values()) == 6
    page = (await service.get("/v1/segments/champions/members")).json()
    assert page["count"] == 1
    [champion] = page["items"]
    assert champion == {
        "member_id": members[-1],
        "segments": ["champions"],
        "recency": 5,
        "frequency": 5,
        "monetary": 5,
        "days_since_last": 1,
        "purchases": 5,
        "spent": 25000,
    }
    await factory.assert_books_balance()


async def test_the_lists_have_pages(service: Caller, services: Services, factory: Factory) -> None:
    members = sorted([await factory.member() for _ in range(5)])
    await refresh(service, services)
    found: list[str] = []
    cursor: str | None = None
    while True:
        page = (await service.get("/v1/segments/prospects/members", limit=2, **({"cursor": cursor} if cursor else {}))).json()
        found += [each["member_id"] for each in page["items"]]
        assert page["count"] == 5
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert found == members
    names: list[str] = []
    while True:
        page = (await service.get("/v1/segments", limit=4, **({"cursor": cursor} if cursor else {}))).json()
        names += [each["name"] for each in page["items"]]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    assert names == sorted(RFM_GROUPS)
    await refresh(service, services)
    first = (await service.get("/v1/segment-runs", limit=1)).json()
    second = (await service.get("/v1/segment-runs", limit=1, cursor=first["next_cursor"])).json()
    assert first["items"][0]["id"] > second["items"][0]["id"]
    problem(await service.get("/v1/segments/prospects/members", cursor="x"), 422, "validation")
    problem(await service.get("/v1/segment-runs", cursor="x"), 422, "validation")
    problem(await service.get("/v1/segment-runs/sgr_1"), 404, "not-found")


# --- what is measured -------------------------------------------------------------------------------------------------


async def test_refunds_and_voids_are_subtracted(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    member = await factory.member()
    partly, wholly, voided = [await buy(service, factory, clock, member, days=3 - turn, amount=1000) for turn in range(3)]
    await refunded(service, factory, clock, member=member, purchase=partly["id"], amount=300)
    await refunded(service, factory, clock, member=member, purchase=wholly["id"], amount=400)
    await refunded(service, factory, clock, member=member, purchase=wholly["id"], amount=600)
    assert (await service.post(f"/v1/events/{voided['id']}/void", {"reason": "twice"}, key=None)).status_code == 200
    early = factory.event(member={"id": member}, amount=500, occurred_at=days_ago(clock, 5))
    await refunded(service, factory, clock, member=member, purchase=early["id"], amount=200)
    assert (await service.post("/v1/events", early, key=None)).status_code == 201
    unlinked = factory.event(type="refund", member={"id": member}, amount=50, occurred_at=days_ago(clock, 1))
    assert (await service.post("/v1/events", unlinked, key=None)).status_code == 201
    await refunded(service, factory, clock, member=member, purchase="never-seen", amount=77)
    free = await buy(service, factory, clock, member, days=40, amount=0, items=[{"sku": "tea", "quantity": 1, "unit_price": 0}])
    await refresh(service, services)
    row = await row_of(service, member)
    # The wholly refunded purchase was the last one that was not voided; a free purchase counts.
    assert (row["days_since_last"], row["purchases"], row["spent"]) == (2, 3, 700 + 300 - 50)
    returned = factory.event(type="refund", refund_of=free["id"], member={"id": member}, amount=0, occurred_at=days_ago(clock, 0))
    assert (await service.post("/v1/events", returned, key=None)).status_code == 201
    await refresh(service, services)
    assert (await row_of(service, member))["purchases"] == 2
    await factory.assert_books_balance()


async def test_only_a_year_counts_and_old_customers_are_dormant(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    old, edge, mixed = [await factory.member() for _ in range(3)]
    await buy(service, factory, clock, old, days=380, amount=900_000)
    await buy(service, factory, clock, edge, days=365, amount=100)
    await buy(service, factory, clock, mixed, days=370, amount=5000)
    await buy(service, factory, clock, mixed, days=10, amount=200)
    run = await refresh(service, services)
    assert (run["scored"], run["bounds"]["spent"]) == (2, [100, 100, 200, 200])
    assert await segments_of(service, old) == ["dormant"]
    ancient = await row_of(service, old)
    assert (ancient["recency"], ancient["frequency"], ancient["monetary"]) == (1, 1, 1)
    assert (ancient["days_since_last"], ancient["purchases"], ancient["spent"]) == (380, 0, 0)
    assert (await row_of(service, edge))["purchases"] == 1
    assert (await row_of(service, mixed))["spent"] == 200


async def test_the_money_is_that_of_one_currency(
    service: Caller, services: Services, factory: Factory, clock: ManualClock, settings: Settings
) -> None:
    ada, bob = [await factory.member() for _ in range(2)]
    for member, currency, amount in ((ada, "EUR", 700), (ada, "EUR", 800), (bob, "EUR", 1), (bob, "GBP", 9000)):
        await buy(service, factory, clock, member, amount=amount, currency=currency)
    run = await refresh(service, services)
    assert (run["currency"], run["bounds"]["spent"]) == ("EUR", [1, 1, 1500, 1500])
    assert (await row_of(service, bob))["spent"] == 1
    async with open_services(settings.model_copy(update={"segments_currency": "GBP"}), clock) as others:
        run = await refresh(service, others)
    assert (run["currency"], run["bounds"]["spent"]) == ("GBP", [0, 0, 9000, 9000])
    assert (await row_of(service, bob))["spent"] == 9000
    assert (await row_of(service, ada))["purchases"] == 2


async def test_staff_and_erased_members_are_in_no_segment_and_disabled_ones_stay(
    service: Caller, services: Services, factory: Factory
) -> None:
    staff = await services.members.create_operator("staff@example.com", "correct horse battery", "support")
    erased, disabled = await factory.member(), await factory.member()
    assert (await service.post(f"/v1/members/{disabled}/disable", key=None)).status_code == 200
    run = await refresh(service, services)
    assert run["members"] == 2
    certificate = (await service.post(f"/v1/members/{erased}/erase", key=None)).json()
    assert certificate["destroyed"]["segments"] == 2, "in both slots"
    assert await services.database.raw[MEMBER_SEGMENTS].find_one({"owner": erased}) is None
    assert await segments_of(service, erased) == []
    assert await segments_of(service, disabled) == ["prospects"]
    assert await segments_of(service, staff.id) == []
    run = await refresh(service, services)
    assert (run["members"], run["counts"]["prospects"]) == (1, 1)


# --- nights -----------------------------------------------------------------------------------------------------------


async def test_each_night_of_the_programmes_zone_has_one_run(
    service: Caller, factory: Factory, clock: ManualClock, settings: Settings
) -> None:
    member = await factory.member()
    berlin = ZoneInfo("Europe/Berlin")
    evening = datetime(2027, 3, 27, 23, 59, tzinfo=berlin)  # The clocks go forward in the next night.
    clock.stop()
    clock.offset_ms += to_ms(evening.astimezone(UTC)) - clock.now_ms()
    async with open_services(settings.model_copy(update={"time_zone": "Europe/Berlin"}), clock) as services:
        for _ in range(2):
            await services.segment_runner.work()
        assert [run["day"] for run in await runs_of(service)] == ["2027-03-27"]
        await buy(service, factory, clock, member, days=0)
        clock.advance(seconds=60)
        for _ in range(2):
            await services.segment_runner.work()
        days = [(run["day"], run["at"], run["status"]) for run in await runs_of(service)]
        assert days == [
            ("2027-03-28", "2027-03-27T23:00:00.000Z", "done"),
            ("2027-03-27", "2027-03-26T23:00:00.000Z", "done"),
        ]
        assert (await row_of(service, member))["days_since_last"] == 1
        # The day with the change of the clocks has 23 hours; and after five days without a worker, only today is computed.
        clock.advance(days=6)
        await services.segment_runner.work()
        assert [run["day"] for run in await runs_of(service)] == ["2027-04-03", "2027-03-28", "2027-03-27"]
        assert (await row_of(service, member))["days_since_last"] == 7
        # A clock that was set back does not make another night.
        clock.advance(days=-3)
        assert await services.segment_runner.work() == 0
        assert len(await runs_of(service)) == 3


async def test_two_workers_add_one_nightly_run(service: Caller, services: Services, other_services: Services) -> None:
    await asyncio.gather(*(each.segment_runner._add_nightly() for each in (services, other_services) for _ in range(4)))
    assert len(await runs_of(service)) == 1


# --- runs that are interrupted ----------------------------------------------------------------------------------------


async def test_an_interrupted_run_is_never_visible_and_continues(
    service: Caller, services: Services, factory: Factory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PAGE_MEMBERS", 3)
    members = await fans(service, factory, clock, 5)
    members += [await factory.member() for _ in range(6)]
    assert (await service.put("/v1/segments/all", {"condition": "true"})).status_code == 200
    await refresh(service, services)
    before = {member: await segments_of(service, member) for member in members}
    for member in members[5:]:
        await buy(service, factory, clock, member, days=0.001, amount=90_000)
    run = (await service.post("/v1/segments/all/refresh", key=None)).json()
    seen: set[str] = set()
    after_ms, interrupted = 1.0, 0
    while run["status"] != "done":
        work = asyncio.create_task(services.segment_runner.work())
        await asyncio.sleep(after_ms / 1000)
        interrupted += not work.done()
        work.cancel()
        with suppress(asyncio.CancelledError):
            await work
        run = (await service.get(f"/v1/segment-runs/{run['id']}")).json()
        seen.add(run["status"])
        if run["status"] != "done":
            assert {member: await segments_of(service, member) for member in members} == before
            assert (await service.get("/v1/segments/all/members")).json()["count"] == len(members)
        await services.database.raw[SEGMENT_RUNS].update_one({"_id": run["id"], "open": True}, {"$set": {"tries": 0}})
        after_ms *= 1.3
    assert interrupted >= 3
    assert "running" in seen
    assert {tuple(await segments_of(service, member)) for member in members[5:]} == {("all", "new")}
    assert run["members"] == len(members) == sum(run["counts"][name] for name in RFM_GROUPS)


async def test_a_worker_that_has_lost_its_lease_saves_nothing(
    service: Caller, services: Services, other_services: Services, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(4):
        await factory.member()
    await refresh(service, services)
    await service.post("/v1/segments/new/refresh", key=None)
    monkeypatch.setattr(running, "PAGE_MEMBERS", 2)
    late = services.segment_runner
    measure = late._meter.measure
    resumed = asyncio.Event()

    async def slow(span: MemberSpan, since: int, at: int) -> Measured:
        measured = await measure(span, since, at)
        await resumed.wait()
        return measured

    monkeypatch.setattr(late._meter, "measure", slow)
    stuck = asyncio.create_task(late.work())
    await asyncio.sleep(0.1)
    assert await other_services.segment_runner.work() > 0
    done = (await runs_of(service))[0]
    assert done["status"] == "done"
    rows = [row async for row in services.database.raw[MEMBER_SEGMENTS].find({})]
    resumed.set()
    assert await stuck == 0
    assert [row async for row in services.database.raw[MEMBER_SEGMENTS].find({})] == rows
    assert (await runs_of(service))[0] == done


async def test_a_run_that_cannot_go_on_fails_and_the_next_one_is_made(
    service: Caller, services: Services, factory: Factory
) -> None:
    await factory.member()
    await services.segment_runner.work()
    stuck = (await service.post("/v1/segments/new/refresh", key=None)).json()
    await services.database.raw[SEGMENT_RUNS].update_one({"_id": stuck["id"]}, {"$set": {"tries": 5}})
    await services.segment_runner.work()
    failed = (await service.get(f"/v1/segment-runs/{stuck['id']}")).json()
    assert (failed["status"], failed["error"]) == ("failed", "the run was started several times without progress")
    assert (await refresh(service, services))["counts"]["prospects"] == 1


async def test_an_erasure_during_a_run_leaves_nothing(
    service: Caller, services: Services, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    members = [await factory.member() for _ in range(3)]
    await services.segment_runner.work()
    measure = services.segment_runner._meter.measure

    async def measure_and_erase(span: MemberSpan, since: int, at: int) -> Measured:
        measured = await measure(span, since, at)
        assert (await service.post(f"/v1/members/{members[0]}/erase", key=None)).status_code == 200
        return measured

    monkeypatch.setattr(services.segment_runner._meter, "measure", measure_and_erase)
    run = await refresh(service, services)
    assert run["counts"]["prospects"] == 2
    assert await services.database.raw[MEMBER_SEGMENTS].count_documents({"owner": members[0]}) == 0


async def test_a_thousand_members_buy_during_a_run(
    service: Caller, services: Services, factory: Factory, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is recorded during a run counts or not, member by member, and every member is in exactly one group."""
    monkeypatch.setattr(running, "PAGE_MEMBERS", 100)
    await factory.campaign(audience='"prospects" in member.segments || size(member.segments) == 1')
    events = [
        factory.event(member={"external_id": f"crowd-{number}"}, occurred_at=days_ago(clock, 0.01), amount=100 + number)
        for number in range(1000)
    ]
    for first in (0, 500):
        answer = await service.post("/v1/events/bulk", {"events": events[first : first + 500]}, key=None)
        assert answer.status_code == 200, answer.text
    again = [{**event, "id": f"again-{event['id']}"} for event in events]

    async def record() -> None:
        for first in range(0, 1000, 100):
            answer = await service.post("/v1/events/bulk", {"events": again[first : first + 100]}, key=None)
            assert {each["status"] for each in answer.json()["results"]} == {201}

    _, run = await asyncio.gather(record(), refresh(service, services))
    assert run["members"] == 1000 == sum(run["counts"][name] for name in RFM_GROUPS)
    final = await refresh(service, services)
    assert (final["scored"], final["bounds"]["purchases"]) == (1000, [2, 2, 2, 2])
    assert final["bounds"]["spent"] == [2 * (100 + number) for number in (199, 399, 599, 799)]
    recorded = services.database.raw[EVENTS].find({"_id": {"$regex": "^again"}}, {"inputs.segments": 1})
    sizes = {len(event["inputs"].get("segments", ())) async for event in recorded}
    assert sizes <= {0, 1}
    await factory.assert_books_balance()
