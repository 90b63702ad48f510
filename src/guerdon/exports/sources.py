"""Sources of exports: six lists, and every report."""

from datetime import datetime

from msgspec import Struct

from guerdon.calendar import Calendar
from guerdon.clock import to_ms
from guerdon.database import Database, ReadFrom, Session
from guerdon.errors import Forbidden, NotFound, Validation
from guerdon.exports.filters import (
    CampaignsFilter,
    EntriesFilter,
    EventsFilter,
    MembersFilter,
    VouchersFilter,
    WalletsFilter,
    filter_of,
)
from guerdon.exports.formats import FileFormat, missing_extra
from guerdon.exports.lists import LISTS, columns_of_list
from guerdon.exports.models import ListName
from guerdon.exports.reading import ListReader
from guerdon.exports.report_tables import table_of_report
from guerdon.exports.tables import Pages, Table
from guerdon.members.vault import Vault
from guerdon.permissions import EXPORT_SCOPE, Actor
from guerdon.reports.registry import Reports
from guerdon.wallets.assets import Assets

REPORTS_SCOPE = "reports:read"


class ExportRequest(Struct, frozen=True):
    """Content and format of an export."""

    list: ListName | None
    report: str | None
    format: FileFormat
    query: dict[str, str | int | bool]
    personal: bool

    @property
    def name(self) -> str:
        """Name of the list or the report."""
        return self.list or self.report or ""

    @property
    def scopes(self) -> tuple[str, ...]:
        """Scopes that a caller needs to create the export or to download its file, besides those of exports."""
        if self.list is None:
            return (REPORTS_SCOPE,)
        return (LISTS[self.list].scope, EXPORT_SCOPE) if self.personal else (LISTS[self.list].scope,)

    def require_scopes(self, actor: Actor) -> None:
        """
        Raises:
            Forbidden: the caller may not read what the file contains.
        """
        for scope in self.scopes:
            if not actor.may(scope):
                raise Forbidden(f"this export also needs the scope {scope}")


class ExportSources:
    """The lists and reports of this deployment."""

    def __init__(
        self, reports: Reports, *, database: Database, vault: Vault, assets: Assets, calendar: Calendar, read_from: ReadFrom
    ) -> None:
        self._reports = reports
        self._database = database
        self._vault = vault
        self._assets = assets
        self._calendar = calendar
        self._read_from: ReadFrom = read_from

    async def check(self, request: ExportRequest) -> None:
        """Check a request before it waits for a worker.

        Raises:
            Validation: neither a list nor a report is named or both are, a filter is not acceptable, or the format needs an extra.
            NotFound: the report or the asset does not exist.
        """
        if (request.list is None) == (request.report is None):
            raise Validation.at("/list", "name either a list or a report")
        if request.personal and request.list != "members":
            raise Validation.at("/personal", "only the list members has columns with personal data")
        missing = missing_extra(request.format)
        if missing is not None:
            raise Validation.at("/format", missing)
        kind = self._reports.get_report(request.report).query if request.report is not None else LISTS[_list_of(request)].filter
        filter_of(kind, request.query)
        asset = request.query.get("asset")
        if isinstance(asset, str) and not await self._assets.exists(asset):
            raise NotFound(f"the asset {asset} does not exist")

    async def open(self, request: ExportRequest, as_of: int, session: Session) -> tuple[Table, int]:
        """Return the table of a request, and the time up to which it contains changes.

        Raises:
            NotFound, Validation, ViewsNotBuilt: as for the report.
        """
        if request.report is not None:
            query = filter_of(self._reports.get_report(request.report).query, request.query)
            report = await self._reports.make(request.report, query)
            return table_of_report(report), to_ms(datetime.fromisoformat(report.as_of))
        name = _list_of(request)
        reader = ListReader(
            self._database.reading_from(self._read_from),
            session,
            vault=self._vault,
            assets=self._assets,
            calendar=self._calendar,
            as_of=as_of,
        )
        wanted = filter_of(LISTS[name].filter, request.query)
        return Table(columns_of_list(name, personal=request.personal), _pages_of(reader, wanted, personal=request.personal)), as_of


def _list_of(request: ExportRequest) -> ListName:
    assert request.list is not None
    return request.list


def _pages_of(reader: ListReader, wanted: object, *, personal: bool) -> Pages:
    """Return the pages of the list to which the filters belong."""
    match wanted:
        case EntriesFilter():
            return reader.entries(wanted)
        case WalletsFilter():
            return reader.wallets(wanted)
        case EventsFilter():
            return reader.events(wanted)
        case VouchersFilter():
            return reader.vouchers(wanted)
        case MembersFilter():
            return reader.members(wanted, personal=personal)
        case CampaignsFilter():
            return reader.campaigns(wanted)
        case _:
            raise TypeError("not the filters of a list")
