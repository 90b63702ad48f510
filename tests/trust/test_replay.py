"""Real purchases, a year of them: every customer's points are the oracle's, after one run, two runs, and a run that was killed."""

import json
import time
from pathlib import Path

import pytest

from guerdon.campaigns.domain import EVENTS
from guerdon.config import Settings
from guerdon.ledger.store import ENTRIES
from guerdon.verification.service import verify
from guerdon.wiring.services import Services
from tests.invariants.retail import Run, ask_oracle, guerdon, heads_of, places, points_of, replay_killed, require_data
from tests.trust.figures import record

CUSTOMERS = 4372
pytestmark = [pytest.mark.trust, pytest.mark.timeout(900)]


async def run_replay(settings: Settings) -> Run:
    run = await guerdon("replay", str(require_data()), "--json", **places(settings))
    assert run.status == 0, run.err
    return run


async def assert_oracle(services: Services, points: dict[str, int]) -> None:
    """All customers, to the point."""
    assert len(points) == CUSTOMERS
    found = await points_of(services)
    wrong = {name: (found.get(name), points.get(name)) for name in {*found, *points} if found.get(name) != points.get(name)}
    assert wrong == {}
    report = await verify(services.database)
    assert report.violations == 0, report.first


async def test_second_replay_changes_nothing(services: Services, settings: Settings) -> None:
    points, totals = ask_oracle(require_data())
    began = time.monotonic()
    first = await run_replay(settings)
    took = time.monotonic() - began
    events = totals["purchases"] + totals["refunds"]
    assert (first.summary["recorded"], first.summary["recorded_before"], first.summary["refused"]) == (events, 0, 0)
    assert (first.summary["purchases"], first.summary["refunds"]) == (totals["purchases"], totals["refunds"])
    assert (first.summary["rows"], first.summary["rows_without_customer"]) == (totals["rows"], totals["rows_without_customer"])
    await assert_oracle(services, points)
    assert sum(points.values()) == totals["points_total"]
    heads, entries = await heads_of(services), await services.database.raw[ENTRIES].count_documents({})
    second = await run_replay(settings)
    assert (second.summary["recorded"], second.summary["recorded_before"]) == (0, events)
    assert await heads_of(services) == heads
    assert await services.database.raw[ENTRIES].count_documents({}) == entries
    record("REPLAY customers with other points than the oracle", f"0 of {CUSTOMERS}", 0)
    record("REPLAY events per second", round(events / took))
    summary = {"check": "REPLAY", "events": events, "entries": entries, "customers": len(points), "seconds": round(took, 1)}
    print(json.dumps({**summary, "events_per_second": round(events / took), "result": "ok"}))


async def test_killed_replay_is_completed_by_the_next_run(services: Services, settings: Settings, tmp_path: Path) -> None:
    points, totals = ask_oracle(require_data())
    events = totals["purchases"] + totals["refunds"]
    collection = services.database.raw[EVENTS]
    kills = []
    for share in (0.25, 0.6):

        async def has_enough(share: float = share) -> bool:
            return await collection.count_documents({}) >= share * events

        await replay_killed(settings, tmp_path / "errors", has_enough)
        kills.append(await collection.count_documents({}))
        report = await verify(services.database)
        assert report.violations == 0, report.first
    assert kills[0] < kills[1] < events
    last = await run_replay(settings)
    assert last.summary["recorded"] + last.summary["recorded_before"] == events
    assert last.summary["recorded_before"] >= kills[1]
    assert await collection.count_documents({}) == events
    await assert_oracle(services, points)
    record("REPLAY-KILL killed at event", " ".join(map(str, kills)), f"< {events}")
    print(json.dumps({"check": "REPLAY-KILL", "events": events, "killed_at": kills, "result": "ok"}))
