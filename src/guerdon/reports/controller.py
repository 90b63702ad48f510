"""Routes of the list of reports and of their definitions."""

from html import escape
from typing import Any

from guerdon.http.operation import Request, Response, operation, send
from guerdon.permissions import PUBLIC, scope
from guerdon.reports.models import DEFINITIONS, ReportInfo, ReportList
from guerdon.reports.registry import ReportDefinition, Reports, describe_report

_PAGE_POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
_STYLE = "body{font:16px/1.5 system-ui,sans-serif;max-width:48rem;margin:3rem auto;padding:0 1rem}"


class ReportsResource:
    """`/v1/reports` and `/docs/reports`"""

    def __init__(self, reports: Reports) -> None:
        self._reports = reports

    @operation("listReports", scope("reports:read"), tag="reports", answers={200: ReportList})
    async def on_get(self, _req: Request, resp: Response) -> None:
        """List all reports, with their parameters and columns."""
        send(resp, ReportList([describe_report(each) for each in self._reports.list_reports()]))

    @operation(
        "getReportDefinitions",
        PUBLIC,
        tag="reports",
        answers={200: None},
        media={"text/html": "<!doctype html><title>Definitions of the reports</title>"},
    )
    async def on_get_definitions(self, _req: Request, resp: Response) -> None:
        """Read the definitions of all reports, to which the `definition` of a report points."""
        resp.content_type = "text/html; charset=utf-8"
        resp.set_header("Content-Security-Policy", _PAGE_POLICY)
        resp.text = _page_of(self._reports.list_reports())


def _page_of(reports: list[ReportDefinition]) -> str:
    sections = "".join(_section_of(each, describe_report(each)) for each in reports)
    title = "Definitions of the reports"
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{title}</title><style>{_STYLE}</style></head>'
        f"<body><h1>{title}</h1><p>Amounts are minor units of the asset. Days and months are those of the programme's time zone.</p>"
        f"{sections}</body></html>"
    )


def _section_of(report: ReportDefinition, info: ReportInfo) -> str:
    formula = f"<p><strong>Formula:</strong> {escape(report.formula)}</p>" if report.formula else ""
    parameters = "".join(f"<li><code>{escape(each.name)}</code>: {escape(each.description)}</li>" for each in info.parameters)
    columns = ", ".join(f"<code>{escape(column)}</code>" for column in info.columns)
    return (
        f'<h2 id="{escape(info.name)}">{escape(info.name)}</h2><p>{escape(info.summary)}</p>{formula}'
        f"<p><code>GET {escape(info.path)}</code></p><ul>{parameters}</ul><p>Columns: {columns}</p>"
    )


def routes(reports: Reports) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of the list of reports."""
    resource = ReportsResource(reports)
    return [("/v1/reports", resource, None), (DEFINITIONS, resource, "definitions")]
