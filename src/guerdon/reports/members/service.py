"""The report on members. Everything is read from one snapshot of the views."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from datetime import date
from typing import Any

from guerdon.calendar import first_of_month
from guerdon.database import Document
from guerdon.errors import Validation
from guerdon.reports.frame import ReportFrame
from guerdon.reports.members.models import (
    ActiveMembers,
    MembersCohort,
    MembersReport,
    MembersReportQuery,
    MembersRow,
    TierMembers,
    TierMove,
)
from guerdon.reports.periods import DayRange, name_of
from guerdon.reports.reading import Snapshot
from guerdon.tiers.service import Tiers
from guerdon.views.models import MEMBER_MONTHS, MEMBER_STATES, TIER_STEPS

MONTHS_MAX = 120
"""Maximum number of months of the report: a matrix of cohorts has half of their square."""
DAY_MS = 86_400_000


class MemberReports:
    """The report on members."""

    def __init__(self, frame: ReportFrame, tiers: Tiers) -> None:
        self._frame = frame
        self._tiers = tiers

    async def members(self, query: MembersReportQuery) -> MembersReport:
        """Return who bought, by month and by cohort, and the tiers.

        Raises:
            Validation: The range is not acceptable.
            ViewsNotBuilt: No version of the views is complete yet.
        """
        days = self._frame.range_of(query)
        periods = days.periods
        if len(periods) > MONTHS_MAX:
            raise Validation.at("from", f"this report has at most {MONTHS_MAX} months; use a shorter range")
        is_empty = days.first == days.after
        between = {"$gte": periods[0], "$lte": periods[-1]}
        present, after = name_of(self._frame.today, "month"), days.after.isoformat()
        async with self._frame.open("members", days=days, wait_for=query.wait_for) as report:
            snapshot = report.snapshot
            bought = [] if is_empty else await _months(snapshot, {"month": between})
            cohorts = [] if is_empty else await _months(snapshot, {"first_month": between, "month": {"$lte": present}})
            active = await _active(snapshot, self._frame.clock.now_ms())
            until_end = await _steps(snapshot, {"day": {"$lt": after}})
            moved = await _steps(snapshot, {"day": {"$gte": days.first.isoformat(), "$lt": after}})
        return MembersReport(
            **report.head,
            rows=month_rows(bought, days),
            active=active,
            cohorts=cohort_rows(cohorts, present),
            tiers=await self._tiers_of(until_end),
            tier_changes=[
                TierMove(before=row["tier_before"] or None, after=row["tier_after"] or None, members=row["members"])
                for row in sorted(moved, key=lambda row: (row["tier_before"], row["tier_after"]))
                if row["members"]
            ],
        )

    async def _tiers_of(self, steps: Iterable[Mapping[str, Any]]) -> list[TierMembers]:
        """Return the members of each tier: those who came to it less those who left it."""
        members: Counter[str] = Counter()
        for row in steps:
            members[row["tier_after"]] += row["members"]
            members[row["tier_before"]] -= row["members"]
        tiers, _ = await self._tiers.get_tiers()
        known = [] if tiers is None else [tier.code for tier in tiers.tiers]
        others = sorted(code for code, number in members.items() if code and number and code not in known)
        return [TierMembers(tier=code, members=members[code]) for code in (*known, *others)]


async def _months(snapshot: Snapshot, where: Mapping[str, Any]) -> list[Document]:
    return await snapshot.sums(MEMBER_MONTHS, where, ("first_month", "month"))


async def _steps(snapshot: Snapshot, where: Mapping[str, Any]) -> list[Document]:
    return await snapshot.sums(TIER_STEPS, where, ("tier_before", "tier_after"))


async def _active(snapshot: Snapshot, now_ms: int) -> ActiveMembers:
    counts: list[int] = []
    for days in (30, 90, 365):
        where = {"version": snapshot.version, "last_event_at": {"$gt": now_ms - days * DAY_MS}}
        counts.append(await snapshot.database.raw[MEMBER_STATES].count_documents(where, session=snapshot.session))
    return ActiveMembers(days_30=counts[0], days_90=counts[1], days_365=counts[2])


def month_rows(rows: Iterable[Mapping[str, Any]], days: DayRange) -> list[MembersRow]:
    """Return the months of a range. `rows` have the members with a purchase by first month and month."""
    new: Counter[str] = Counter()
    returning: Counter[str] = Counter()
    for row in rows:
        (new if row["first_month"] == row["month"] else returning)[row["month"]] += row["members"]
    return [
        MembersRow(period=period, buyers=new[period] + returning[period], new=new[period], returning=returning[period])
        for period in days.periods
    ]


def cohort_rows(rows: Sequence[Mapping[str, Any]], present: str) -> list[MembersCohort]:
    """Return the cohorts up to the present month."""
    found = {(row["first_month"], row["month"]): int(row["members"]) for row in rows}
    cohorts: list[MembersCohort] = []
    for first in sorted({first for (first, _), members in found.items() if members}):
        counts = [found.get((first, month), 0) for month in _months_from(first, max(first, present))]
        size = counts[0]
        if size:
            cohorts.append(
                MembersCohort(first_month=first, members=size, counts=counts, shares=[round(count / size, 6) for count in counts])
            )
    return cohorts


def _months_from(first: str, last: str) -> list[str]:
    month = date(int(first[:4]), int(first[5:]), 1)
    months: list[str] = []
    while (name := name_of(month, "month")) <= last:
        months.append(name)
        month = first_of_month(month, 1)
    return months
