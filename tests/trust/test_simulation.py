"""What-if on a year of real purchases: the campaign that was active comes out as it did, and another one as arithmetic says."""

import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from guerdon.campaigns.domain import EVENTS, RecordedEvent
from guerdon.cli.online_retail import CAMPAIGN_ID
from guerdon.config import Settings
from guerdon.wiring.services import Services
from tests.invariants.retail import guerdon, places, points_of, require_data
from tests.trust.figures import record
from tests.trust.groups import ALONE

EVENTS_THERE, SECONDS_MAX = 22_190, 20.0
pytestmark = [pytest.mark.trust, pytest.mark.timeout(900), ALONE]


async def simulate(settings: Settings, *arguments: str) -> dict[str, Any]:
    run = await guerdon("simulate", CAMPAIGN_ID, *arguments, "--json", **places(settings))
    assert run.status == 0, run.err
    found: dict[str, Any] = run.summary
    assert (found["status"], found["events_done"]) == ("done", EVENTS_THERE)
    return found


def differences(report: dict[str, Any]) -> list[tuple[str, dict[str, int]]]:
    rows = [report["total"], *report["by_tier"], *report["by_segment"], *report["by_week"]]
    found = [(row["name"], row[of]["difference"]) for row in rows for of in ("campaign", "programme")]
    return [(name, figures) for name, figures in found if any(figures.values())]


async def test_simulation_of_a_year_matches_the_recorded_awards(services: Services, settings: Settings, tmp_path: Path) -> None:
    run = await guerdon("replay", str(require_data()), "--json", **places(settings))
    assert run.status == 0, run.err
    points = await points_of(services)
    found = await simulate(settings)
    seconds = (datetime.fromisoformat(found["ended_at"]) - datetime.fromisoformat(found["created_at"])).total_seconds()
    report = found["report"]
    total = report["total"]["campaign"]
    assert differences(report) == []
    assert total["simulated"]["points"] == sum(points.values())
    assert report["as_it_was"] == {"recorded_without_inputs": 0, "version_missing": 0, "member_erased": 0}
    best = sorted(points.values(), reverse=True)[: len(report["largest_winners"])]
    assert [winner["campaign_simulated"] for winner in report["largest_winners"]] == best
    assert [winner["campaign_real"] for winner in report["largest_winners"]] == best
    # Three per cent of what a purchase comes to, nothing of refunds: what that is needs no campaign.
    draft = {"name": "3 %", "asset": "PTS", "event_types": ["purchase"], "award": {"type": "percent", "percent": "3"}}
    path = tmp_path / "draft.json"
    path.write_text(json.dumps(draft))
    events = services.database.collection(EVENTS, RecordedEvent)
    amounts = [events.decode(row).amount async for row in events.raw.find({"type": "purchase"})]
    expected = [amount * 3 // 100 for amount in amounts if amount * 3 // 100 > 0]
    other = (await simulate(settings, "--file", str(path)))["report"]["total"]["campaign"]
    assert (other["simulated"]["awards"], other["simulated"]["points"]) == (len(expected), sum(expected))
    assert other["real"] == total["real"]
    record(f"WHAT-IF {EVENTS_THERE:,} events simulated", f"{seconds:.1f} s", f"<= {SECONDS_MAX:.0f} s")
    assert seconds <= SECONDS_MAX
    print(json.dumps({"check": "WHAT-IF", "events": EVENTS_THERE, "seconds": round(seconds, 1), "result": "ok"}))
