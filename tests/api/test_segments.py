"""Segments over HTTP: runs, groups, segments of the programme's own, and what reads them."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS
from guerdon.clock import rfc3339, to_ms
from guerdon.config import Settings
from guerdon.segments import running
from guerdon.segments.measuring import Measured, MemberSpan
from guerdon.segments.models import RFM_GROUPS, SEGMENT_RUNS, SEGMENTS_MAX
from guerdon.wiring.services import Services, open_services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.tier_fixtures import set_tiers

IN_CHAMPIONS = '"champions" in member.segments'


def days_ago(clock: ManualClock, days: float) -> str:
    return rfc3339(clock.now_ms() - int(days * 86_400_000))


async def buy(service: Caller, factory: Factory, clock: ManualClock, member: str, **changes: Any) -> dict[str, Any]:
    days = changes.pop("days", 1)
    event = factory.event(member={"id": member}, occurred_at=days_ago(clock, days), **changes)
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def refresh(service: Caller, services: Services, name: str = "champions") -> dict[str, Any]:
    """Request a run and do the worker's part; return the run."""
    answer = await service.post(f"/v1/segments/{name}/refresh", key=None)
    assert answer.status_code == 202, answer.text
    while await services.segment_runner.work():
        pass
    run = (await service.get(answer.headers["location"])).json()
    assert run["status"] == "done", run
    return dict(run)


async def segments_of(service: Caller, member: str) -> list[str]:
    answer = await service.get(f"/v1/members/{member}")
    assert answer.status_code == 200, answer.text
    return list(answer.json()["segments"])


async def fans(service: Caller, factory: Factory, clock: ManualClock, number: int = 5) -> list[str]:
    """Members of whom each has bought more, more often and later than the one before; the last one is a champion."""
    members = [await factory.member() for _ in range(number)]
    for rank, member in enumerate(members, start=1):
        for turn in range(rank):
            await buy(service, factory, clock, member, days=(number - rank) * 30 + 1 + turn, amount=1000 * rank)
    return members


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


async def row_of(service: Caller, member: str) -> dict[str, Any]:
    """What the last run has computed of a member."""
    [group] = [name for name in await segments_of(service, member) if name in RFM_GROUPS]
    page = (await service.get(f"/v1/segments/{group}/members", limit=100)).json()
    return next(each for each in page["items"] if each["member_id"] == member)


async def refunded(service: Caller, factory: Factory, clock: ManualClock, member: str, purchase: str, amount: int) -> None:
    refund = factory.event(type="refund", refund_of=purchase, member={"id": member}, amount=amount, occurred_at=days_ago(clock, 0))
    assert (await service.post("/v1/events", refund, key=None)).status_code == 201


async def test_refunds_and_voids_are_subtracted(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    member = await factory.member()
    partly, wholly, voided = [await buy(service, factory, clock, member, days=3 - turn, amount=1000) for turn in range(3)]
    await refunded(service, factory, clock, member, partly["id"], 300)
    await refunded(service, factory, clock, member, wholly["id"], 400)
    await refunded(service, factory, clock, member, wholly["id"], 600)
    assert (await service.post(f"/v1/events/{voided['id']}/void", {"reason": "twice"}, key=None)).status_code == 200
    early = factory.event(member={"id": member}, amount=500, occurred_at=days_ago(clock, 5))
    await refunded(service, factory, clock, member, early["id"], 200)
    assert (await service.post("/v1/events", early, key=None)).status_code == 201
    unlinked = factory.event(type="refund", member={"id": member}, amount=50, occurred_at=days_ago(clock, 1))
    assert (await service.post("/v1/events", unlinked, key=None)).status_code == 201
    await refunded(service, factory, clock, member, "never-seen", 77)
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


async def runs_of(service: Caller) -> list[dict[str, Any]]:
    return list((await service.get("/v1/segment-runs", limit=100)).json()["items"])


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
    service: Caller, services: Services, other_services: Services, factory: Factory, clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
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


# --- segments of the programme's own ----------------------------------------------------------------------------------


async def put(service: Caller, name: str, condition: str, **more: Any) -> dict[str, Any]:
    answer = await service.put(f"/v1/segments/{name}", {"condition": condition, **more})
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def test_a_segment_has_versions_and_its_members_change_with_a_run(
    service: Caller, services: Services, factory: Factory
) -> None:
    british, french = [(await factory.member()) for _ in range(2)]
    for country in ("GB", "FR"):
        answer = await service.post("/v1/members", {"external_id": f"from-{country}", "attributes": {"country": country}}, key=None)
        british, french = (answer.json()["id"], french) if country == "GB" else (british, answer.json()["id"])
    first = await put(service, "home", "member.attributes.country == 'GB'", description="At home")
    assert (first["version"], first["members"], first["evaluated_at"], first["kind"]) == (1, None, None, "own")
    assert (await put(service, "home", "member.attributes.country == 'GB'", description="At home"))["version"] == 1
    run = await refresh(service, services, "home")
    assert run["versions"] == {"home": 1}
    home = (await service.get("/v1/segments/home")).json()
    # Two members have no country.
    assert (home["members"], home["unevaluated"], home["run_version"], home["run_id"]) == (1, 2, 1, run["id"])
    assert await segments_of(service, british) == ["home", "prospects"]
    second = await put(service, "home", "member.attributes.country == 'FR'")
    assert (second["version"], second["run_version"], second["members"]) == (2, 1, 1)
    await refresh(service, services, "home")
    assert await segments_of(service, french) == ["home", "prospects"]
    assert await segments_of(service, british) == ["prospects"]
    [listed] = [each for each in (await service.get("/v1/segments")).json()["items"] if each["kind"] == "own"]
    assert (listed["name"], listed["version"], listed["run_version"]) == ("home", 2, 2)

    assert (await service.delete("/v1/segments/home")).status_code == 204
    problem(await service.get("/v1/segments/home"), 404, "not-found")
    problem(await service.get("/v1/segments/home/members"), 404, "not-found")
    problem(await service.delete("/v1/segments/home"), 404, "not-found")
    problem(await service.post("/v1/segments/home/refresh"), 404, "not-found")
    assert (await runs_of(service))[0]["status"] == "waiting"
    await services.segment_runner.work()
    assert await segments_of(service, french) == ["prospects"]
    assert (await put(service, "home", "true"))["version"] == 3
    audited = (await service.get("/v1/audit", limit=100)).json()["items"]
    actions = [each["action"] for each in audited if each["phase"] == "answered"]
    assert {"setSegment", "deleteSegment", "refreshSegment"} <= set(actions)
    await factory.assert_books_balance()


async def test_conditions_read_the_state_of_the_member_and_the_scores(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    await set_tiers(service)
    await factory.campaign(award={"type": "fixed", "amount": 150})
    members = await fans(service, factory, clock)
    conditions = {
        "rich": "member.rfm.spent >= 16000 && member.rfm.monetary >= 4",
        "best": '"champions" in member.segments',
        "gold": 'member.tier == "gold"',
        "once": "member.purchases == 1 && !member.first_purchase",
        "away": "member.days_since_last > 60 && member.rfm.days > 60",
        "late": "now < timestamp('2020-01-01T00:00:00Z')",
        "group": 'member.rfm.group == "champions" && member.rfm.recency == 5',
        "wild": "member.rfm.recency / (member.rfm.purchases - 5) > 100",
    }
    for name, condition in conditions.items():
        assert (await put(service, name, condition))["warnings"] == [], name
    run = await refresh(service, services, "rich")
    assert await segments_of(service, members[4]) == ["best", "champions", "gold", "group", "rich"]
    assert await segments_of(service, members[0]) == ["away", "dormant", "once"]
    assert run["unevaluated"] == {"wild": 1}
    assert (await service.get("/v1/segments/wild")).json()["unevaluated"] == 1


@pytest.mark.parametrize(
    ("condition", "words"),
    [
        ("event.amount > 1", "event"),
        ("member.age > 1", "member.age does not exist"),
        ("member.rfm.score > 1", "member.rfm.score does not exist"),
        ("member.tier ==", "not a CEL expression"),
        ("1 + 1", "must be of type BOOL"),
        ('member.tier.matches("g.*")', "cannot match patterns"),
        ("[1,2].all(a, [1,2].all(b, [1,2].all(c, [1,2].all(d, true))))", "at most 3 times"),
    ],
)
async def test_a_condition_is_checked_when_it_is_saved(service: Caller, condition: str, words: str) -> None:
    answer = await service.put("/v1/segments/odd", {"condition": condition})
    [fault] = problem(answer, 422, "validation")["errors"]
    assert fault["pointer"] == "/condition"
    assert words in fault["detail"]
    problem(await service.get("/v1/segments/odd"), 404, "not-found")


async def test_names_are_checked(service: Caller) -> None:
    for name in ("Champions", "1st", "a" * 41, "a.b", "%C3%A9"):
        answer = await service.put(f"/v1/segments/{name}", {"condition": "true"})
        assert [each["detail"][:6] for each in problem(answer, 422, "validation")["errors"]] == ["a name"], name
    answer = await service.put("/v1/segments/champions", {"condition": "true"})
    assert "computed by Guerdon" in problem(answer, 422, "validation")["errors"][0]["detail"]
    problem(await service.delete("/v1/segments/champions"), 409, "invalid-state")
    for path in ("/v1/segments/none", "/v1/segments/none/members"):
        problem(await service.get(path), 404, "not-found")


async def test_there_is_room_for_fifty_segments(service: Caller) -> None:
    for number in range(SEGMENTS_MAX):
        await put(service, f"s{number}", "true")
    problem(await service.put("/v1/segments/more", {"condition": "true"}), 409, "invalid-state")
    assert (await put(service, "s7", "false"))["version"] == 2
    assert (await service.delete("/v1/segments/s7")).status_code == 204
    await put(service, "more", "true")
    problem(await service.put("/v1/segments/s7", {"condition": "true"}), 409, "invalid-state")


async def test_concurrent_changes_make_one_version_each(service: Caller, services: Services, factory: Factory) -> None:
    answers = await asyncio.gather(
        *(service.put("/v1/segments/busy", {"condition": f"member.purchases > {number}"}) for number in range(8))
    )
    assert {answer.status_code for answer in answers} <= {200, 409}
    versions = sorted(answer.json()["version"] for answer in answers if answer.status_code == 200)
    assert versions == list(range(1, len(versions) + 1))
    await factory.assert_books_balance()


async def test_several_requests_share_the_run_that_waits(service: Caller, services: Services) -> None:
    ids = [(await service.post(f"/v1/segments/{name}/refresh", key=None)).json()["id"] for name in ("new", "loyal", "new")]
    assert len(set(ids)) == 1
    await services.segment_runner.work()
    assert (await service.post("/v1/segments/new/refresh", key=None)).json()["id"] != ids[0]


async def test_unknown_segments_are_warned_about(service: Caller, factory: Factory) -> None:
    await put(service, "home", "true")
    body = {
        "name": "w",
        "asset": "PTS",
        "event_types": ["purchase"],
        "award": {"type": "fixed", "amount": 1},
        "audience": '"champion" in member.segments || "home" in member.segments || !("loyal" in member.segments)',
    }
    warned = {"pointer": "/audience", "detail": "no segment has the name champion; did you mean champions?"}
    assert (await service.post("/v1/campaigns", body, key=None)).json()["warnings"] == [warned]
    value = {"type": "fixed", "amount": 500, "currency": "GBP"}
    offer = {"name": "o", "kind": "discount", "value": value, "eligibility": "'nobody-has-it' in member.segments"}
    warned = {"pointer": "/eligibility", "detail": "no segment has the name nobody-has-it"}
    assert (await service.post("/v1/offers", offer, key=None)).json()["warnings"] == [warned]
    # The condition of a segment sees the groups only.
    own = await put(service, "nested", '"home" in member.segments')
    assert [each["pointer"] for each in own["warnings"]] == ["/condition"]


async def test_scopes_divide_reading_and_changing(anonymous: Caller, services: Services, service: Caller) -> None:
    reader = anonymous.with_token(await services.access.create_key("reader", ["segments:read"]))
    assert (await reader.get("/v1/segments")).status_code == 200
    assert (await reader.get("/v1/segments/new/members")).status_code == 200
    problem(await reader.put("/v1/segments/home", {"condition": "true"}), 403, "forbidden")
    problem(await reader.post("/v1/segments/new/refresh"), 403, "forbidden")
    problem(await reader.delete("/v1/segments/new"), 403, "forbidden")
    problem(await anonymous.get("/v1/segments"), 401, "unauthenticated")


# --- what reads segments ----------------------------------------------------------------------------------------------


async def test_a_campaign_pays_the_members_of_a_segment_and_replays_after_they_left(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    members = await fans(service, factory, clock)
    await factory.campaign(award={"type": "fixed", "amount": 50}, condition=IN_CHAMPIONS)
    before = await buy(service, factory, clock, members[4])
    assert (before["awards"], before["inputs"]["segments"]) == ([], [])
    await refresh(service, services)
    event = factory.event(member={"id": members[4]}, occurred_at=days_ago(clock, 0))
    preview = (await service.post("/v1/events/preview", event, key=None)).json()
    [tried] = (await service.post("/v1/events/bulk?dry_run=true", {"events": [event]}, key=None)).json()["results"]
    paid = (await service.post("/v1/events", event, key=None)).json()
    assert [each["amount"] for each in paid["awards"]] == [50]
    assert preview["decisions"] == paid["decisions"] == tried["event"]["decisions"]
    assert preview["inputs"]["segments"] == paid["inputs"]["segments"] == ["champions"]
    unpaid = await buy(service, factory, clock, members[0])
    assert (unpaid["awards"], unpaid["inputs"]["segments"]) == ([], ["dormant"])
    stored = {event_id: await services.database.raw[EVENTS].find_one({"_id": event_id}) for event_id in (before["id"], paid["id"])}
    assert "segments" not in stored[before["id"]]["inputs"]
    assert stored[paid["id"]]["inputs"]["segments"] == ["champions"]
    replays = {each: (await service.post(f"/v1/events/{each}/replay", key=None)).json() for each in stored}
    # The champion is overtaken, and everybody else becomes one.
    for member in members[:4]:
        for _ in range(12):
            await buy(service, factory, clock, member, days=0.001, amount=900_000)
    await refresh(service, services)
    assert await segments_of(service, members[4]) != ["champions"]
    for event_id, replay in replays.items():
        again = (await service.post(f"/v1/events/{event_id}/replay", key=None)).json()
        assert again["outcome"] == "equal"
        assert again == replay
        assert await services.database.raw[EVENTS].find_one({"_id": event_id}) == stored[event_id]
    await factory.assert_books_balance()


async def test_an_offer_for_a_segment(
    service: Caller, anonymous: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    members = await fans(service, factory, clock)
    credentials = {"email": "ada@example.com", "password": "correct horse battery"}
    ada = (await anonymous.post("/v1/auth/register", credentials, key=None)).json()["id"]
    token = (await anonymous.post("/v1/auth/login", credentials, key=None)).json()["access_token"]
    for _ in range(6):
        await buy(service, factory, clock, ada, amount=50_000)
    offer = await factory.offer(eligibility=IN_CHAMPIONS)

    async def eligible() -> bool:
        [item] = (await anonymous.with_token(token).get("/v1/me/offers")).json()["items"]
        return bool(item["eligible"])

    assert not await eligible()
    problem(await service.post(f"/v1/offers/{offer}/redeem", {"member_id": ada}), 409, "not-eligible")
    await refresh(service, services)
    assert await eligible()
    assert (await anonymous.with_token(token).get("/v1/me")).json()["segments"] == ["champions"]
    await factory.voucher(offer, ada)
    problem(await service.post(f"/v1/offers/{offer}/redeem", {"member_id": members[0]}), 409, "not-eligible")
    await factory.assert_books_balance()


async def test_a_simulation_by_segment(service: Caller, services: Services, factory: Factory, clock: ManualClock) -> None:
    real = await factory.campaign(award={"type": "fixed", "amount": 10}, event_types=["purchase"])
    members = await fans(service, factory, clock)
    assert (await service.put("/v1/segments/top", {"condition": "member.rfm.monetary >= 4"})).status_code == 200
    await refresh(service, services)
    bought = [await buy(service, factory, clock, member, days=0.01) for member in members]
    await refunded(service, factory, clock, members[4], bought[4]["id"], bought[4]["amount"])
    draft = await factory.campaign(active=False, award={"type": "fixed", "amount": 7}, audience='"top" in member.segments')
    reports = []
    for campaign in (draft, real):
        answer = await service.post(f"/v1/campaigns/{campaign}/simulate", {}, key=None)
        while await services.simulator.work(1):
            pass
        reports.append((await service.get(f"/v1/simulations/{answer.json()['id']}")).json()["report"])
    rows = {row["name"]: row for row in reports[0]["by_segment"]}
    groups = {name: row["events"] for name, row in rows.items()}
    expected: dict[str, int] = {"none": 15}
    for number, member in enumerate(members):
        for name in await segments_of(service, member):
            expected[name] = expected.get(name, 0) + (2 if number == 4 else 1)
    assert groups == expected
    simulated = {name: row["campaign"]["simulated"] for name, row in rows.items()}
    assert (simulated["top"]["awarded"], simulated["top"]["taken_back"], simulated["none"]["awarded"]) == (14, 7, 0)
    assert reports[0]["total"]["campaign"]["simulated"]["awarded"] == 14
    zero = {"awards": 0, "members": 0, "awarded": 0, "taken_back": 0, "points": 0, "cost": 0}
    assert [row["name"] for row in reports[1]["by_segment"] if row["campaign"]["difference"] != zero] == []
    assert {row["name"]: row["campaign"]["real"]["awards"] for row in reports[1]["by_segment"]}["none"] == 15
    await factory.assert_books_balance()
