"""Segments over HTTP: those of the programme's own, and what reads segments."""

import asyncio
from typing import Any

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.segments.models import SEGMENTS_MAX
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.segment_fixtures import IN_CHAMPIONS, buy, days_ago, fans, refresh, refunded, runs_of, segments_of
from tests.tier_fixtures import set_tiers

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
    await refunded(service, factory, clock, member=members[4], purchase=bought[4]["id"], amount=bought[4]["amount"])
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
