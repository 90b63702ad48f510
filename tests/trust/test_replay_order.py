"""A year of real purchases judged by twenty campaigns: shuffled, with 5 % sent twice, and killed twice, it comes to the same.

What does not depend on the order in which events arrive, and is compared to the unit:

- what a campaign pays for an event by that event alone: amounts, rates, formulas, items, hours, dates, and unlinked refunds into debt;
- the sum that a cap lets through for each member and each period. Periods are those in which events *occurred*, and an award at the edge
  is paid in part, so that the sum is the smaller of the cap and of what was wanted. Which event it was paid for does depend on the order;
- what a budget pays in all, if it is used up: who got it depends on the order;
- one award for each member's first purchase, whichever was recorded first. In which month it counts for the tier, and what a cap for ever
  has let through, does depend on it; the sum of all months does not;
- in a group, which campaign pays for an event, as long as no cap stands in its way.

What does depend on it pays GBP here, so that the wallets of PTS do not: who gets the budget, caps that pay whole awards only, what is taken
back up to a balance, how many days there were since the last purchase, achievements. Of these only the laws are asked.
"""

import json
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from guerdon.campaigns.domain import EVENTS, MEMBER_STATES, RecordedEvent
from guerdon.campaigns.models import CAMPAIGNS
from guerdon.clock import SystemClock
from guerdon.config import Settings
from guerdon.verification.service import verify
from guerdon.wiring.services import Services, open_services
from tests.invariants.retail import Run, guerdon, places, points_of_asset, replay_killed, require_data
from tests.trust.figures import record

EVENTS_THERE, SEED, AGAIN_PERCENT = 22_190, 7, 5
pytestmark = [pytest.mark.trust, pytest.mark.timeout(1800)]


def campaign(name: str, award: Any, **more: Any) -> dict[str, Any]:
    return {"name": name, "asset": "PTS", "event_types": ["purchase"], "award": award, **more}


def fixed(amount: int) -> dict[str, Any]:
    return {"type": "fixed", "amount": amount}


def per_pound(points: int) -> dict[str, Any]:
    return {"type": "per_amount", "points": points, "per": 100}


def at_most(limit: int, period: str) -> list[dict[str, Any]]:
    return [{"scope": "member", "period": period, "limit": limit}]


BUDGET = 20_000
BY_CAMPAIGN = [
    campaign("a point for a pound", per_pound(1), event_types=["purchase", "refund"]),
    campaign("half a per cent", {"type": "percent", "percent": "0.5", "rounding": "half_even"}),
    campaign("a formula", {"type": "formula", "expression": "event.amount / 700 + size(event.items)"}),
    campaign("large baskets", fixed(50), condition="event.amount >= 50000"),
    campaign("mugs", per_pound(2), items={"skus": ["85123A", "22423", "47566"]}),
    campaign("many lines", fixed(10), condition="event.items.exists(item, item.quantity > 100)"),
    campaign("happy hour", fixed(5), schedule=[{"days": ["mon", "thu"], "starts": "10:00", "ends": "13:00"}]),
    campaign("the spring", fixed(7), starts_at="2011-03-01T00:00:00Z", ends_at="2011-06-01T00:00:00Z"),
    campaign("one event at most", per_pound(1), caps=[{"scope": "event", "limit": 150}]),
    campaign("the day", per_pound(1), caps=at_most(200, "day")),
    campaign("the week", per_pound(1), caps=at_most(300, "week")),
    campaign("the month", {"type": "percent", "percent": "5"}, caps=at_most(5000, "month")),
    campaign("ever", fixed(40), caps=at_most(100, "ever"), pending={"type": "days", "days": 14}),
    campaign("first purchase", fixed(500), condition="member.first_purchase"),
    campaign("the better of two", per_pound(1), stacking={"group": "two", "policy": "best", "priority": 9}),
    campaign("or this one", fixed(150), stacking={"group": "two"}),
]
IN_SUM = [campaign("the first ones", fixed(25), asset="GBP", budget=BUDGET)]
BY_ORDER = [
    campaign("whole or nothing", per_pound(1), asset="GBP", caps=at_most(200, "month"), partial_award=False),
    campaign("come back", fixed(30), asset="GBP", condition="member.days_since_last > 60", clawback="up_to_balance"),
    campaign("five in a month", fixed(60), asset="GBP", achievement={"events": 5, "within": {"type": "days", "days": 30}}),
]
SEASON = [*BY_CAMPAIGN, *IN_SUM, *BY_ORDER]
assert len(SEASON) == 20


async def totals_of(services: Services) -> dict[str, Any]:
    """Everything that may not depend on the order."""
    names = {row["_id"]: row["name"] async for row in services.database.raw[CAMPAIGNS].find({}, {"name": 1})}
    wanted = {body["name"] for body in BY_CAMPAIGN}
    paid: Counter[str] = Counter()
    owed: Counter[tuple[str, str]] = Counter()
    events = services.database.collection(EVENTS, RecordedEvent)
    people = await points_of_asset(services, "PTS")
    async for row in events.raw.find({}, {"items": 0, "decisions": 0}):
        for award in row["awards"]:
            name = names[award["campaign"]]
            paid[name] += award["amount"]
            if name in wanted:
                owed[name, people.names[row["owner"]]] += award["amount"]
    standings = services.database.raw[MEMBER_STATES]
    return {
        "events": await events.raw.count_documents({}),
        "by campaign": {name: paid[name] for name in sorted(wanted | {body["name"] for body in IN_SUM})},
        "by campaign and member": owed,
        "PTS": people.points,
        "standings": {
            people.names[row["_id"]]: (
                row.get("purchases", 0),
                row.get("last_purchase_at"),
                sum(row.get("qualifying", {}).get("PTS", {}).values()),
            )
            async for row in standings.find({})
        },
    }


async def replay(settings: Settings, *arguments: str) -> Run:
    return await guerdon("replay", str(require_data()), *arguments, "--json", seconds=900, **places(settings))


async def killed_at(services: Services, settings: Settings, share: float, errors: Path, *arguments: str) -> int:
    """Kill a replay when this share of the history is recorded; return how many events there are then."""
    collection = services.database.raw[EVENTS]

    async def has_enough() -> bool:
        return await collection.count_documents({}) >= share * EVENTS_THERE

    await replay_killed(settings, errors, has_enough, *arguments)
    return await collection.count_documents({})


async def test_shuffled_repeated_and_killed_replay_gives_the_same_sums(
    services: Services, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "campaigns.json"
    path.write_text(json.dumps(SEASON))
    season = ("--campaigns", str(path))
    plainly = settings.model_copy(update={"mongodb_database": f"{settings.mongodb_database}_plain"})
    async with AsyncExitStack() as stack:
        plain = await stack.enter_async_context(open_services(plainly, SystemClock()))
        stack.push_async_callback(plain.database.client.drop_database, plainly.mongodb_database)
        run = await replay(plainly, *season)
        assert run.status == 0, run.err
        assert run.summary["recorded"] == EVENTS_THERE
        expected = await totals_of(plain)
    assert sum(expected["PTS"].values()) > 10**6
    shuffled = (*season, "--seed", str(SEED), "--again", str(AGAIN_PERCENT))
    kills = [await killed_at(services, settings, share, tmp_path / "errors", *shuffled) for share in (0.2, 0.6)]
    assert kills[0] < kills[1] < EVENTS_THERE
    run = await replay(settings, *shuffled)
    assert run.status == 0, run.err
    assert run.summary["recorded"] + run.summary["recorded_before"] == EVENTS_THERE + EVENTS_THERE * AGAIN_PERCENT // 100
    assert run.summary["recorded_before"] > kills[1]
    found = await totals_of(services)
    assert found["by campaign"] == expected["by campaign"]
    assert all(amount > 0 for amount in found["by campaign"].values())
    assert found["by campaign"][IN_SUM[0]["name"]] == BUDGET
    for part in ("events", "by campaign and member", "PTS", "standings"):
        assert found[part] == expected[part], part
    report = await verify(services.database, calendar=services.ledger.calendar)
    assert report.violations == 0, report.first
    record("SEASONED sums that depend on the order", f"0 of {len(found['by campaign and member'])}", 0)
    record("SEASONED killed at event", " ".join(map(str, kills)), f"< {EVENTS_THERE}")
    summary = {"check": "SEASONED", "campaigns": len(SEASON), "events": found["events"], "killed_at": kills}
    print(json.dumps({**summary, "PTS": sum(found["PTS"].values()), "violations": report.violations, "result": "ok"}))
