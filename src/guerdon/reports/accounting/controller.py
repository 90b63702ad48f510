"""Routes of the reports for the accounts."""

from typing import Any

from guerdon.errors import NotFound, ViewsNotBuilt
from guerdon.http.operation import Request, Response, operation
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.reports.accounting.models import AccountingQuery, Breakage, DeferredRevenue
from guerdon.reports.accounting.service import Accounting
from guerdon.reports.frame import send_report
from guerdon.reports.registry import ReportDefinition

BREAKAGE_CSV = "month,issued,redeemed,expired,outstanding,redemption_rate,…\r\n2026-01,1000,540,0,460,0.54,…\r\n"
DEFERRED_CSV = "opening,deferred,reversed,recognised_by_redemption,…\r\n0,9000,0,4175,…\r\n"


class AccountingResource:
    """`/v1/reports/breakage` and `/v1/reports/deferred-revenue`"""

    def __init__(self, accounting: Accounting) -> None:
        self._accounting = accounting

    @operation(
        "reportBreakage",
        scope("reports:read"),
        tag="reports",
        query=AccountingQuery,
        answers={200: Breakage},
        errors=(NotFound, ViewsNotBuilt),
        media={"text/csv": BREAKAGE_CSV},
    )
    async def on_get_breakage(self, req: Request, resp: Response) -> None:
        """Show the cohorts of an asset, their redemption triangle, and the ultimate redemption rate by chain ladder."""
        send_report(req, resp, await self._accounting.report_breakage(read_query(req, AccountingQuery)))

    @operation(
        "reportDeferredRevenue",
        scope("reports:read"),
        tag="reports",
        query=AccountingQuery,
        answers={200: DeferredRevenue},
        errors=(NotFound, ViewsNotBuilt),
        media={"text/csv": DEFERRED_CSV},
    )
    async def on_get_deferred_revenue(self, req: Request, resp: Response) -> None:
        """Show the roll-forward of the deferred revenue of awarded value in a month, by IFRS 15 and ASC 606."""
        send_report(req, resp, await self._accounting.report_deferred_revenue(read_query(req, AccountingQuery)))


def definitions_of(accounting: Accounting) -> list[ReportDefinition]:
    """Return the reports of this package."""
    return [
        ReportDefinition(
            "breakage",
            "Cohorts by earning month, their redemption, and the share that is expected never to be redeemed.",
            AccountingQuery,
            Breakage,
            accounting.report_breakage,
        ),
        ReportDefinition(
            "deferred-revenue",
            "Roll-forward of the revenue that is deferred for awarded value, by IFRS 15 and ASC 606.",
            AccountingQuery,
            DeferredRevenue,
            accounting.report_deferred_revenue,
        ),
    ]


def routes(accounting: Accounting) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = AccountingResource(accounting)
    return [
        ("/v1/reports/breakage", resource, "breakage"),
        ("/v1/reports/deferred-revenue", resource, "deferred_revenue"),
    ]
