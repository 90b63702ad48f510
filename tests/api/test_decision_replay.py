"""Why: what an event was judged on is stored with it, and judging it again gives the same, byte for byte, or says what is missing."""

import asyncio
import json
from typing import Any

import pytest
from click.testing import Result
from typer.testing import CliRunner

from guerdon.campaigns.domain import EVENTS
from guerdon.campaigns.engine import ENGINE
from guerdon.campaigns.models import CAMPAIGN_VERSIONS
from guerdon.cli.main import app
from guerdon.config import Settings
from guerdon.database import Database
from guerdon.errors import NotFound
from guerdon.members.models import PERSON_KEYS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.invariants.retail import places

ADA = {"external_id": "ada"}


async def record(service: Caller, event: dict[str, Any]) -> dict[str, Any]:
    answer = await service.post("/v1/events", event, key=None)
    assert answer.status_code == 201, answer.text
    recorded: dict[str, Any] = answer.json()
    return recorded


async def replay(service: Caller, event_id: str) -> dict[str, Any]:
    answer = await service.post(f"/v1/events/{event_id}/replay", key=None)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def test_event_shows_the_inputs_of_its_evaluation(service: Caller, factory: Factory) -> None:
    campaign = await factory.campaign(budget=1000, caps=[{"scope": "member", "period": "month", "limit": 200}])
    first = await record(service, factory.event(member=ADA))
    second = await record(service, factory.event(member=ADA, occurred_at="2026-01-31T13:00:00Z"))
    owner, inputs = second["member_id"], second["inputs"]
    assert second["engine"] == ENGINE
    assert first["inputs"]["used"] == {}
    assert inputs["used"] == {f"{owner}:2026-01.{campaign}": 139, f"{campaign}:budget": 139}
    assert inputs["wallets"]["PTS"]["balance"] == 139
    assert (inputs["purchases"], inputs["last_purchase_at"]) == (1, "2026-01-31T12:00:00.000Z")
    assert (inputs["time_zone"], inputs["personal"], inputs["refunded_before"]) == ("UTC", False, None)
    assert second["awards"][0]["amount"] == 61
    await factory.assert_books_balance()


async def test_a_member_sees_the_reasons_but_not_the_budget(service: Caller, anonymous: Caller, factory: Factory) -> None:
    await factory.campaign(budget=1000, caps=[{"scope": "member", "period": "ever", "limit": 10**6}])
    person = {"email": "ada@example.com", "password": "correct horse battery"}
    member_id = (await anonymous.post("/v1/auth/register", person)).json()["id"]
    await record(service, factory.event(member={"id": member_id}))
    recorded = await record(service, factory.event(member={"id": member_id}))
    member = anonymous.with_token((await anonymous.post("/v1/auth/login", person)).json()["access_token"])
    seen = (await member.get(f"/v1/events/{recorded['id']}")).json()
    own, budget = sorted(recorded["inputs"]["used"].items(), reverse=True)
    assert (own[1], budget[0].endswith(":budget"), budget[1]) == (139, True, 139)
    assert seen == {**recorded, "inputs": {**recorded["inputs"], "used": dict([own])}}
    problem(await member.post(f"/v1/events/{recorded['id']}/replay", key=None), 403, "forbidden")


async def test_decisions_of_every_kind_are_reproduced_by_a_replay(service: Caller, factory: Factory, clock: ManualClock) -> None:
    """Capped, refused, in a group, late and early refunds, formulas, standings, profiles: and again after everything has changed."""
    campaigns = [
        await factory.campaign(stacking={"group": "g", "policy": "best", "priority": 3}, pending={"type": "days", "days": 3}),
        await factory.campaign(stacking={"group": "g"}, award={"type": "fixed", "amount": 150}, budget=400),
        await factory.campaign(caps=[{"scope": "member", "period": "day", "limit": 200}], clawback="up_to_balance"),
        await factory.campaign(condition="member.first_purchase", award={"type": "fixed", "amount": 7}),
        await factory.campaign(condition='member.external_id == "ada"', expiry={"type": "after_days", "days": 90}),
        await factory.campaign(condition="event.items[0].quantity > 1", clawback="none"),
        await factory.campaign(award={"type": "formula", "expression": "event.amount / 3 + member.days_since_last"}),
        await factory.campaign(event_types=["signup"]),
    ]
    bought = [await record(service, factory.event(member=ADA, amount=amount)) for amount in (13912, 1, 99_999, 13_912)]
    ids = [each["id"] for each in bought]
    for amount in (3000, 5000, 10**6):
        back = factory.event(type="refund", refund_of=ids[0], member=ADA, amount=amount)
        ids.append((await record(service, back))["id"])
    ids.append((await record(service, factory.event(type="refund", member=ADA, amount=500)))["id"])
    waiting = factory.event(type="refund", refund_of="comes-late", member=ADA, amount=4000)
    ids.append((await record(service, waiting))["id"])
    late = await record(service, factory.event(id="comes-late", member=ADA, amount=9000))
    assert late["note"] is not None
    ids += [late["id"], (await record(service, factory.event(type="signup", member=ADA, amount=0, currency=None)))["id"]]
    for number, campaign in enumerate(campaigns):
        body = {"name": "other", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 10**6}}
        assert (await service.put(f"/v1/campaigns/{campaign}", body)).status_code == 200
        await service.post(f"/v1/campaigns/{campaign}/{'pause' if number % 2 else 'end'}")
    clock.advance(days=40)
    outcomes = {name: (await replay(service, name))["outcome"] for name in ids}
    assert set(outcomes.values()) == {"equal"}, outcomes
    found = await replay(service, ids[0])
    assert (found["missing"], found["engine"], found["recorded_engine"]) == ([], ENGINE, ENGINE)
    assert found["judged"]["decisions"] == bought[0]["decisions"]
    assert [award["amount"] for award in found["judged"]["awards"]] == [award["amount"] for award in bought[0]["awards"]]
    await factory.assert_books_balance()


async def test_altered_decision_is_reported_as_different(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    recorded = await record(service, factory.event())
    await database.raw[EVENTS].update_one({"_id": recorded["id"]}, {"$set": {"decisions.0.amount": 140}})
    found = await replay(service, recorded["id"])
    assert (found["outcome"], found["missing"]) == ("different", [])
    assert (found["recorded"]["decisions"][0]["amount"], found["judged"]["decisions"][0]["amount"]) == (140, 139)


async def test_replay_names_missing_inputs(service: Caller, factory: Factory, database: Database) -> None:
    campaign = await factory.campaign(condition='member.external_id != ""')
    events = database.raw[EVENTS]
    plain, refunded, old, other = [await record(service, factory.event(member=ADA)) for _ in range(4)]
    back = await record(service, factory.event(type="refund", refund_of=refunded["id"], member=ADA, amount=100))
    assert plain["inputs"]["personal"]
    await events.delete_one({"_id": refunded["id"]})
    await events.update_one({"_id": old["id"]}, {"$unset": {"inputs": ""}})
    await events.update_one({"_id": other["id"]}, {"$set": {"inputs.engine": "guerdon-deciding/0", "decisions.0.amount": 1}})

    async def missing(event_id: str) -> list[str]:
        found = await replay(service, event_id)
        assert found["outcome"] == "missing"
        return list(found["missing"])

    assert await missing(back["id"]) == [f"the purchase that it refunds, {refunded['id']}"]
    assert await missing(old["id"]) == ["the inputs, which the version that recorded the event did not store"]
    assert await missing(other["id"]) == [f"the engine guerdon-deciding/0; {ENGINE} decides differently"]
    await database.raw[CAMPAIGN_VERSIONS].delete_one({"_id": f"{campaign}/1"})
    await database.raw[PERSON_KEYS].delete_one({"_id": plain["member_id"]})
    assert await missing(plain["id"]) == [
        f"version 1 of campaign {campaign}",
        "the profile fields that the campaigns read, which were erased with the member",
    ]
    problem(await service.post("/v1/events/nothing/replay", key=None), 404, "not-found")


async def test_replay_names_another_engine_with_an_equal_result(service: Caller, factory: Factory, database: Database) -> None:
    await factory.campaign()
    recorded = await record(service, factory.event())
    await database.raw[EVENTS].update_one({"_id": recorded["id"]}, {"$set": {"inputs.engine": "guerdon-deciding/0"}})
    found = await replay(service, recorded["id"])
    assert (found["outcome"], found["recorded_engine"], found["engine"]) == ("equal", "guerdon-deciding/0", ENGINE)


async def test_member_profile_is_stored_sealed_and_only_if_a_condition_reads_it(
    service: Caller, factory: Factory, database: Database
) -> None:
    """The signup campaign reads the member but is not asked about purchases; the other reads no profile."""
    await factory.campaign(event_types=["signup"], condition='member.attributes.shoes == "size-44"')
    await factory.campaign(condition="member.tier == ''")
    body = {"external_id": "ada", "email": None, "attributes": {"shoes": "size-44"}}
    assert (await service.post("/v1/members", body)).status_code == 201
    plain = await record(service, factory.event(member=ADA))
    read = await record(service, factory.event(type="signup", member=ADA))
    rows = {row["_id"]: row async for row in database.raw[EVENTS].find({})}
    assert "person" not in rows[plain["id"]]["inputs"]
    assert read["inputs"]["personal"]
    assert b"size-44" not in bytes(rows[read["id"]]["inputs"]["person"])
    assert {(await replay(service, each["id"]))["outcome"] for each in (plain, read)} == {"equal"}
    changed = {**rows[plain["id"]], "_id": "moved", "inputs": rows[read["id"]]["inputs"], "type": "signup"}
    await database.raw[EVENTS].insert_one(changed)
    problem(await service.post("/v1/events/moved/replay", key=None), 500, "internal-error")
    await database.raw[EVENTS].delete_one({"_id": "moved"})
    await factory.assert_books_balance()


@pytest.mark.parametrize("zone", ["Australia/Lord_Howe"])
async def test_time_zone_is_stored_as_an_input_of_the_decision(
    service: Caller, services: Services, factory: Factory, zone: str
) -> None:
    """The programme's time zone may be another one by now: hours, days and dates of then are those of then."""
    hours = [{"days": ["sun"], "starts": "00:00", "ends": "12:00"}]
    cap = {"scope": "member", "period": "day", "limit": 10**6}
    campaign = await factory.campaign(schedule=hours, caps=[cap], expiry={"type": "end_of_month"})
    services.ledger.calendar = services.ledger.calendar.__class__(zone)
    recorded = await record(service, factory.event(occurred_at="2026-01-31T13:30:00Z"))
    services.ledger.calendar = services.ledger.calendar.__class__("UTC")
    assert recorded["inputs"]["time_zone"] == zone
    assert recorded["decisions"][0]["outcome"] == "awarded", campaign
    assert (await replay(service, recorded["id"]))["outcome"] == "equal"


async def test_replay_decision_command_reports_the_outcome(
    service: Caller, factory: Factory, database: Database, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in places(settings).items():
        monkeypatch.setenv(name, value)

    async def run(*arguments: str) -> Result:
        return await asyncio.to_thread(CliRunner().invoke, app, ["replay-decision", *arguments])

    await factory.campaign()
    recorded = await record(service, factory.event())
    equal = await run(recorded["id"], "--json")
    assert (equal.exit_code, json.loads(equal.stdout)) == (0, await replay(service, recorded["id"]))
    await database.raw[EVENTS].update_one({"_id": recorded["id"]}, {"$set": {"note": "tampered"}})
    different = await run(recorded["id"])
    assert different.exit_code == 1
    assert different.stdout.startswith(f"{recorded['id']}: different\n")
    assert "\n  tampered\nevaluated now:\n" in different.stdout
    await database.raw[CAMPAIGN_VERSIONS].delete_many({})
    assert (await run(recorded["id"])).exit_code == 3
    assert isinstance((await run("nothing")).exception, NotFound)
