"""Route of the report on members."""

from typing import Any

from guerdon.errors import ViewsNotBuilt
from guerdon.http.operation import Request, Response, operation
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.reports.frame import send_report
from guerdon.reports.members.models import MembersReport, MembersReportQuery
from guerdon.reports.members.service import MemberReports
from guerdon.reports.registry import ReportDefinition

_CSV = {"text/csv": "period,buyers,new,returning,asset,scale\r\n2026-11,120,40,80,,\r\n"}


class MemberReportsResource:
    """`/v1/reports/members`"""

    def __init__(self, reports: MemberReports) -> None:
        self._reports = reports

    @operation(
        "reportMembers",
        scope("reports:read"),
        tag="reports",
        query=MembersReportQuery,
        answers={200: MembersReport},
        media=_CSV,
        errors=(ViewsNotBuilt,),
    )
    async def on_get(self, req: Request, resp: Response) -> None:
        """Report on members: active, new and returning, cohorts by first purchase, and tiers. `Accept: text/csv` returns the months as CSV."""
        send_report(req, resp, await self._reports.members(read_query(req, MembersReportQuery)))


def definitions(reports: MemberReports) -> list[ReportDefinition]:
    """Return the reports of this package for the registry."""
    summary = "Active, new and returning members, cohorts by first purchase, and tiers with their changes."
    return [ReportDefinition("members", summary, MembersReportQuery, MembersReport, reports.members)]


def routes(reports: MemberReports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    return [("/v1/reports/members", MemberReportsResource(reports), None)]
