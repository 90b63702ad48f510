"""Routes of reports."""

from typing import Any

from guerdon.http.operation import Request, Response, operation, send
from guerdon.permissions import scope
from guerdon.reports.models import ReportList
from guerdon.reports.registry import Reports, describe_report


class ReportsResource:
    """`/v1/reports`"""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @operation("listReports", scope("reports:read"), tag="reports", answers={200: ReportList})
    async def on_get(self, _req: Request, resp: Response) -> None:
        """List all reports, with their parameters and columns."""
        send(resp, ReportList([describe_report(each) for each in self._reports.list_reports()]))


def routes(reports: Reports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of the reports."""
    return [("/v1/reports", ReportsResource(reports), None)]
