"""How workers run simulations: page by page, each page in one transaction with how far it has come.

So a worker may be killed at any moment, and whoever has the lane's lease after it goes on at the last page. Nothing is held but a page of
events and what is known of their members, however long the history is.
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
from guerdon.simulations.reporting import Counting, hold, report_of
from guerdon.simulations.service import ONGOING, expires_at

EVERY_MS = 1000
RUN_SECONDS = 60.0
"""A run ends after so long, well within the limit of a job, and the next one goes on."""
PAGE_EVENTS, BREATH_EVENTS = 1000, 20
TRIES_MAX = 5
_EARLIEST, _LATEST = -(10**15), 10**15


class _Overtaken(Exception):
    """Somebody else has gone on with it, or it was cancelled."""


class Simulator:
    """Runs what is asked for; each lane one simulation after another."""

    def __init__(self, campaigns: Campaigns, people: Profiles, *, database: Database, clock: Clock, calendar: Calendar) -> None:
        self._database = database
        self._simulations: Collection[Simulation] = database.collection(SIMULATIONS, Simulation)
        self._members = database.collection(SIMULATED_MEMBERS, SimulatedMember)
        self._purchases = database.collection(SIMULATED_PURCHASES, SimulatedPurchase)
        self._events = database.collection(EVENTS, RecordedEvent)
        self._pages = Pages(campaigns, people, database)
        self._clock = clock
        self._calendar = calendar

    async def work(self, lane: int) -> int:
        """Go on with what this lane has, or take up what waits; return how many events were judged."""
        until, judged = self._clock.monotonic() + RUN_SECONDS, 0
        while self._clock.monotonic() < until:
            simulation = await self._next(lane)
            if simulation is None:
                break
            if simulation.status in ("waiting", "running"):
                judged += await self._go_on(simulation, until)
            else:
                await self._clear(simulation)
        return judged

    async def _next(self, lane: int) -> Simulation | None:
        for where in ({"lane": lane}, {"lane": FREE}):
            found = await self._simulations.raw.find_one_and_update(
                where, {"$set": {"lane": lane}, "$inc": {"tries": 1}}, sort=[("_id", 1)], return_document=ReturnDocument.AFTER
            )
            if found is not None:
                return self._simulations.decode(found)
        return None

    async def _go_on(self, simulation: Simulation, until: float) -> int:
        if simulation.tries > TRIES_MAX:
            await self._end(simulation, {"status": "failed", "error": "it was begun several times and came no further"})
            return 0
        try:
            tried = LiveCampaign.of(simulation.campaign)
        except Validation as error:
            await self._end(simulation, {"status": "failed", "error": error.detail[:300]})
            return 0
        try:
            return await self._run(simulation, tried, until)
        except _Overtaken:
            return 0
        except PyMongoError as error:
            if may_try_again(error):
                return 0
            raise

    async def _run(self, simulation: Simulation, tried: LiveCampaign, until: float) -> int:
        before = simulation.done
        if simulation.total is None:
            total = await self._events.raw.count_documents(_where(simulation, None))
            simulation = msgspec.structs.replace(simulation, total=total)
        members: dict[str, SimulatedMember] = {}
        async for events in self._read(simulation):
            page = await self._pages.load(simulation.id, tried, events, members)
            simulation = await self._judge(simulation, page)
            if self._clock.monotonic() >= until:
                return simulation.done - before
        await self._finish(simulation)
        return simulation.done - before

    async def _read(self, simulation: Simulation) -> AsyncIterator[list[RecordedEvent]]:
        """Yield pages of events that end with all events of one moment; those of one moment in the order in which they were recorded."""
        position = simulation.position
        cursor = self._events.raw.find(_where(simulation, position)).sort([("occurred_at", 1), ("recorded_at", 1)])
        page: list[RecordedEvent] = []
        async for row in cursor:
            place = Position(row["occurred_at"], row["recorded_at"])
            if position is not None and (place.occurred_at, place.recorded_at) <= (position.occurred_at, position.recorded_at):
                continue
            if len(page) >= PAGE_EVENTS and position_of(page[-1]) != place:
                yield in_order(page)
                page = []
            page.append(self._events.decode(row))
        if page:
            yield in_order(page)

    async def _judge(self, simulation: Simulation, page: Page) -> Simulation:
        campaign = simulation.campaign
        counting = Counting(simulation.sums, campaign.id, campaign.asset, self._calendar)
        for number, recorded in enumerate(page.events):
            if number % BREATH_EVENTS == 0:
                await asyncio.sleep(0)  # The worker has other jobs, and leases to keep.
            page.judge(recorded, counting, simulation.sums, simulation.budgets)
        hold(simulation.sums, page.touched)
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
        """
        Raises:
            _Overtaken: it has come further meanwhile, or was cancelled; nothing is written.
        """
        stored = self._simulations.encode(after)
        fields = {
            name: stored[name] for name in ("status", "page", "total", "done", "position", "sums", "budgets") if name in stored
        }
        async with self._database.transaction() as session:
            for collection, rows in ((self._members.raw, page.touched), (self._purchases.raw, page.kept)):
                writes = [ReplaceOne({"_id": row.id}, Collection.encode(row), upsert=True) for row in rows]
                if writes:
                    await collection.bulk_write(writes, ordered=False, session=session)
            where = {"_id": before.id, "page": before.page, "status": ONGOING}
            changed = await self._simulations.raw.update_one(where, {"$set": {**fields, "tries": 0}}, session=session)
            if not changed.matched_count:
                raise _Overtaken

    async def _finish(self, simulation: Simulation) -> None:
        best: list[tuple[int, str, list[int]]] = []
        cursor = self._members.raw.find(_scraps(simulation), {"got": 1})
        async for row in cursor:
            got: list[int] = row.get("got") or [0, 0, 0, 0]
            if got[0] > 0:
                heapq.heappush(best, (got[0], str(row["_id"]), got))
                if len(best) > WINNERS_MAX:
                    heapq.heappop(best)
        winners = [Winner(name.partition("/")[2], *got) for _, name, got in sorted(best, reverse=True)]
        report = report_of(simulation, winners, f"{simulation.campaign.id}:budget")
        await self._end(simulation, {"status": "done", "report": msgspec.to_builtins(report), "total": simulation.done})

    async def _end(self, simulation: Simulation, fields: Document) -> None:
        now_ms = self._clock.now_ms()
        where = {"_id": simulation.id, "page": simulation.page, "status": ONGOING}
        ended: Document = {**fields, "ended_at": now_ms, "expires_at": expires_at(now_ms)}
        await self._simulations.raw.update_one(where, {"$set": ended, "$unset": {"sums": "", "budgets": ""}})

    async def _clear(self, simulation: Simulation) -> None:
        """Remove what one that has ended has needed; only then is nothing left to do."""
        for collection in (self._members.raw, self._purchases.raw):
            await collection.delete_many(_scraps(simulation))
        await self._simulations.raw.update_one(
            {"_id": simulation.id}, {"$unset": {"lane": "", "tries": "", "sums": "", "budgets": ""}}
        )


def _where(simulation: Simulation, position: Position | None) -> dict[str, Any]:
    since = _EARLIEST if simulation.occurred_from is None else simulation.occurred_from
    return {
        "occurred_at": {
            "$gte": since if position is None else position.occurred_at,
            "$lt": _LATEST if simulation.occurred_before is None else simulation.occurred_before,
        },
        "recorded_at": {"$lte": simulation.created_at},
    }


def _scraps(simulation: Simulation) -> Document:
    return {"_id": {"$gte": f"{simulation.id}/", "$lt": f"{simulation.id}0"}}


def position_of(recorded: RecordedEvent) -> Position:
    return Position(recorded.occurred_at, recorded.recorded_at)


def in_order(events: list[RecordedEvent]) -> list[RecordedEvent]:
    """Events of one moment that were recorded in one commit, in their order there."""
    ordered: list[RecordedEvent] = []
    for _, same in groupby(events, position_of):
        ordered += sorted(same, key=lambda each: 0 if each.inputs is None else each.inputs.place)
    return ordered
