"""The frame of every report: its asset and range, its freshness, its head, and its rows as CSV."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import date
from typing import Any

from guerdon.calendar import Calendar
from guerdon.clock import Clock, rfc3339
from guerdon.errors import NotFound
from guerdon.http.operation import JSON_TYPE, Request, Response, send
from guerdon.reports.models import CSV_TYPE, DEFINITIONS, ReportHead
from guerdon.reports.periods import DayRange, HasRange, range_of
from guerdon.reports.reading import Snapshot, ViewReader
from guerdon.reports.rows import csv_of, file_name
from guerdon.wallets.assets import Assets

CSV_MEDIA = "text/csv"


class OpenReport:
    """A report while it is made: the snapshot that it is read from, and its head."""

    def __init__(self, snapshot: Snapshot, head: dict[str, Any]) -> None:
        self.snapshot = snapshot
        self.head = head
        """Fields of `ReportHead` by name, to build the report with."""


class ReportFrame:
    """Common frame of all reports. A report opens it, reads its rows from the snapshot, and builds its answer with the head."""

    def __init__(self, views: ViewReader, assets: Assets, calendar: Calendar, clock: Clock) -> None:
        self.views = views
        self.calendar = calendar
        self.clock = clock
        self._assets = assets

    @property
    def today(self) -> date:
        """The present day in the programme's time zone."""
        return self.calendar.local(self.clock.now_ms()).date()

    def range_of(self, query: HasRange) -> DayRange:
        """Return the range of days of a query.

        Raises:
            Validation: the range is not acceptable.
        """
        return range_of(query, self.today, self.calendar)

    async def scale_of(self, asset: str) -> int:
        """Return the decimal places of an asset.

        Raises:
            NotFound: the asset does not exist.
        """
        scale = self._assets.scale_of(asset) if await self._assets.exists(asset) else None
        if scale is None:
            raise NotFound(f"the asset {asset} does not exist")
        return scale

    @asynccontextmanager
    async def open(
        self, name: str, *, asset: str | None = None, days: DayRange | None = None, wait_for: str | None = None
    ) -> AsyncGenerator[OpenReport]:
        """Open the report `name`: check the asset, wait for a transaction, and take a snapshot of the views.

        Raises:
            NotFound: the asset does not exist.
            ViewsNotBuilt: no version of the views is complete yet.
        """
        scale = None if asset is None else await self.scale_of(asset)
        stale = wait_for is not None and not await self.views.wait_for(wait_for)
        async with self.views.open() as snapshot:
            head = {
                "report": name,
                "asset": asset,
                "scale": scale,
                "starts": None if days is None else days.first.isoformat(),
                "ends": None if days is None else days.after.isoformat(),
                "time_zone": self.calendar.zone.key,
                "as_of": rfc3339(snapshot.as_of_ms),
                "behind_seconds": snapshot.behind_seconds,
                "stale": stale,
                "view_version": snapshot.version,
                "definition": f"{DEFINITIONS}#{name}",
            }
            yield OpenReport(snapshot, head)


# --- answers --------------------------------------------------------------------------------------------------------


def send_report(req: Request, resp: Response, report: ReportHead) -> None:
    """Write a report as JSON, or its rows as CSV if the caller prefers that."""
    resp.append_header("Vary", "Accept")
    if req.client_prefers((JSON_TYPE, CSV_MEDIA)) != CSV_MEDIA:
        send(resp, report)
        return
    resp.content_type = CSV_TYPE
    resp.set_header("Content-Disposition", f'attachment; filename="{file_name(report)}"')
    resp.data = csv_of(report)
