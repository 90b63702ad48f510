"""Runs of segments by a worker, page by page.

A run measures every member, computes the bounds of the fifths, and then assigns groups and segments. It writes the slot of the memberships
that is not read, and its last transaction makes that slot the one that is read. Each page is saved in one transaction with the position: if
a worker is killed, the next one continues after the last saved page, and a worker that has lost its lease cannot save another. Memory holds
one page of members, for any number of members.
"""

from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import msgspec
from msgspec import UNSET
from pymongo import ReplaceOne, ReturnDocument

from guerdon.calendar import Calendar
from guerdon.campaigns.member_segments import MEMBER_SEGMENTS, SERVING, SLOTS, row_id
from guerdon.clock import Clock
from guerdon.database import Database, Document, DuplicateKeyError, PyMongoError, may_try_again
from guerdon.ids import IdSource
from guerdon.segments.evaluation import SegmentEvaluator
from guerdon.segments.measuring import PurchaseMeter
from guerdon.segments.models import RFM_GROUPS, SEGMENT_RUNS, MemberRow, RfmBounds, RunCondition, SegmentRun
from guerdon.segments.rules import (
    WINDOW_DAYS,
    Fifths,
    RunTime,
    chosen_currency,
    group_of,
    is_scored,
    scores_of,
    window_start,
)
from guerdon.segments.service import Segments

EVERY_MS = 5_000
"""Milliseconds between two runs of the job."""
RUN_SECONDS = 60.0
"""Duration after which a run of the job ends, well within the time limit of a job. The next one continues."""
PAGE_MEMBERS = 1000
TRIES_MAX = 5
"""Maximum number of starts without a saved page, after which a run fails."""
OPEN_READ_MAX = 100
"""Maximum number of open runs that are looked at. There are few: a request returns the run that waits."""
WORKER = "system:worker"


class _PageTaken(Exception):
    """Another worker has saved the page."""


class SegmentRunner:
    """Makes the nightly runs and those that were requested, one at a time."""

    def __init__(
        self,
        segments: Segments,
        meter: PurchaseMeter,
        evaluator: SegmentEvaluator,
        *,
        database: Database,
        clock: Clock,
        ids: IdSource,
        calendar: Calendar,
        currency: str | None,
    ) -> None:
        """`currency` is that of the money; None for the one that most purchases have."""
        self._segments = segments
        self._meter = meter
        self._evaluator = evaluator
        self._database = database
        self._runs = database.collection(SEGMENT_RUNS, SegmentRun)
        self._rows = database.collection(MEMBER_SEGMENTS, MemberRow)
        self._clock = clock
        self._ids = ids
        self._calendar = calendar
        self._currency = currency

    async def work(self) -> int:
        """Add the run of the night if it is missing, and continue the oldest open run; return the number of members processed.

        After a downtime only the run of the present day is made, because segments are those of now.
        """
        await self._add_nightly()
        until, processed = self._clock.monotonic() + RUN_SECONDS, 0
        while self._clock.monotonic() < until:
            run = await self._claim()
            if run is None:
                break
            processed += await self._resume(run, until)
        return processed

    async def _claim(self) -> SegmentRun | None:
        """Return the run to continue: the one that was begun, then that of a night, then the oldest.

        Two runs never alternate, because both would write the same slot; and a night comes before a request of the same day, so that
        memberships are never replaced by older ones.
        """
        found = await self._runs.find({"open": True}, sort=[("_id", 1)], limit=OPEN_READ_MAX)
        if not found:
            return None
        first = min(found, key=lambda run: (run.status != "running", run.day is UNSET, run.id))
        claimed = await self._runs.raw.find_one_and_update(
            {"_id": first.id, "open": True}, {"$inc": {"tries": 1}}, return_document=ReturnDocument.AFTER
        )
        return None if claimed is None else self._runs.decode(claimed)

    async def _add_nightly(self) -> None:
        now_ms = self._clock.now_ms()
        day = self._calendar.names(now_ms)[0]
        if await self._runs.raw.find_one({"day": {"$gte": day}}, {"_id": 1}) is not None:
            return
        run = SegmentRun(id=self._ids.new("sgr"), status="waiting", day=day, open=True, created_at=now_ms, created_by=WORKER)
        try:
            await self._runs.insert(run)
        except DuplicateKeyError:
            return  # Another worker, whose lease has passed on, has added it.

    async def _resume(self, run: SegmentRun, until: float) -> int:
        if run.tries > TRIES_MAX:
            await self._end(run, status="failed", error="the run was started several times without progress")
            return 0
        try:
            return await self._run(run, until)
        except _PageTaken:
            return 0
        except PyMongoError as error:
            if may_try_again(error):
                return 0
            raise

    async def _run(self, run: SegmentRun, until: float) -> int:
        processed = 0
        if run.status == "waiting":
            run = await self._start(run)
        elif run.phase == "measure":
            await self._drop_erased(run)
        while run.phase == "measure":
            run, number = await self._measure(run)
            processed += number
            if self._clock.monotonic() >= until:
                return processed
        while run.status == "running":
            run, number = await self._assign(run)
            processed += number
            if not number:
                await self._finish(run)
                break
            if self._clock.monotonic() >= until:
                break
        return processed

    async def _start(self, run: SegmentRun) -> SegmentRun:
        now_ms = self._clock.now_ms()
        at = now_ms if run.day is UNSET else self._calendar.midnight(date.fromisoformat(run.day))
        serving = await self._rows.raw.find_one({"_id": SERVING})
        started = msgspec.structs.replace(
            run,
            status="running",
            started_at=now_ms,
            at=at,
            since=window_start(at, self._calendar),
            slot=SLOTS[0] if serving is None else 1 - serving["slot"],
            conditions=tuple(RunCondition(each.id, each.version, each.condition) for each in await self._segments.list_own()),
        )
        return await self._save(run, started, ())

    # --- measuring --------------------------------------------------------------------------------------------------

    async def _measure(self, run: SegmentRun) -> tuple[SegmentRun, int]:
        """Measure the next page of members and save it; after the last page compute the bounds. Return the run and the number of members."""
        page = await self._meter.members_after(run.after, PAGE_MEMBERS)
        if page is None:
            return await self._compute_bounds(run), 0
        measured = await self._meter.measure(page, run.since, run.at)
        rows = [
            MemberRow(id=row_id(run.slot, member), owner=member, slot=run.slot, run=run.id, measured=measured.members[member])
            for member in page.members
        ]
        currencies = _added(run.currencies, measured.currencies)
        after = msgspec.structs.replace(
            run,
            after=page.last,
            page_from=run.after,
            members=run.members + len(rows),
            scored=run.scored + sum(is_scored(row.measured) for row in rows),
            currencies=currencies,
        )
        run = await self._save(run, after, [ReplaceOne({"_id": row.id}, self._rows.encode(row), upsert=True) for row in rows])
        await self._drop_erased(run)
        return run, len(rows)

    async def _drop_erased(self, run: SegmentRun) -> None:
        """Delete rows of the newest page of members who were erased while it was measured. An erasure hides a member before it deletes rows."""
        erased = await self._meter.find_erased(run.page_from, run.after)
        if erased:
            await self._rows.raw.delete_many({"_id": {"$in": [row_id(run.slot, member) for member in erased]}})

    async def _compute_bounds(self, run: SegmentRun) -> SegmentRun:
        currency = chosen_currency(run.currencies, self._currency)
        fields = ("measured.days", "measured.purchases", f"measured.spent.{currency or '_'}")
        days, purchases, spent = [await self._bounds(run, name) for name in fields]
        after = msgspec.structs.replace(
            run, phase="assign", after="", page_from="", currency=currency, bounds=RfmBounds(days, purchases, spent)
        )
        return await self._save(run, after, ())

    async def _bounds(self, run: SegmentRun, name: str) -> tuple[int, ...]:
        """Return the bounds of the fifths of one value. The database counts and sorts; memory holds one value."""
        pipeline: list[Document] = [
            {"$match": {"slot": run.slot, "run": run.id, "measured.days": {"$lte": WINDOW_DAYS}}},
            {"$group": {"_id": {"$ifNull": [f"${name}", 0]}, "members": {"$sum": 1}}},
            {"$sort": {"_id": 1}},
        ]
        fifths = Fifths(run.scored)
        async for row in await self._rows.raw.aggregate(pipeline, allowDiskUse=True):
            fifths.add(int(row["_id"]), int(row["members"]))
        return fifths.bounds

    # --- assigning --------------------------------------------------------------------------------------------------

    async def _assign(self, run: SegmentRun) -> tuple[SegmentRun, int]:
        """Assign groups and segments to the next page of members and save it. Return the run and the number of members; 0 after the last."""
        where: Document = {"_id": {"$gt": row_id(run.slot, run.after), "$lt": row_id(run.slot, "~")}, "run": run.id}
        found = await self._rows.find(where, sort=[("_id", 1)], limit=PAGE_MEMBERS)
        if not found:
            return run, 0
        assert run.bounds is not None
        time = RunTime(run.at, self._calendar, run.currency)
        rows: list[MemberRow] = []
        for row in found:
            scores = scores_of(row.measured, run.currency, run.bounds)
            spent = {name: amount for name, amount in row.measured.spent.items() if name == run.currency}
            rows.append(
                msgspec.structs.replace(
                    row,
                    group=group_of(scores),
                    recency=scores.recency,
                    frequency=scores.frequency,
                    monetary=scores.monetary,
                    measured=msgspec.structs.replace(row.measured, spent=spent),
                )
            )
        matched = await self._evaluator.evaluate(rows, run.conditions, time)
        writes: list[ReplaceOne[Document]] = []
        for row in rows:
            named = msgspec.structs.replace(row, segments=tuple(sorted([row.group, *matched.names[row.owner]])))
            # A row that an erasure has deleted meanwhile is not written again.
            writes.append(ReplaceOne({"_id": row.id, "run": run.id}, self._rows.encode(named)))
        after = msgspec.structs.replace(
            run, after=rows[-1].owner, page_from=run.after, unevaluated=_added(run.unevaluated, matched.unevaluated)
        )
        return await self._save(run, after, writes), len(rows)

    async def _finish(self, run: SegmentRun) -> None:
        """Delete what earlier runs have left in the slot, count the members, and make the slot the one that is read."""
        in_slot: Document = {"_id": {"$gt": row_id(run.slot, ""), "$lt": row_id(run.slot, "~")}}
        await self._rows.raw.delete_many({**in_slot, "run": {"$ne": run.id}})
        pipeline: list[Document] = [
            {"$match": {"slot": run.slot, "run": run.id}},
            {"$unwind": "$segments"},
            {"$group": {"_id": "$segments", "members": {"$sum": 1}}},
        ]
        counts = dict.fromkeys([*RFM_GROUPS, *(each.name for each in run.conditions)], 0)
        async for row in await self._rows.raw.aggregate(pipeline):
            counts[str(row["_id"])] = int(row["members"])
        await self._end(run, status="done", counts=counts)

    # --- saving -----------------------------------------------------------------------------------------------------

    async def _save(self, before: SegmentRun, after: SegmentRun, writes: Sequence[ReplaceOne[Document]]) -> SegmentRun:
        """Save a page and the run after it in one transaction; return the run.

        Raises:
            _PageTaken: another worker has saved the page. Nothing is written.
        """
        saved = msgspec.structs.replace(after, page=before.page + 1, tries=0)
        async with self._database.transaction() as session:
            if writes:
                await self._rows.raw.bulk_write(writes, ordered=False, session=session)
            result = await self._runs.raw.replace_one(
                {"_id": before.id, "page": before.page or None, "open": True}, self._runs.encode(saved), session=session
            )
            if not result.matched_count:
                raise _PageTaken
        return saved

    async def _end(self, run: SegmentRun, **changes: Any) -> None:
        """End a run; one that is done becomes the one that is read, in the same transaction."""
        ended = msgspec.structs.replace(run, open=UNSET, page=run.page + 1, ended_at=self._clock.now_ms(), **changes)
        async with self._database.transaction() as session:
            result = await self._runs.raw.replace_one(
                {"_id": run.id, "page": run.page or None, "open": True}, self._runs.encode(ended), session=session
            )
            if not result.matched_count:
                raise _PageTaken
            if ended.status == "done":
                serving = {"_id": SERVING, "owner": SERVING, "slot": run.slot, "run": run.id}
                await self._rows.raw.replace_one({"_id": SERVING}, serving, upsert=True, session=session)


def _added(left: Mapping[str, int], right: Mapping[str, int]) -> dict[str, int]:
    """Return the sums of two tables of numbers."""
    return {name: left.get(name, 0) + right.get(name, 0) for name in sorted({*left, *right})}
