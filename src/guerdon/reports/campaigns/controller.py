"""Routes of the reports on campaigns."""

from typing import Any

from guerdon.errors import NotFound, ViewsNotBuilt
from guerdon.http.operation import Request, Response, operation
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.reports.campaigns.models import CampaignReport, CampaignReportQuery, CampaignsReport, CampaignsReportQuery
from guerdon.reports.campaigns.service import CampaignReports
from guerdon.reports.frame import send_report
from guerdon.reports.registry import ReportDefinition

_CSV = {
    "text/csv": "campaign,name,status,…,evaluated,matched,awarded,…,asset,scale\r\ncmp_019a7f3c2d1e4b5a69788796a5b4c3d2,1 per pound,active,…,120,100,90,…,PTS,0\r\n"
}
_PERIODS_CSV = {"text/csv": "period,evaluated,matched,awarded,…,asset,scale\r\n2026-11,120,100,90,…,PTS,0\r\n"}


class CampaignReportsResource:
    """`/v1/reports/campaigns`"""

    def __init__(self, reports: CampaignReports) -> None:
        self._reports = reports

    @operation(
        "reportCampaigns",
        scope("reports:read"),
        tag="reports",
        query=CampaignsReportQuery,
        answers={200: CampaignsReport},
        media=_CSV,
        errors=(ViewsNotBuilt,),
    )
    async def on_get(self, req: Request, resp: Response) -> None:
        """Report on all campaigns: decisions, points, costs, revenue and budgets. `Accept: text/csv` returns the rows as CSV."""
        send_report(req, resp, await self._reports.campaigns(read_query(req, CampaignsReportQuery)))

    @operation(
        "reportCampaign",
        scope("reports:read"),
        tag="reports",
        query=CampaignReportQuery,
        answers={200: CampaignReport},
        media=_PERIODS_CSV,
        errors=(NotFound, ViewsNotBuilt),
    )
    async def on_get_one(self, req: Request, resp: Response, campaign_id: str) -> None:
        """Report on one campaign by period and by version. `Accept: text/csv` returns the periods as CSV."""
        send_report(req, resp, await self._reports.campaign(campaign_id, read_query(req, CampaignReportQuery)))


def definitions(reports: CampaignReports) -> list[ReportDefinition]:
    """Return the reports of this package for the registry."""
    summary = "Decisions, points, costs, revenue and budget of each campaign."
    return [ReportDefinition("campaigns", summary, CampaignsReportQuery, CampaignsReport, reports.campaigns)]


def routes(reports: CampaignReports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = CampaignReportsResource(reports)
    return [("/v1/reports/campaigns", resource, None), ("/v1/reports/campaigns/{campaign_id}", resource, "one")]
