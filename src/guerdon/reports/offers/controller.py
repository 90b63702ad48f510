"""Routes of the reports on offers."""

from typing import Any

from guerdon.errors import NotFound, ViewsNotBuilt
from guerdon.http.operation import Request, Response, operation
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.reports.frame import send_report
from guerdon.reports.offers.models import OfferReport, OfferReportQuery, OffersReport, OffersReportQuery
from guerdon.reports.offers.service import OfferReports
from guerdon.reports.registry import ReportDefinition

_CSV = {
    "text/csv": "offer,name,kind,…,issued,reserved,…,asset,scale\r\noff_019a7f3c2d1e4b5a69788796a5b4c3d2,5 pounds off,discount,…,100,60,…,,\r\n"
}
_PERIODS_CSV = {"text/csv": "period,issued,reserved,…,asset,scale\r\n2026-11,100,60,…,,\r\n"}


class OfferReportsResource:
    """`/v1/reports/offers`"""

    def __init__(self, reports: OfferReports) -> None:
        self._reports = reports

    @operation(
        "reportOffers",
        scope("reports:read"),
        tag="reports",
        query=OffersReportQuery,
        answers={200: OffersReport},
        media=_CSV,
        errors=(ViewsNotBuilt,),
    )
    async def on_get(self, req: Request, resp: Response) -> None:
        """Report on all offers: issued, reserved, used, cancelled and expired vouchers, and refusals. `Accept: text/csv` returns CSV."""
        send_report(req, resp, await self._reports.offers(read_query(req, OffersReportQuery)))

    @operation(
        "reportOffer",
        scope("reports:read"),
        tag="reports",
        query=OfferReportQuery,
        answers={200: OfferReport},
        media=_PERIODS_CSV,
        errors=(NotFound, ViewsNotBuilt),
    )
    async def on_get_one(self, req: Request, resp: Response, offer_id: str) -> None:
        """Report on one offer by period. `Accept: text/csv` returns the periods as CSV."""
        send_report(req, resp, await self._reports.offer(offer_id, read_query(req, OfferReportQuery)))


def definitions(reports: OfferReports) -> list[ReportDefinition]:
    """Return the reports of this package for the registry."""
    summary = "Issued, reserved, used, cancelled and expired vouchers of each offer, and refusals by reason."
    return [ReportDefinition("offers", summary, OffersReportQuery, OffersReport, reports.offers)]


def routes(reports: OfferReports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = OfferReportsResource(reports)
    return [("/v1/reports/offers", resource, None), ("/v1/reports/offers/{offer_id}", resource, "one")]
