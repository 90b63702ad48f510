"""Execution of simulations by workers, page by page.

Each page is saved in one transaction with the position. If a worker is killed, the next holder of the lane's lease resumes after the last
saved page. Memory holds one page of events and the state of a bounded number of members, for a history of any length.
"""

import asyncio
import heapq
from collections.abc import AsyncIterator
from itertools import groupby
from typing import Any

import msgspec
from pymongo import ReplaceOne, ReturnDocument

from guerdon.calendar import Calendar
from guerdon.campaigns.domain import EVENTS, RecordedEvent
from guerdon.campaigns.evaluation import LiveCampaign
from guerdon.campaigns.profiles import Profiles
from guerdon.campaigns.service import Campaigns
from guerdon.clock import Clock
from guerdon.database import Collection, Database, Document, PyMongoError, may_try_again
from guerdon.errors import Validation
from guerdon.simulations.models import (
    FREE,
    SIMULATED_MEMBERS,
    SIMULATED_PURCHASES,
    SIMULATIONS,
    WINNERS_MAX,
    Position,
    SimulatedMember,
    SimulatedPurchase,
    Simulation,
    Winner,
)
from guerdon.simulations.pages import Page, Pages
from guerdon.simulations.reporting import Accumulator, limit_sums, report_of
from guerdon.simulations.service import ONGOING, removal_time

EVERY_MS = 1000
"""Milliseconds between two runs of the job of a lane."""
RUN_SECONDS = 60.0
"""Duration after which a run ends, well within the time limit of a job. The next run continues."""
PAGE_EVENTS, EVENTS_PER_YIELD = 1000, 20
"""Minimum number of events of a full page, and number of events between two yields to the event loop."""
TRIES_MAX = 5
"""Maximum number of starts without a saved page, after which a simulation fails."""
_EARLIEST, _LATEST = -(10**15), 10**15


class _Superseded(Exception):
    """Another worker has saved the page, or the simulation was cancelled."""


class Simulator:
    """Runs simulations; each lane runs one at a time."""

    def __init__(self, campaigns: Campaigns, profiles: Profiles, *, database: Database, clock: Clock, calendar: Calendar) -> None:
        self._database = database
        self._simulations: Collection[Simulation] = database.collection(SIMULATIONS, Simulation)
        self._members = database.collection(SIMULATED_MEMBERS, SimulatedMember)
        self._purchases = database.collection(SIMULATED_PURCHASES, SimulatedPurchase)
        self._events = database.collection(EVENTS, RecordedEvent)
        self._pages = Pages(campaigns, profiles, database)
        self._clock = clock
        self._calendar = calendar

    async def work(self, lane: int) -> int:
        """Resume the simulation of a lane, or start a waiting one; return the number of events processed."""
        until, processed = self._clock.monotonic() + RUN_SECONDS, 0
        while self._clock.monotonic() < until:
            simulation = await self._claim(lane)
            if simulation is None:
                break
            if simulation.status in ("waiting", "running"):
                processed += await self._resume(simulation, until)
            else:
                await self._delete_working_data(simulation)
        return processed

    async def _claim(self, lane: int) -> Simulation | None:
        """Return the simulation of the lane, or else assign it the oldest one that no worker has started."""
        for where in ({"lane": lane}, {"lane": FREE}):
            found = await self._simulations.raw.find_one_and_update(
                where, {"$set": {"lane": lane}, "$inc": {"tries": 1}}, sort=[("_id", 1)], return_document=ReturnDocument.AFTER
            )
            if found is not None:
                return self._simulations.decode(found)
        return None

    async def _resume(self, simulation: Simulation, until: float) -> int:
        if simulation.tries > TRIES_MAX:
            await self._end(simulation, {"status": "failed", "error": "the simulation was started several times without progress"})
            return 0
        try:
            campaign = LiveCampaign.of(simulation.campaign)
        except Validation as error:
            await self._end(simulation, {"status": "failed", "error": error.detail[:300]})
            return 0
        try:
            return await self._run(simulation, campaign, until)
        except _Superseded:
            return 0
        except PyMongoError as error:
            if may_try_again(error):
                return 0
            raise

    async def _run(self, simulation: Simulation, campaign: LiveCampaign, until: float) -> int:
        before = simulation.done
        if simulation.total is None:
            total = await self._events.raw.count_documents(_events_filter(simulation, None))
            simulation = msgspec.structs.replace(simulation, total=total)
        members: dict[str, SimulatedMember] = {}
        async for events in self._read_pages(simulation):
            page = await self._pages.load(simulation.id, campaign, events, members)
            simulation = await self._evaluate(simulation, page)
            if self._clock.monotonic() >= until:
                return simulation.done - before
        await self._finish(simulation)
        return simulation.done - before

    async def _read_pages(self, simulation: Simulation) -> AsyncIterator[list[RecordedEvent]]:
        """Yield the remaining events in pages, in chronological order. Events with the same two times are never split between pages."""
        position = simulation.position
        cursor = self._events.raw.find(_events_filter(simulation, position)).sort([("occurred_at", 1), ("recorded_at", 1)])
        page: list[RecordedEvent] = []
        async for row in cursor:
            current = Position(row["occurred_at"], row["recorded_at"])
            if position is not None and (current.occurred_at, current.recorded_at) <= (position.occurred_at, position.recorded_at):
                continue
            if len(page) >= PAGE_EVENTS and position_of(page[-1]) != current:
                yield in_recorded_order(page)
                page = []
            page.append(self._events.decode(row))
        if page:
            yield in_recorded_order(page)

    async def _evaluate(self, simulation: Simulation, page: Page) -> Simulation:
        """Evaluate and save a page; return the simulation after it."""
        campaign = simulation.campaign
        accumulator = Accumulator(simulation.sums, campaign.id, campaign.asset, self._calendar)
        for number, recorded in enumerate(page.events):
            if number % EVENTS_PER_YIELD == 0:
                await asyncio.sleep(0)  # Lets the worker run its other jobs and renew its leases.
            page.evaluate(recorded, accumulator, simulation.sums, simulation.budgets)
        limit_sums(simulation.sums, page.members)
        after = msgspec.structs.replace(
            simulation,
            status="running",
            tries=0,
            page=simulation.page + 1,
            done=simulation.done + len(page.events),
            position=position_of(page.events[-1]),
        )
        await self._save(simulation, after, page)
        return after

    async def _save(self, before: Simulation, after: Simulation, page: Page) -> None:
        """Save a page and the simulation after it in one transaction.

        Raises:
            _Superseded: another worker has saved the page, or the simulation was cancelled. Nothing is written.
        """
        stored = self._simulations.encode(after)
        fields = {
            name: stored[name] for name in ("status", "page", "total", "done", "position", "sums", "budgets") if name in stored
        }
        async with self._database.transaction() as session:
            for collection, rows in ((self._members.raw, page.members), (self._purchases.raw, page.changed_purchases)):
                writes = [ReplaceOne({"_id": row.id}, Collection.encode(row), upsert=True) for row in rows]
                if writes:
                    await collection.bulk_write(writes, ordered=False, session=session)
            where = {"_id": before.id, "page": before.page, "status": ONGOING}
            result = await self._simulations.raw.update_one(where, {"$set": {**fields, "tries": 0}}, session=session)
            if not result.matched_count:
                raise _Superseded

    async def _finish(self, simulation: Simulation) -> None:
        """End a simulation with its report."""
        largest: list[tuple[int, str, list[int]]] = []
        cursor = self._members.raw.find(_working_data_filter(simulation), {"got": 1})
        async for row in cursor:
            points: list[int] = row.get("got") or [0, 0, 0, 0]
            if points[0] > 0:
                heapq.heappush(largest, (points[0], str(row["_id"]), points))
                if len(largest) > WINNERS_MAX:
                    heapq.heappop(largest)
        winners = [Winner(row_id.partition("/")[2], *points) for _, row_id, points in sorted(largest, reverse=True)]
        report = report_of(simulation, winners, f"{simulation.campaign.id}:budget")
        await self._end(simulation, {"status": "done", "report": msgspec.to_builtins(report), "total": simulation.done})

    async def _end(self, simulation: Simulation, fields: Document) -> None:
        now_ms = self._clock.now_ms()
        where = {"_id": simulation.id, "page": simulation.page, "status": ONGOING}
        values: Document = {**fields, "ended_at": now_ms, "expires_at": removal_time(now_ms)}
        await self._simulations.raw.update_one(where, {"$set": values, "$unset": {"sums": "", "budgets": ""}})

    async def _delete_working_data(self, simulation: Simulation) -> None:
        """Delete the working data of a simulation that has ended, and then release its lane."""
        for collection in (self._members.raw, self._purchases.raw):
            await collection.delete_many(_working_data_filter(simulation))
        await self._simulations.raw.update_one(
            {"_id": simulation.id}, {"$unset": {"lane": "", "tries": "", "sums": "", "budgets": ""}}
        )


def _events_filter(simulation: Simulation, position: Position | None) -> dict[str, Any]:
    """Return the filter of the events of a simulation, from the time of `position` on."""
    since = _EARLIEST if simulation.occurred_from is None else simulation.occurred_from
    return {
        "occurred_at": {
            "$gte": since if position is None else position.occurred_at,
            "$lt": _LATEST if simulation.occurred_before is None else simulation.occurred_before,
        },
        "recorded_at": {"$lte": simulation.created_at},
    }


def _working_data_filter(simulation: Simulation) -> Document:
    """Return the filter of the simulated members or purchases of a simulation: the range of its id prefix."""
    return {"_id": {"$gte": f"{simulation.id}/", "$lt": f"{simulation.id}0"}}


def position_of(recorded: RecordedEvent) -> Position:
    """Return the position of an event."""
    return Position(recorded.occurred_at, recorded.recorded_at)


def in_recorded_order(events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Return the events with those of the same position in the order of their commit."""
    ordered: list[RecordedEvent] = []
    for _, group in groupby(events, position_of):
        ordered += sorted(group, key=lambda each: 0 if each.inputs is None else each.inputs.place)
    return ordered
