"""What-if: what was active comes out as it did, what was not as it then does, and a worker may die on the way."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from guerdon.campaigns.domain import EVENTS, RecordedEvent
from guerdon.cli.main import app as commands
from guerdon.config import Settings
from guerdon.simulations import running
from guerdon.simulations.models import OPEN_MAX, SIMULATED_MEMBERS, SIMULATED_PURCHASES, SIMULATIONS
from guerdon.wiring.services import Services
from tests.clients import Caller, ManualClock, problem
from tests.factories import Factory
from tests.invariants.retail import places

TIERS = {"asset": "PTS", "window": {"type": "rolling", "months": 12}, "tiers": [{"code": "gold", "name": "Gold", "points": 250}]}
GOAL = {
    "event_types": ["purchase"],
    "award": {"type": "fixed", "amount": 33},
    "achievement": {"events": 2, "within": {"type": "days", "days": 5}},
}
ZERO = {"awards": 0, "members": 0, "awarded": 0, "taken_back": 0, "points": 0, "cost": 0}


async def record(service: Caller, *events: dict[str, Any]) -> None:
    for event in events:
        answer = await service.post("/v1/events", event, key=None)
        assert answer.status_code == 201, answer.text


def shopping(factory: Factory, who: str) -> list[dict[str, Any]]:
    """A month of one member: purchases, a refund of a part and one that comes early, one of nothing in particular, and a visit."""
    buys = [
        factory.event(
            id=f"{who}-{day}", member={"external_id": who}, occurred_at=f"2026-01-{day:02d}T12:00:00Z", amount=10_000 + day
        )
        for day in range(1, 9)
    ]

    def refund(name: str, day: int, amount: int, **more: Any) -> dict[str, Any]:
        at = f"2026-01-{day:02d}T13:00:00Z"
        return factory.event(id=f"{who}-{name}", type="refund", member={"external_id": who}, occurred_at=at, amount=amount, **more)

    part, rest = refund("part", 3, 2500, refund_of=f"{who}-2"), refund("rest", 6, 7400, refund_of=f"{who}-2")
    early, plain = refund("early", 5, 3000, refund_of=f"{who}-5"), refund("plain", 7, 1500)
    return [*buys[:3], part, buys[3], early, buys[4], buys[5], rest, buys[6], plain, buys[7]]


async def ask(service: Caller, campaign_id: str, **body: Any) -> str:
    answer = await service.post(f"/v1/campaigns/{campaign_id}/simulate", body, key=None)
    assert answer.status_code == 202, answer.text
    assert (answer.json()["status"], answer.json()["events_total"], answer.json()["report"]) == ("waiting", None, None)
    return str(answer.json()["id"])


async def report_of(service: Caller, simulation: str) -> dict[str, Any]:
    found = (await service.get(f"/v1/simulations/{simulation}")).json()
    assert (found["status"], found["error"]) == ("done", None), found
    assert found["events_done"] == found["events_total"] == found["report"]["events"]
    report: dict[str, Any] = found["report"]
    return report


async def simulate(service: Caller, services: Services, campaign_id: str, **body: Any) -> dict[str, Any]:
    simulation = await ask(service, campaign_id, **body)
    assert await services.simulator.work(1) > 0
    for scraps in (SIMULATED_MEMBERS, SIMULATED_PURCHASES):
        assert await services.database.raw[scraps].count_documents({}) == 0
    return await report_of(service, simulation)


async def really(services: Services, campaign: str, who: str) -> tuple[int, int]:
    """What the campaign has awarded to members of this name, and what it has taken back."""
    events = await services.database.collection(EVENTS, RecordedEvent).find({"_id": {"$gte": who, "$lt": f"{who}~"}}, limit=1000)
    amounts = [award.amount for event in events for award in event.awards if award.campaign == campaign]
    return sum(each for each in amounts if each > 0), -sum(each for each in amounts if each < 0)


def paid(row: dict[str, Any], side: str = "simulated") -> tuple[int, int]:
    return row["campaign"][side]["awarded"], row["campaign"][side]["taken_back"]


async def test_simulation_of_an_active_campaign_reproduces_its_awards(
    service: Caller, services: Services, factory: Factory, clock: ManualClock
) -> None:
    """Caps, a budget, groups, tiers, refunds, spending, pending value and late events."""
    assert (await service.put("/v1/tiers", TIERS)).status_code == 200
    campaigns = [
        await factory.campaign(caps=[{"scope": "member", "period": "week", "limit": 250}], clawback="up_to_balance"),
        await factory.campaign(
            budget=700, stacking={"group": "g", "policy": "best", "priority": 3}, tier_multipliers={"gold": "2"}
        ),
        await factory.campaign(
            award={"type": "fixed", "amount": 120}, stacking={"group": "g"}, pending={"type": "days", "days": 2}
        ),
        await factory.campaign(condition='member.tier == "gold"', expiry={"type": "after_days", "days": 20}, clawback="none"),
        await factory.campaign(**GOAL),
    ]
    for who in ("ada", "bob"):
        events = shopping(factory, who)
        await record(service, *events[4:9])
        clock.advance(days=3)
        member = (await service.get("/v1/members", external_id=who)).json()["items"][0]["id"]
        assert (await service.post(f"/v1/wallets/{member}:PTS/debit", {"amount": 90})).status_code == 201
        await record(service, *events[:4], *events[9:])
    for campaign in campaigns:
        report = await simulate(service, services, campaign)
        real = [sum(each) for each in zip(*[await really(services, campaign, who) for who in ("ada", "bob")], strict=True)]
        assert paid(report["total"]) == paid(report["total"], "real") == tuple(real)
        assert real[0] > 0
        rows = [report["total"], *report["by_tier"], *report["by_segment"], *report["by_week"]]
        assert [
            (row["name"], row[of]["difference"])
            for row in rows
            for of in ("campaign", "programme")
            if row[of]["difference"] != ZERO
        ] == []
        assert sum(row["events"] for row in report["by_week"]) == report["events"] == 24
        assert report["as_it_was"] == {"recorded_without_inputs": 0, "version_missing": 0, "member_erased": 0}
    await factory.assert_books_balance()


async def test_simulated_draft_matches_its_later_awards(service: Caller, services: Services, factory: Factory) -> None:
    """Ada's month with the draft that was not there is Bob's month with the campaign that is."""
    assert (await service.put("/v1/tiers", TIERS)).status_code == 200
    other = await factory.campaign(stacking={"group": "g", "policy": "best", "priority": 1}, tier_multipliers={"gold": "1.5"})
    draft = await factory.campaign(
        active=False,
        award={"type": "formula", "expression": 'event.amount / 90 + (member.tier == "gold" ? 10 : 0)'},
        caps=[{"scope": "member", "period": "week", "limit": 300}],
        budget=560,
        stacking={"group": "g"},
        clawback="up_to_balance",
    )
    await record(service, *shopping(factory, "ada"))
    report = await simulate(service, services, draft, unit_cost="0.5")
    assert paid(report["total"], "real") == (0, 0)
    assert (await service.post(f"/v1/campaigns/{draft}/activate", key=None)).status_code == 200
    await record(service, *shopping(factory, "bob"))
    assert paid(report["total"]) == await really(services, draft, "bob")
    assert report["total"]["campaign"]["simulated"]["taken_back"] > 0
    programme = report["total"]["programme"]
    assert [programme["simulated"][name] for name in ("awarded", "taken_back")] == [
        sum(each) for each in zip(*[await really(services, campaign, "bob") for campaign in (other, draft)], strict=True)
    ]
    assert (programme["real"]["awarded"], programme["real"]["taken_back"]) == await really(services, other, "ada")
    points = programme["simulated"]["points"]
    assert programme["simulated"]["cost"] == points // 2 + (points % 4 == 3)
    names = {"gold", "none"}
    assert {row["name"] for row in report["by_tier"]} == names
    [winner] = report["largest_winners"]
    assert winner["campaign_simulated"] == report["total"]["campaign"]["simulated"]["points"]
    spent = await services.database.raw["accounts"].find_one({"_id": f"{draft}:budget"})
    assert spent is not None
    assert report["budget_used"] == spent["balance"]
    await factory.assert_books_balance()


async def test_simulated_achievement_draft_matches_its_later_awards(service: Caller, services: Services, factory: Factory) -> None:
    """Goals are counted in the simulated world too, and refunds break them there."""
    draft = await factory.campaign(active=False, **GOAL)
    await record(service, *shopping(factory, "ada"))
    report = await simulate(service, services, draft)
    assert (await service.post(f"/v1/campaigns/{draft}/activate", key=None)).status_code == 200
    await record(service, *shopping(factory, "bob"))
    assert paid(report["total"]) == await really(services, draft, "bob")
    assert report["total"]["campaign"]["simulated"]["taken_back"] == 33
    await factory.assert_books_balance()


def delivered(who: str, day: int, purchase: str) -> dict[str, Any]:
    at = f"2026-01-{day:02d}T18:00:00Z"
    return {
        "id": f"{purchase}-there-{day}", "type": "delivered", "member": {"external_id": who}, "occurred_at": at, "confirms": purchase,
    }  # fmt: skip


@pytest.mark.parametrize("active", [False, True])
async def test_simulation_releases_awards_that_wait_for_an_event(
    service: Caller, services: Services, factory: Factory, active: bool
) -> None:
    """What a refund finds to take back depends on what was delivered: before its purchase, between its refunds, twice or never."""
    rule = await factory.campaign(
        active=active,
        pending={"type": "event", "event_type": "delivered", "within_days": 30},
        expiry={"type": "after_days", "days": 20},
        clawback="up_to_balance",
    )

    def month(who: str) -> list[dict[str, Any]]:
        there = [
            delivered(who, 2, f"{who}-1"),
            delivered(who, 3, f"{who}-2"),
            delivered(who, 4, f"{who}-5"),
            delivered(who, 5, f"{who}-2"),
        ]
        return sorted([*shopping(factory, who), *there], key=lambda event: event["occurred_at"])

    await record(service, *month("ada"))
    report = await simulate(service, services, rule)
    if not active:
        assert paid(report["total"], "real") == (0, 0)
        assert (await service.post(f"/v1/campaigns/{rule}/activate", key=None)).status_code == 200
        await record(service, *month("bob"))
    assert paid(report["total"]) == await really(services, rule, "ada" if active else "bob")
    assert report["total"]["campaign"]["simulated"]["taken_back"] > 0
    await factory.assert_books_balance()


async def test_simulated_referral_awards_count_for_the_referrer(service: Caller, services: Services, factory: Factory) -> None:
    """Ada has referred Bob and Eve, and may get so much in a month."""
    plain = await factory.campaign()
    terms = {"award": {"type": "fixed", "amount": 60}, "caps": [{"scope": "member", "period": "month", "limit": 100}]}
    draft = await factory.campaign(
        active=False, pays="referrer", condition="member.first_purchase", event_types=["purchase"], **terms
    )
    await record(service, shopping(factory, "ada")[0])
    ada = (await service.get("/v1/members", external_id="ada")).json()["items"][0]["id"]
    code = (await service.get(f"/v1/members/{ada}/referral")).json()["code"]
    for who in ("bob", "eve"):
        member = await factory.member(who)
        assert (await service.post(f"/v1/members/{member}/referral", {"code": code}, key=None)).status_code == 201
        await record(service, *shopping(factory, who)[:2])
    report = await simulate(service, services, draft)
    assert paid(report["total"]) == (100, 0)
    assert [(each["member_id"], each["campaign_simulated"]) for each in report["largest_winners"]] == [(ada, 100)]
    assert (await simulate(service, services, plain))["total"]["programme"]["difference"] == ZERO
    await factory.assert_books_balance()


async def test_simulation_window_starts_from_the_recorded_state(service: Caller, services: Services, factory: Factory) -> None:
    """The cap of the month is half used when the window begins, and a refund in it is of a purchase before it."""
    campaign = await factory.campaign(caps=[{"scope": "member", "period": "month", "limit": 500}])
    await record(service, *shopping(factory, "ada"))
    window = {"occurred_from": "2026-01-03T00:00:00Z", "occurred_before": "2026-01-08T00:00:00Z"}
    report = await simulate(service, services, campaign, **window)
    assert (report["events"], report["total"]["campaign"]["difference"]) == (9, ZERO)
    body = {
        "name": "2 points",
        "asset": "PTS",
        "event_types": ["purchase"],
        "award": {"type": "per_amount", "points": 2, "per": 100},
    }
    body["caps"] = [{"scope": "member", "period": "month", "limit": 500}]
    doubled = await simulate(service, services, campaign, **window, campaign=body)
    assert doubled["total"]["campaign"]["real"] == report["total"]["campaign"]["real"]
    # Of 500, 200 were used before. The purchase before the window gives back 25 and 74, and both are used again.
    assert paid(doubled["total"]) == (200 + 125 + 74, 25 + 74)
    later = await ask(service, campaign, occurred_from="2027-01-01T00:00:00Z")
    await services.simulator.work(2)
    assert (await report_of(service, later))["events"] == 0


async def test_simulation_reads_profiles_and_leaves_erased_members_unchanged(
    service: Caller, services: Services, factory: Factory
) -> None:
    reader = await factory.campaign(condition='member.external_id == "ada"')
    draft = await factory.campaign(
        active=False, condition='member.attributes["vip"] == "yes"', award={"type": "fixed", "amount": 5}
    )
    for who in ("ada", "bob", "eve"):
        await service.post("/v1/members", {"external_id": who, "attributes": {"vip": "no" if who == "eve" else "yes"}}, key=None)
        await record(service, shopping(factory, who)[0])
    await service.post(f"/v1/campaigns/{reader}/pause", key=None)
    report = await simulate(service, services, draft)
    assert paid(report["total"]) == (10, 0)
    member = (await service.get("/v1/members", external_id="ada")).json()["items"][0]["id"]
    assert (await service.post(f"/v1/members/{member}/erase", key=None)).status_code == 200
    report = await simulate(service, services, draft)
    assert (paid(report["total"]), report["as_it_was"]["member_erased"]) == ((5, 0), 1)
    assert report["total"]["programme"]["real"]["awarded"] == 100
    await factory.assert_books_balance()


async def test_simulation_of_a_killed_worker_is_resumed_without_double_counting(
    service: Caller, services: Services, other_services: Services, factory: Factory, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(running, "PAGE_EVENTS", 5)
    draft = await factory.campaign(active=False, budget=1500, award={"type": "percent", "percent": "2.5"})
    await factory.campaign(caps=[{"scope": "member", "period": "week", "limit": 250}])
    for who in ("ada", "bob", "eve"):
        await record(service, *shopping(factory, who))
    whole = await simulate(service, services, draft)
    simulation = await ask(service, draft)
    work = asyncio.create_task(services.simulator.work(1))
    rows = services.database.raw[SIMULATIONS]
    for _ in range(5000):
        if ((await rows.find_one({"_id": simulation})) or {}).get("done"):
            break
        await asyncio.sleep(0.001)
    work.cancel()
    await asyncio.gather(work, return_exceptions=True)
    seen = (await service.get(f"/v1/simulations/{simulation}")).json()
    assert (seen["status"], seen["events_total"]) == ("running", 36)
    assert 0 < seen["events_done"] < 36
    assert seen["at"].startswith("2026-01-")
    # The lane's lease was lost, and the one who had it does not know yet: both go on.
    await asyncio.gather(services.simulator.work(1), other_services.simulator.work(1))
    await services.simulator.work(1)
    assert await report_of(service, simulation) == whole
    assert whole["total"]["campaign"]["simulated"]["points"] > 0


async def test_simulation_is_cancelled_refused_or_not_found(service: Caller, services: Services, factory: Factory) -> None:
    campaign = await factory.campaign()
    await record(service, factory.event())
    problem(await service.post("/v1/campaigns/cmp_none/simulate", {}, key=None), 404, "not-found")
    problem(await service.get("/v1/simulations/sim_none"), 404, "not-found")
    problem(await service.post("/v1/simulations/sim_none/cancel", key=None), 404, "not-found")
    empty = {"occurred_from": "2026-01-02T00:00:00Z", "occurred_before": "2026-01-02T00:00:00Z"}
    assert (
        problem(await service.post(f"/v1/campaigns/{campaign}/simulate", empty, key=None), 422, "validation")["errors"][0][
            "pointer"
        ]
        == "/occurred_before"
    )
    body = {
        "name": "x",
        "asset": "PTS",
        "event_types": ["purchase"],
        "award": {"type": "fixed", "amount": 1},
        "condition": "event.nothing",
    }
    answer = await service.post(f"/v1/campaigns/{campaign}/simulate", {"campaign": body}, key=None)
    assert problem(answer, 422, "validation")["errors"][0]["pointer"] == "/campaign/condition"
    asked = [await ask(service, campaign) for _ in range(OPEN_MAX)]
    problem(await service.post(f"/v1/campaigns/{campaign}/simulate", {}, key=None), 409, "invalid-state")
    for simulation in asked:
        answer = await service.post(f"/v1/simulations/{simulation}/cancel", key=None)
        assert (answer.status_code, answer.json()["status"]) == (200, "cancelled")
    assert await services.simulator.work(1) == 0
    done = await ask(service, campaign)
    await services.simulator.work(1)
    assert (await service.post(f"/v1/simulations/{done}/cancel", key=None)).json()["status"] == "done"
    assert await services.database.raw[SIMULATIONS].count_documents({"lane": {"$gte": 0}}) == 0


async def test_simulate_command_runs_a_simulation_and_prints_its_report(
    service: Caller, settings: Settings, factory: Factory, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    campaign = await factory.campaign(starts_at="2030-01-01T00:00:00Z")
    await record(service, *shopping(factory, "ada"))
    for name, value in places(settings).items():
        monkeypatch.setenv(name, value)
    draft = tmp_path / "draft.json"
    draft.write_text(
        json.dumps({"name": "x", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "fixed", "amount": 7}})
    )

    async def run(*arguments: str) -> Any:
        return await asyncio.to_thread(CliRunner().invoke, commands, ["simulate", campaign, *arguments])

    result = await run("--ignore-dates", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["report"]["total"]["campaign"]["simulated"]["awarded"] > 700
    result = await run("--file", str(draft), "--from", "2026-01-02T00:00:00Z")
    assert result.exit_code == 0, result.output
    assert "all campaigns" in result.stdout
    assert (await run("--file", str(tmp_path / "none.json"))).exit_code != 0
    log = (await service.get("/v1/audit")).json()["items"]
    assert [each["phase"] for each in log if each["action"] == "simulate"] == ["answered", "asked"] * 2


async def test_refunds_are_booked_under_the_tier_of_the_member_on_both_sides(
    service: Caller, services: Services, factory: Factory
) -> None:
    """Refunds are recorded without a tier: the real ones were booked under none, the simulated ones under the member's."""
    assert (await service.put("/v1/tiers", TIERS)).status_code == 200
    campaign = await factory.campaign(event_types=["purchase"])
    buys = [
        factory.event(member={"external_id": "ada"}, amount=amount, occurred_at="2026-01-05T12:00:00Z") for amount in (30_000, 5000)
    ]
    back = factory.event(
        type="refund", refund_of=buys[1]["id"], member={"external_id": "ada"}, amount=5000, occurred_at="2026-01-06T12:00:00Z"
    )
    await record(service, *buys, back)
    draft = {
        "name": "more", "asset": "PTS", "event_types": ["purchase"],
        "award": {"type": "per_amount", "points": 2, "per": 100, "rounding": "floor"},
    }  # fmt: skip
    for body, factor in (({}, 1), ({"campaign": draft}, 2)):
        report = await simulate(service, services, campaign, **body)
        rows = {row["name"]: row for row in report["by_tier"]}
        assert {name: (paid(row), paid(row, "real")) for name, row in rows.items()} == {
            "none": ((300 * factor, 0), (300, 0)),
            "gold": ((50 * factor, 50 * factor), (50, 50)),
        }
        assert {name: row["events"] for name, row in rows.items()} == {"none": 1, "gold": 2}
    await factory.assert_books_balance()
