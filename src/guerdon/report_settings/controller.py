"""Routes of the settings of reports."""

from typing import Any

from guerdon.errors import InvalidState, MonthClosed, NotFound
from guerdon.http.body import read
from guerdon.http.operation import Request, Response, actor_of, note, operation, send
from guerdon.http.query import read_query
from guerdon.permissions import scope
from guerdon.report_settings.models import (
    ReportSettingsList,
    ReportSettingsQuery,
    ReportSettingsSet,
    ReportSettingsView,
    view_settings,
)
from guerdon.report_settings.service import ReportSettingsService


class ReportSettingsResource:
    """`/v1/report-settings/{asset}`"""

    def __init__(self, settings: ReportSettingsService) -> None:
        self._settings = settings

    @operation(
        "getReportSettings",
        scope("reports:read"),
        tag="reports",
        query=ReportSettingsQuery,
        answers={200: ReportSettingsView},
        errors=(NotFound,),
    )
    async def on_get(self, req: Request, resp: Response, asset: str) -> None:
        """Return the settings of the reports on an asset that apply to a month, by default to the present one."""
        send(resp, view_settings(await self._settings.get_settings(asset, read_query(req, ReportSettingsQuery).month)))

    @operation(
        "setReportSettings",
        scope("reports:write"),
        tag="reports",
        body=ReportSettingsSet,
        answers={200: ReportSettingsView},
        errors=(NotFound, MonthClosed, InvalidState),
        example={
            "currency": "GBP",
            "value_per_point": "1",
            "cost_per_point": "0.6",
            "redemption_rate": "0.97",
            "valid_from": "2026-11",
        },
        audited=True,
    )
    async def on_put(self, req: Request, resp: Response, asset: str) -> None:
        """Set what a minor unit of an asset is worth and costs in the reports, from a month on that is not closed.

        Each change is a new version; versions are never changed or removed. The same content makes none.
        """
        body, _ = await read(req, ReportSettingsSet)
        settings = await self._settings.replace(actor_of(req), asset, body)
        note(req, version=str(settings.version), valid_from=settings.valid_from)
        send(resp, view_settings(settings))

    @operation(
        "listReportSettingsVersions",
        scope("reports:read"),
        tag="reports",
        answers={200: ReportSettingsList},
        errors=(NotFound,),
    )
    async def on_get_versions(self, _req: Request, resp: Response, asset: str) -> None:
        """List all versions of the settings of the reports on an asset, newest first."""
        versions = await self._settings.list_versions(asset)
        send(resp, ReportSettingsList([view_settings(each) for each in versions]))


def routes(settings: ReportSettingsService) -> list[tuple[str, Any, str | None]]:
    """Return (path, resource, suffix) of every route of this package."""
    resource = ReportSettingsResource(settings)
    return [
        ("/v1/report-settings/{asset}", resource, None),
        ("/v1/report-settings/{asset}/versions", resource, "versions"),
    ]
